"""A pipeline over a stream of texts, in this process or in several: each becomes a document, or a reason why not."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Generic, NamedTuple, NoReturn, TypeAlias, TypeVar

from spacy.language import Language
from spacy.tokens import Doc
from spacy.util import raise_error

from gliner_pipe.errors import DataError, GlinerPipeError, NotInitializedError, PredictionError
from gliner_pipe.pipeline.annotate import install_extensions
from gliner_pipe.pipeline.config_errors import flat

#: Characters of a reason at most.
LONGEST = 500

_Item = TypeVar("_Item")


class Labelled(NamedTuple):
    """A text with labels of its own."""

    text: str
    labels: list[Any]


#: What a pipeline is run on.
Source: TypeAlias = str | Doc | Labelled


class Failure(NamedTuple):
    """Why there is no document for a text.

    Parameters
    ----------
    reason
        In one line.
    error
        What the pipeline raised. From another process only errors of this package come.
    handled
        Whether an error handler that the user set was told.
    alone
        Whether no other text can have been the cause.
    """

    reason: str
    error: Exception | None = None
    handled: bool = False
    alone: bool = True

    @classmethod
    def of(cls, error: Exception, *, handled: bool = False, alone: bool = True) -> Failure:
        """Return that of an error."""
        text = (
            flat(str(error))
            if isinstance(error, GlinerPipeError)
            else flat(f"{type(error).__name__}: {error}")
        )
        clean = text.encode("utf-8", "replace").decode()
        return cls(clean if len(clean) <= LONGEST else f"{clean[:LONGEST]}...", error, handled, alone)

    def concerns_all(self, has_own_labels: bool) -> bool:
        """Tell whether the pipeline cannot predict at all: it has no weights, or was set up in a way that cannot be."""
        if isinstance(self.error, NotInitializedError):
            return True
        return (
            not has_own_labels
            and isinstance(self.error, GlinerPipeError)
            and not isinstance(self.error, DataError)
        )

    def raise_for(self, where: str, do: str, *, has_own_labels: bool = False) -> NoReturn:
        """Raise the error that says which text it is about, or that of the pipeline where it concerns all texts."""
        if self.error is not None and self.concerns_all(has_own_labels):
            raise self.error
        raise PredictionError(where, f"could not be predicted on: {self.reason}", do=do) from self.error


def annotate(
    nlp: Language, sources: Iterable[Source], *, batch_size: int | None = None, n_process: int = 1
) -> Generator[Doc | Failure, None, None]:
    """Run a pipeline over a stream of texts; no more than some batches are in memory.

    A text that the pipeline fails on costs no other text its document. Where reading raises an error, what was read
    before comes first. Close the iterator when it is not read to its end: that ends its processes.

    Parameters
    ----------
    nlp
        The pipeline.
    sources
        Texts, some with labels of their own, or documents.
    batch_size
        Texts a batch; that of the pipeline when not given.
    n_process
        Processes; -1 for as many as there are CPUs. No process is left when the iterator ends, or this process does.

    Yields
    ------
    Doc or Failure
        One for each text, in their order.

    Raises
    ------
    GlinerPipeError
        If a process dies.
    """
    if n_process == 1:
        return annotate_here(nlp, sources, batch_size or nlp.batch_size)
    from gliner_pipe.pipeline.workers import annotate_in_processes  # which needs this module

    return annotate_in_processes(nlp, sources, batch_size or nlp.batch_size, n_process)


class UntilError(Generic[_Item]):
    """Iterates until the items raise an error, which is kept in ``error``."""

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
    """A text under way."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.failure: Failure | None = None


def annotate_here(
    nlp: Language, sources: Iterable[Source], batch_size: int
) -> Generator[Doc | Failure, None, None]:
    """Do what `annotate` does, in this process."""
    reader = UntilError(sources)
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
            ):  # a component that knows no error handlers: the stream is over, but not the texts
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
    """Return the document of a text that came out of no stream: by itself it may, unless it failed by itself."""
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
    return text.failure or Failure("a component of the pipeline left it out")


class _Handler:
    """The error handler of a pipeline under way: notes the error at each text, and tells the user's own handler."""

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
    """Note which texts a pipeline fails on; its own error handlers come back when the block ends."""
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
