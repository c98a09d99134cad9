"""Agreement of a student with its teacher, and the speed of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter, process_time
from typing import Any

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.evaluation.evaluate import evaluate_pipeline, gold_span_getter
from gliner_pipe.pipeline.overrides import gliner_components, tagging_components

#: Words of the texts for the speed measurement, and number of runs of each pipeline.
WORDS, ROUNDS = 4000, 3


def scores(nlp: Language, examples: Sequence[Example], student: Language) -> dict[str, Any]:
    """Score exact spans against the gold spans of the student.

    Returns
    -------
    dict
        A row for each label, ``micro`` and ``macro``; see ``score_mentions``.
    """
    found = evaluate_pipeline(nlp, examples, metrics=["exact"], span_getter=gold_span_getter(student))
    row: dict[str, Any] = found["exact"]
    return row


def speeds(teacher: Language, student: Language, texts: Sequence[str]) -> dict[str, float]:
    """Measure both pipelines in turns on the same texts, by CPU time, or by wall time if one of them is not on the CPU.

    Returns
    -------
    dict
        ``teacher`` and ``student`` in words (of the student) a second, and ``ratio``, the median over runs.
    """
    chosen: list[str] = []
    n_words = 0
    for text in texts:
        if n_words < WORDS:
            chosen.append(text)
            n_words += len(student.make_doc(text))
    both = [teacher, student]
    devices = {
        pipe.device.type for nlp in both for pipe in [*gliner_components(nlp), *tagging_components(nlp)]
    }
    clock = process_time if devices <= {"cpu"} else perf_counter
    for nlp in both:  # warm up
        list(nlp.pipe(chosen[:2]))
    turns = [[_seconds(nlp, chosen, clock) for nlp in both] for _ in range(ROUNDS)]
    slow, fast = (statistics.median(times) for times in zip(*turns, strict=True))
    ratio = statistics.median(teacher_took / student_took for teacher_took, student_took in turns)
    return {"teacher": n_words / slow, "student": n_words / fast, "ratio": ratio}


def _seconds(nlp: Language, texts: Sequence[str], clock: Callable[[], float]) -> float:
    start = clock()
    for _ in nlp.pipe(texts, batch_size=nlp.batch_size):
        pass
    return max(clock() - start, 1e-9)
