"""Runs a pipeline over a stream of texts, in one process or several; each text yields a document or a failure."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

from spacy.language import Language
from spacy.tokens import Doc
from spacy.tokens.underscore import Underscore
from spacy.util import raise_error

from gliner_pipe.errors import (
    ConfigError,
    DataError,
    GlinerPipeError,
    NotInitializedError,
    PredictionError,
    WorkerError,
)
from gliner_pipe.pipeline.annotate import install_extensions
from gliner_pipe.pipeline.config_errors import flat

#: Maximum number of characters of a reason.
LONGEST = 500
#: Batches in flight per worker process: the current one and the next.
PER_WORKER = 2
#: Seconds that a worker process has to end by itself.
GRACE = 5.0

_Item = TypeVar("_Item")


class Labelled(NamedTuple):
    """A text with labels of its own."""

    text: str
    labels: list[Any]


#: What a pipeline is run on.
Source: TypeAlias = str | Doc | Labelled


class Failure(NamedTuple):
    """The reason why a text has no document.

    Parameters
    ----------
    reason
        One line.
    error
        The error that the pipeline raised; from a worker process, only errors of this package.
    handled
        Whether the user's own error handler was called.
    alone
        Whether the text failed by itself, so that no other text can be the cause.
    """

    reason: str
    error: Exception | None = None
    handled: bool = False
    alone: bool = True

    @classmethod
    def of(cls, error: Exception, *, handled: bool = False, alone: bool = True) -> Failure:
        """Return the failure that an error describes."""
        text = flat(str(error) if isinstance(error, GlinerPipeError) else f"{type(error).__name__}: {error}")
        clean = text.encode("utf-8", "replace").decode()
        return cls(clean if len(clean) <= LONGEST else f"{clean[:LONGEST]}...", error, handled, alone)

    def concerns_all(self, has_own_labels: bool) -> bool:
        """Return whether the pipeline cannot predict at all: it has no weights, or its configuration is invalid."""
        if isinstance(self.error, NotInitializedError):
            return True
        return (
            not has_own_labels
            and isinstance(self.error, GlinerPipeError)
            and not isinstance(self.error, DataError)
        )

    def raise_for(self, where: str, do: str, *, has_own_labels: bool = False) -> NoReturn:
        """Raise an error that names the text, or the pipeline's own error if it concerns all texts."""
        if self.error is not None and self.concerns_all(has_own_labels):
            raise self.error
        raise PredictionError(where, f"prediction failed: {self.reason}", do=do) from self.error


def annotate(
    nlp: Language, sources: Iterable[Source], *, batch_size: int | None = None, n_process: int = 1
) -> Generator[Doc | Failure, None, None]:
    """Run a pipeline over a stream of texts, with a few batches in memory at a time.

    A text that fails never affects other texts. If reading raises an error, the texts read before it are returned
    first. Close an iterator that is not exhausted: this ends its processes.

    Parameters
    ----------
    nlp
        The pipeline.
    sources
        Texts, texts with labels of their own, or documents.
    batch_size
        Texts per batch; that of the pipeline when None.
    n_process
        Number of processes; -1 for the number of CPUs. All end with the iterator, and with this process.

    Yields
    ------
    Doc or Failure
        One per text, in order.

    Raises
    ------
    ConfigError
        If a number is below 1.
    WorkerError
        If a process dies.
    """
    if batch_size is not None and batch_size < 1:
        raise ConfigError("batch_size", f"is {batch_size}", "at least 1")
    if n_process < 1 and n_process != -1:
        raise ConfigError("n_process", f"is {n_process}", "at least 1, or -1 for the number of CPUs")
    batch_size = batch_size or nlp.batch_size
    if n_process == 1:
        return _annotate_here(nlp, sources, batch_size)
    return _annotate_in_processes(nlp, sources, batch_size, n_process)


