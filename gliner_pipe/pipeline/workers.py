"""Processes that run a pipeline over batches of texts, and end with the process that started them, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc
from spacy.tokens.underscore import Underscore

from gliner_pipe.errors import ConfigError, GlinerPipeError, WorkerError
from gliner_pipe.pipeline.stream import Failure, Labelled, Source, UntilError, annotate_here

#: Batches that are under way in a process: one that it works on, and the next.
AHEAD = 2
#: Seconds that a process has to end by itself.
GRACE = 5.0

#: A source on its way to a process: a document goes as bytes.
_Sent = str | bytes | Labelled


def annotate_in_processes(
    nlp: Language, sources: Iterable[Source], batch_size: int, n_process: int
) -> Generator[Doc | Failure, None, None]:
    """Do what ``annotate`` does, in several processes.

    Notes
    -----
    Each process has one connection, whose other end only this process holds. So a process that dies is an end of file
    here, and the end of this process, by whatever signal, is an end of file there.
    """
    count = (os.cpu_count() or 1) if n_process == -1 else n_process
    if count < 1:
        raise ConfigError("n_process", f"is {n_process}", "at least 1, or -1 for as many as there are CPUs")
    reader = UntilError(sources)
    workers: list[_Worker] = []
    waiting: deque[_Worker] = deque()  # one for each batch under way, in order
    try:
        for number, batch in enumerate(iter(lambda: list(islice(reader, batch_size)), [])):
            if len(waiting) == AHEAD * count:
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
    """A process with a copy of the pipeline."""

    def __init__(self, nlp: Language, batch_size: int, others: Sequence[_Worker]) -> None:
        context = multiprocessing.get_context()
        self.connection, theirs = context.Pipe()
        # a forked process holds our ends of the connections of those before it, and has to let go of them
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
        """Return what became of the oldest batch that was sent."""
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
        memory = ", as where memory is full" if code == -9 else ""
        return WorkerError(
            f"A process that predicted has died ({how}{memory}). Start again with fewer processes (--n-process 1) or "
            "smaller batches (--batch-size); what is written already stays."
        )


def _work(
    nlp: Language, underscore: Any, batch_size: int, connection: Connection, inherited: Sequence[Connection]
) -> None:
    """Annotate batch after batch, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the terminal sends to all; the parent decides
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
        found = [_packed(one) for one in annotate_here(nlp, sources, batch_size)]
        try:
            connection.send(found)
        except OSError:  # nobody waits for it any more
            os._exit(0)


def _listen(connection: Connection, batches: queue.SimpleQueue[list[_Sent]]) -> None:
    """Take batches as they come, so that the parent never waits; end the process where the connection does."""
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
