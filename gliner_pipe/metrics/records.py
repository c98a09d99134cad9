"""Precision, recall and F1 of records: of the values of their fields, and of whole records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spacy.tokens import Span
from spacy.training import Example

from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.records import RECORDS_KEY, Record, get_records, with_values
from gliner_pipe.metrics.alignment import common_edges
from gliner_pipe.metrics.counts import Pair, score_mentions
from gliner_pipe.registry import registry


@registry.scorers.register("gliner_pipe.records")
@dataclass(eq=False)
class RecordScorer:
    """Compares predicted records with gold records.

    The result has ``fields`` (a value is correct if a gold record of the text has it in the same field, whichever
    record that is) with a row for each ``record.field``, and ``records`` (a record is correct if a gold record has the
    same values in all fields) with a row for each kind, each with the averages ``micro`` and ``macro``; and the number
    of ``examples`` that were scored and ``skipped``. Texts in which nobody looked for records are skipped, and so are
    predicted records of kinds that nobody looked for.

    Parameters
    ----------
    match
        ``text``: values are equal if their texts are, whatever the case and the place. ``place``: if they are the same
        words of the text.
    kinds
        The only kinds of records to score; all by default.
    """

    match: Literal["text", "place"] = "text"
    kinds: Sequence[str] | None = None

    def __call__(self, examples: Iterable[Example], **_: Any) -> dict[str, Any]:
        """Score the examples."""
        examples = list(examples)
        pairs = [pair for pair in map(self.pair, examples) if pair is not None]
        return {
            "fields": score_mentions([fields for fields, _ in pairs]),
            "records": score_mentions([records for _, records in pairs]),
            "examples": len(pairs),
            "skipped": len(examples) - len(pairs),
        }

    def pair(self, example: Example) -> tuple[Pair, Pair] | None:
        """Return gold and predicted values, and gold and predicted records; None if no records are annotated."""
        gold, predicted = example.reference, example.predicted
        if RECORDS_KEY not in gold.user_data:
            return None
        asked = supervision(gold).get("records")
        edges = common_edges(gold, predicted) if self.match == "place" else (None, None)
        truth = [self._values(one, edges[0]) for one in get_records(gold) if self._counts(one)]
        guesses = [
            self._values(one, edges[1])
            for one in get_records(predicted)
            if self._counts(one) and (asked is None or one.name in asked)
        ]
        return (_fields(truth), _fields(guesses)), (_wholes(truth), _wholes(guesses))

    def _counts(self, record: Record) -> bool:
        return self.kinds is None or record.name in self.kinds

    def _values(self, record: Record, edges: Sequence[int] | None) -> tuple[str, set[tuple[str, Any]]]:
        """Return the kind of a record, and its fields with their values."""

        def plain(span: Span) -> Any:
            return normal(span.text) if edges is None else (edges[span.start], edges[span.end])

        values = set()
        for field, stated in with_values(record, plain).items():
            for value in stated if isinstance(stated, list) else [stated]:
                if value is not None:
                    values.add((field, normal(value) if isinstance(value, str) else value))
        return record.name, values


def score_component_records(examples: Sequence[Example]) -> dict[str, Any]:
    """Score records under names like spaCy's, for ``nlp.evaluate`` and ``spacy train``.

    Parameters
    ----------
    examples
        Gold and predicted documents.

    Returns
    -------
    dict[str, Any]
        ``records_p``, ``_r``, ``_f`` and ``_per_type`` (whole records), and ``records_fields_p`` and so on. Empty if no
        records were predicted, or no gold records are known.
    """
    if not any(RECORDS_KEY in example.predicted.user_data for example in examples):
        return {}
    scores = RecordScorer()(examples)
    found: dict[str, Any] = {}
    for prefix, name in (("records", "records"), ("records_fields", "fields")) if scores["examples"] else ():
        rows = {label: {metric: row.get(metric) for metric in "prf"} for label, row in scores[name].items()}
        micro = rows.pop("micro")
        rows.pop("macro")
        found |= {f"{prefix}_{metric}": micro[metric] for metric in "prf"}
        found[f"{prefix}_per_type"] = rows
    return found


def normal(text: str) -> str:
    """Return what equal values have in common."""
    return " ".join(text.lower().split())


def _fields(records: Iterable[tuple[str, set[tuple[str, Any]]]]) -> set[tuple[str, Any, int]]:
    """Return the values of records; those that occur several times are numbered."""
    return _numbered((f"{kind}.{field}", value) for kind, values in records for field, value in values)


def _wholes(records: Iterable[tuple[str, set[tuple[str, Any]]]]) -> set[tuple[str, Any, int]]:
    """Return whole records; those that occur several times are numbered."""
    return _numbered((kind, frozenset(values)) for kind, values in records)


def _numbered(items: Iterable[tuple[str, Any]]) -> set[tuple[str, Any, int]]:
    numbers: Counter[tuple[str, Any]] = Counter()
    found = set()
    for item in items:
        found.add((*item, numbers[item]))
        numbers[item] += 1
    return found