class _UntilError(Generic[_Item]):
    """Iterates until the items raise an error, which is stored in ``error``."""

    def __init__(self, items: Iterable[_Item]) -> None:
        self._items = iter(items)
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        if self.error is not None:
            raise StopIteration
        try:
            return next(self._items)
        except StopIteration:
            raise
        except Exception as error:
            self.error = error
            raise StopIteration from None


class _Text:
    """A text in flight."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.failure: Failure | None = None


# -- in this process ---------------------------------------------------------------------------------------------------


def _annotate_here(
    nlp: Language, sources: Iterable[Source], batch_size: int
) -> Generator[Doc | Failure, None, None]:
    """Yield a document or a failure for each text, in this process."""
    reader = _UntilError(sources)
    waiting: deque[_Text] = deque()

    def docs() -> Iterator[tuple[Doc, _Text]]:
        for source in reader:
            text = _Text(source)
            waiting.append(text)
            doc = _document(nlp, text)
            if doc is not None:
                yield doc, text

    with _handling(nlp):
        while True:
            try:
                with closing(nlp.pipe(docs(), as_tuples=True, batch_size=batch_size)) as stream:
                    for doc, text in stream:
                        while waiting[0] is not text:
                            yield _again(nlp, waiting.popleft())
                        waiting.popleft()
                        yield doc
                break
            except (
                Exception
            ):  # a component without error handler ended the stream: continue with the next texts
                if not waiting:
                    raise
                while waiting:
                    yield _again(nlp, waiting.popleft())
        while waiting:
            yield _again(nlp, waiting.popleft())
    if reader.error is not None:
        raise reader.error


def _document(nlp: Language, text: _Text) -> Doc | None:
    source = text.source
    try:
        if isinstance(source, Doc):
            return source
        if isinstance(source, str):
            return nlp.make_doc(source)
        install_extensions()
        doc = nlp.make_doc(source.text)
        doc._.gliner_labels = source.labels
        return doc
    except Exception as error:
        text.failure = Failure.of(error)
        return None


def _again(nlp: Language, text: _Text) -> Doc | Failure:
    """Annotate a text that its stream did not return: on its own it may succeed, unless it already failed alone."""
    if text.failure is not None and text.failure.alone:
        return text.failure
    text.failure = None
    doc = _document(nlp, text)
    try:
        found = [] if doc is None else list(nlp.pipe([(doc, text)], as_tuples=True))
    except Exception as error:
        return Failure.of(error)
    if found:
        return found[0][0]
    return text.failure or Failure("a component of the pipeline returned no document")


class _Handler:
    """Error handler during a stream: stores the error with each text, and calls the user's own handler."""

    def __init__(self, nlp: Language) -> None:
        self.default = nlp.default_error_handler
        self.own = {
            name: pipe.get_error_handler()
            for name, pipe in nlp.pipeline
            if hasattr(pipe, "get_error_handler")
        }

    def __call__(self, name: str, pipe: Any, docs: Sequence[Doc], error: Exception) -> None:
        own: Callable[..., Any] = self.own.get(name, self.default)
        texts = [doc._context for doc in docs]
        if own is not raise_error or not all(isinstance(text, _Text) for text in texts):
            own(name, pipe, docs, error)
        for text in texts:
            if isinstance(text, _Text):
                text.failure = Failure.of(error, handled=own is not raise_error, alone=len(texts) == 1)


@contextmanager
def _handling(nlp: Language) -> Iterator[None]:
    """Record which texts a pipeline fails on; its own error handlers are restored when the block ends."""
    if isinstance(nlp.default_error_handler, _Handler):  # another stream over the same pipeline
        yield
        return
    handler = _Handler(nlp)
    nlp.set_error_handler(handler)
    try:
        yield
    finally:
        nlp.set_error_handler(handler.default)
        for name, pipe in nlp.pipeline:
            if name in handler.own:
                pipe.set_error_handler(handler.own[name])


# -- in worker processes -----------------------------------------------------------------------------------------------

#: A source as sent to a worker: a document is sent as bytes.
_Sent = str | bytes | Labelled


