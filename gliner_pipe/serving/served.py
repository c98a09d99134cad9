"""A pipeline that is served: its queue, its results as plain data, and what it says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc

from gliner_pipe.errors import DataError
from gliner_pipe.metrics.alignment import prediction_getter
from gliner_pipe.pipeline.overrides import gliner_components
from gliner_pipe.pipeline.records import entities_of
from gliner_pipe.prediction.chunks import check_text
from gliner_pipe.prediction.view import found_in
from gliner_pipe.serving.asked import DocumentSettings, settings_of
from gliner_pipe.serving.batcher import Batcher, Job
from gliner_pipe.serving.limits import Limits
from gliner_pipe.serving.messages import Asked, PipelineInfo


class Served:
    """A pipeline with a queue.

    Parameters
    ----------
    name
        Name in requests.
    nlp
        The pipeline, ready to predict.
    limits
        Limits on requests.
    observe
        Called with the number of texts of each batch.
    keep_words
        See `Batcher`.
    """

    def __init__(
        self,
        name: str,
        nlp: Language,
        limits: Limits,
        observe: Callable[[int], None] = lambda number: None,
        keep_words: int | None = None,
    ) -> None:
        self.name, self.nlp, self.limits = name, nlp, limits
        getter = prediction_getter(nlp)

        def read(doc: Doc) -> dict[str, Any]:
            return found_in(doc, entities_of(doc, getter))

        self.batcher = Batcher(nlp, read, limits.queue, observe, keep_words)

    def job(self, texts: Sequence[str], asked: Sequence[Asked]) -> Job:
        """Check texts and their settings, and return the work.

        Raises
        ------
        DataError, ConfigError
            If one is not valid.
        """
        settings: dict[int, DocumentSettings] = {}
        for one in asked:
            if id(one) not in settings:
                settings[id(one)] = settings_of(self.nlp, one)
        for number, text in enumerate(texts):
            invalid = check_text(text, None, self.nlp.max_length)
            if invalid is not None:
                raise DataError(f"texts[{number}]", *invalid)
        makers = [settings[id(one)].maker(self.nlp, text) for text, one in zip(texts, asked, strict=True)]
        return Job(makers, [len(text) for text in texts])

    async def predict(self, texts: Sequence[str], asked: Sequence[Asked]) -> list[dict[str, Any]]:
        """Return what is found in each text.

        Raises
        ------
        QueueFullError
            If too many texts wait.
        TimeoutError
            If it takes longer than allowed. Texts that are not in the model yet are given up.
        GlinerPipeError
            If a text or a setting is not valid.
        """
        job = await asyncio.to_thread(self.job, texts, asked)
        self.batcher.submit(job)
        results = [asyncio.wrap_future(one) for one in job.results]
        try:
            done, waiting = await asyncio.wait(
                results, timeout=self.limits.seconds, return_when=asyncio.FIRST_EXCEPTION
            )
            errors = [error for one in done if (error := one.exception()) is not None]
            if errors:
                raise errors[0]
            if waiting:
                raise TimeoutError
            return [one.result() for one in results]
        finally:
            for one in results:  # texts that are not in the model yet leave the queue
                one.cancel()

    def info(self) -> PipelineInfo:
        """Return its description."""
        found = gliner_components(self.nlp)
        return PipelineInfo(
            name=self.name,
            meta={
                key: self.nlp.meta.get(key) for key in ("lang", "name", "version", "description", "license")
            },
            components=self.nlp.pipe_names,
            labels={pipe.name: pipe.label_data for pipe in found}
            or {name: list(labels) for name, labels in self.nlp.pipe_labels.items() if labels},
            relations={pipe.name: pipe.relation_data for pipe in found if pipe.relation_data},
            thresholds={pipe.name: pipe.threshold for pipe in found},
        )
