"""Predicts the texts of all requests together: one thread takes what waits and runs the pipeline on it as a batch."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.pipeline.stream import Failure, annotate

logger = logging.getLogger("gliner_pipe.serve")

#: Largest batch: texts, and characters of all of them (some 10,000 words). A text that waits for it waits for its end.
BATCH_TEXTS, BATCH_CHARACTERS = 64, 60_000


class QueueFullError(Exception):
    """There is no room for the texts of a request; ``waiting`` is the number of texts that wait."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


@dataclass
class Job:
    """The texts of one request: what makes the document of each, its size in characters, and its result."""

    makers: Sequence[Callable[[], Doc]]
    sizes: Sequence[int]
    results: list[Future[Any]] = field(init=False)
    taken: int = 0

    def __post_init__(self) -> None:
        self.results = [Future() for _ in self.makers]


class Batcher:
    """Runs a pipeline on the texts of requests, in a thread of its own.

    The texts of a request that is given up, and are not in the model yet, leave the queue. Requests take turns: a long
    one does not hold up a short one for more than a batch.

    Parameters
    ----------
    nlp
        The pipeline.
    read
        Returns the result of a document; called in the thread.
    room
        Maximum number of waiting texts.
    observe
        Called with the number of texts of each batch.
    keep_words
        Words that spaCy's vocabulary may keep; None for any number. From there on, the new words of a batch are
        forgotten at its end, so nothing else may use the pipeline, or one with its vocabulary, at the same time.
    """

    def __init__(
        self,
        nlp: Language,
        read: Callable[[Doc], Any],
        room: int,
        observe: Callable[[int], None] = lambda number: None,
        keep_words: int | None = None,
    ) -> None:
        self.nlp, self.read, self.room, self.observe = nlp, read, room, observe
        self.keep_words = keep_words
        self._jobs: deque[Job] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="predictions", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of texts that wait."""
        return self._waiting

    def submit(self, job: Job) -> None:
        """Add the texts of a request to the queue.

        Raises
        ------
        QueueFullError
            If there is no room for them.
        """
        with self._changed:
            if self._closing or self._waiting + len(job.makers) > self.room:
                raise QueueFullError(self._waiting)
            self._jobs.append(job)
            self._waiting += len(job.makers)
            self._changed.notify()

    def close(self) -> None:
        """Refuse further requests, and return when those accepted are answered."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if not self._jobs:
                    return
                batch = self._take()
            try:
                with self._words():
                    self._run(batch)
            except BaseException as error:  # the thread must outlive whatever a component raises
                logger.exception("prediction failed")
                for _, result in batch:
                    if not result.done():
                        result.set_exception(error)

    def _words(self) -> AbstractContextManager[Any]:
        """Return the context of a batch, at whose end new words are forgotten if the vocabulary is full."""
        full = self.keep_words is not None and len(self.nlp.vocab.strings) >= self.keep_words
        return self.nlp.memory_zone() if full else nullcontext()

    def _take(self) -> list[tuple[Callable[[], Doc], Future[Any]]]:
        """Take texts in turn from all requests until a batch is full."""
        batch: list[tuple[Callable[[], Doc], Future[Any]]] = []
        characters = 0
        while self._jobs and len(batch) < BATCH_TEXTS:
            job = self._jobs[0]
            place = job.taken
            cancelled = job.results[place].cancelled()
            if batch and not cancelled and characters + job.sizes[place] > BATCH_CHARACTERS:
                break
            self._jobs.popleft()
            job.taken += 1
            self._waiting -= 1
            if job.taken < len(job.makers):
                self._jobs.append(job)
            if job.results[place].set_running_or_notify_cancel():
                characters += job.sizes[place]
                batch.append((job.makers[place], job.results[place]))
        return batch

    def _run(self, batch: list[tuple[Callable[[], Doc], Future[Any]]]) -> None:
        if not batch:
            return
        self.observe(len(batch))
        made: list[Future[Any]] = []

        def docs() -> Iterator[Doc]:
            for make, result in batch:
                try:
                    doc = make()
                except Exception as error:
                    result.set_exception(error)
                else:
                    made.append(result)
                    yield doc

        with closing(annotate(self.nlp, docs(), batch_size=BATCH_TEXTS)) as found:
            for number, one in enumerate(found):
                result = made[number]
                if isinstance(one, Failure):
                    result.set_exception(one.error or RuntimeError(one.reason))
                else:
                    result.set_result(self.read(one))