def _annotate_in_processes(
    nlp: Language, sources: Iterable[Source], batch_size: int, n_process: int
) -> Generator[Doc | Failure, None, None]:
    """Yield a document or a failure for each text, from several worker processes.

    Notes
    -----
    Each worker has one connection, whose other end only this process holds. So the death of a worker is an end of file
    here, and the death of this process, by whatever signal, is an end of file there.
    """
    count = (os.cpu_count() or 1) if n_process == -1 else n_process
    reader = _UntilError(sources)
    workers: list[_Worker] = []
    waiting: deque[_Worker] = deque()  # one per batch in flight, in order
    try:
        for number, batch in enumerate(iter(lambda: list(islice(reader, batch_size)), [])):
            if len(waiting) == PER_WORKER * count:
                yield from waiting.popleft().receive(nlp)
            if len(workers) < count:
                workers.append(_Worker(nlp, batch_size, workers))
            worker = workers[number % count]
            worker.send([source.to_bytes() if isinstance(source, Doc) else source for source in batch])
            waiting.append(worker)
        while waiting:
            yield from waiting.popleft().receive(nlp)
    finally:
        for worker in workers:
            worker.connection.close()
        for worker in workers:
            worker.end()
    if reader.error is not None:
        raise reader.error


class _Worker:
    """A worker process with a copy of the pipeline."""

    def __init__(self, nlp: Language, batch_size: int, others: Sequence[_Worker]) -> None:
        context = multiprocessing.get_context()
        self.connection, theirs = context.Pipe()
        # a forked process inherits our ends of all earlier connections, and must close them
        forked = context.get_start_method() == "fork"
        inherited = [self.connection, *(other.connection for other in others)] if forked else []
        self.process = context.Process(
            target=_work, args=(nlp, Underscore.get_state(), batch_size, theirs, inherited), daemon=True
        )
        self.process.start()
        theirs.close()

    def send(self, batch: list[_Sent]) -> None:
        try:
            self.connection.send(batch)
        except OSError as error:
            raise self._died() from error

    def receive(self, nlp: Language) -> Iterator[Doc | Failure]:
        """Yield the results of the oldest batch in flight."""
        try:
            found: list[bytes | Failure] = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        for one in found:
            yield one if isinstance(one, Failure) else Doc(nlp.vocab).from_bytes(one)

    def end(self) -> None:
        """Wait for the process to end."""
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()

    def _died(self) -> WorkerError:
        self.process.join(GRACE)
        code = self.process.exitcode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = signal.Signals(-code).name
        memory = ", as when memory runs out" if code == -9 else ""
        return WorkerError(
            f"A prediction process died ({how}{memory}). Start again with fewer processes (--n-process 1) or "
            "smaller batches (--batch-size); output written so far is kept."
        )


def _work(
    nlp: Language, underscore: Any, batch_size: int, connection: Connection, inherited: Sequence[Connection]
) -> None:
    """Annotate batches until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all processes; the parent decides
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    for other in inherited:
        other.close()
    Underscore.load_state(underscore)
    batches: queue.SimpleQueue[list[_Sent]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, batches), daemon=True).start()
    while True:
        sources = [Doc(nlp.vocab).from_bytes(one) if isinstance(one, bytes) else one for one in batches.get()]
        found = [_packed(one) for one in _annotate_here(nlp, sources, batch_size)]
        try:
            connection.send(found)
        except OSError:  # the parent no longer waits for it
            os._exit(0)


def _listen(connection: Connection, batches: queue.SimpleQueue[list[_Sent]]) -> None:
    """Receive batches at once, so that the parent never blocks; end the process when the connection closes."""
    try:
        while True:
            batches.put(connection.recv())
    except EOFError:
        os._exit(0)
    finally:
        os._exit(1)


def _packed(one: Doc | Failure) -> bytes | Failure:
    if isinstance(one, Doc):
        try:
            return one.to_bytes()
        except Exception as error:
            one = Failure.of(error)
    return one if isinstance(one.error, GlinerPipeError) else one._replace(error=None)
