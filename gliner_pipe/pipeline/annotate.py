"""Writes entities and relations to a spaCy document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup

from gliner_pipe.data import classes, records, relations, scores
from gliner_pipe.data.annotations import install
from gliner_pipe.data.classes import Classified
from gliner_pipe.modeling.decoders.span import Candidate, Preference
from gliner_pipe.pipeline.word_splitters import Words
from gliner_pipe.util.patterns import Pattern

UNALIGNED = "entity does not align with token boundaries (alignment_mode)"
ADJUSTED = "entity widened or narrowed to token boundaries (alignment_mode)"
MERGED = "entity left out for a better one that has some of its tokens once both are aligned (alignment_mode)"
RELATION_UNALIGNED = "relation of an entity that alignment with tokens left out (alignment_mode)"
VALUE_UNALIGNED = "value of a record that does not align with token boundaries (alignment_mode)"
CANDIDATE_UNALIGNED = (
    "candidate below its threshold that does not align with token boundaries (alignment_mode)"
)
OVERLAPPED = "entity left out of doc.ents because it overlaps an existing one"
NOT_MATCHING = "entity whose text does not match the pattern of its label"
NOT_MATCHING_VALUE = "value of a record whose text does not match the pattern of its field"
SCORE_TAKEN = 'entity without span._.score, which another package has registered (use attrs["scores"])'
#: Counts of what alignment changes.
ALIGNMENT = (UNALIGNED, ADJUSTED, MERGED)


class Entity(NamedTuple):
    """An entity.

    Words `start` to `end` (inclusive), label, score in [0, 1], generated labels, and the scores of all labels if they
    were asked for.
    """

    start: int
    end: int
    label: str
    score: float
    generated: tuple[str, ...] = ()
    class_scores: Mapping[str, float] | None = None


class Link(NamedTuple):
    """A relation between two entities, given by their positions in the list of entities; score in [0, 1].

    Positions from the number of entities on count ``Prediction.other_ends``. ``itself``: both ends are the same words.
    """

    head: int
    tail: int
    label: str
    score: float
    itself: bool = False


class FoundValue(NamedTuple):
    """A value of a field: words `start` to `end` (inclusive), or a choice and None; score in [0, 1]."""

    start: int | str
    end: int | None
    score: float


class FoundField(NamedTuple):
    """A field of a record, whether it takes several values, its pattern, and its values, in order."""

    name: str
    is_list: bool
    pattern: Pattern | None
    values: list[FoundValue]


class FoundRecord(NamedTuple):
    """A record: its name and fields."""

    name: str
    fields: list[FoundField]


@dataclass
class Prediction:
    """Entities and relations of one document.

    Attributes
    ----------
    entities
        Ordered by start.
    relations
        Relations between the entities; None where none were requested.
    has_generated
        Whether labels were generated for the entities.
    words
        Words of the document, where they are available; otherwise it is split again.
    below
        Spans from ``candidate_threshold`` up to their thresholds; None where it is not set.
    patterns
        Pattern of each label that has one.
    classes
        Classifications of the text; None where none were requested.
    records
        Records of the text; None where none were requested.
    other_ends
        Ends of relations that are no entities.
    """

    entities: list[Entity]
    relations: list[Link] | None = None
    has_generated: bool = False
    words: Words | None = None
    below: list[Entity] | None = None
    patterns: Mapping[str, Pattern] = field(default_factory=dict)
    classes: list[Classified] | None = None
    records: list[FoundRecord] | None = None
    other_ends: Sequence[Entity] = ()


def install_extensions() -> None:
    """Register ``doc._.gliner_labels``, ``doc._.gliner_relations``, ``doc._.gliner_classes``, ``doc._.gliner_records``.

    They are what to find in one document. Also ``doc._.relations``, ``doc._.records``, ``doc._.classes`` and
    ``span._.score``. Existing extensions of these names are kept.
    """
    for name in ("gliner_labels", "gliner_relations", "gliner_classes", "gliner_records"):
        install(Doc, name, default=None)
    classes.install_extension()
    relations.install_extension()
    records.install_extension()
    scores.install_extension()


# -- alignment with tokens ---------------------------------------------------------------------------------------------


class Aligned(NamedTuple):
    """The tokens of entities.

    Attributes
    ----------
    spans
        The span of each entity; None for one that aligns with no tokens.
    owners
        For each entity its own position, or that of the better entity with the same tokens and label; None for one that
        is left out.
    """

    spans: list[Span | None]
    owners: list[int | None]

    def kept(self) -> list[tuple[int, Span]]:
        """Return position and span of each entity that stays."""
        rows = zip(range(len(self.spans)), self.spans, self.owners, strict=True)
        return [(at, span) for at, span, owner in rows if span is not None and owner == at]

    def ends(self) -> list[Span | None]:
        """Return the span that stands for each entity in relations; None for one that is left out."""
        return [None if owner is None else self.spans[owner] for owner in self.owners]


def align(
    doc: Doc,
    entities: Sequence[Entity],
    words: Words,
    mode: str,
    decode: Callable[[list[Candidate]], list[Candidate]],
    report: Counter[str],
    patterns: Mapping[str, Pattern] | None = None,
) -> Aligned:
    """Find the tokens of entities, and resolve the conflicts that alignment with tokens makes.

    Parameters
    ----------
    doc
        The document.
    entities
        Its entities, in words.
    words
        Its words.
    mode
        The setting ``alignment_mode``.
    decode
        Selects among entities that overlap; it is called only if the tokens of an entity are not its words.
    report
        Counts what is left out or changed.
    patterns
        Pattern of each label that has one; the text of an adjusted entity must match it, too.
    """
    text = doc.text
    spans = [words.span(doc, entity.start, entity.end, entity.label, mode, text) for entity in entities]
    owners = [at if span is not None and len(span) else None for at, span in enumerate(spans)]
    if missing := owners.count(None):
        report[UNALIGNED] += missing
    if words.offsets is None or not entities:
        return Aligned(spans, owners)
    adjusted = 0
    for at, (span, entity) in enumerate(zip(spans, entities, strict=True)):
        if span is None or owners[at] is None:
            continue
        if words.bounds(text, entity.start, entity.end) != (span.start_char, span.end_char):
            adjusted += 1
            pattern = patterns.get(entity.label) if patterns else None
            if pattern is not None and not pattern.fullmatch(span.text):
                owners[at] = None
                report[NOT_MATCHING] += 1
    if adjusted:
        report[ADJUSTED] += adjusted
        before = len(owners) - owners.count(None)
        keys = [
            None if span is None or owner is None else (span.start, span.end, span.label_)
            for span, owner in zip(spans, owners, strict=True)
        ]
        owners = owners_of(keys, [entity.score for entity in entities], decode)
        if merged := before - sum(owner == at for at, owner in enumerate(owners)):
            report[MERGED] += merged
    return Aligned(spans, owners)


def owners_of(
    keys: Sequence[tuple[int, int, str] | None],
    values: Sequence[float],
    decode: Callable[[list[Candidate]], list[Candidate]],
) -> list[int | None]:
    """Resolve conflicts between entities that are aligned with tokens.

    Parameters
    ----------
    keys
        First token, end token (exclusive) and label of each entity; None for one that is left out already.
    values
        Score of each.
    decode
        Selects among entities that overlap.

    Returns
    -------
    list of int or None
        For each entity the position of the best one with its tokens and label, if `decode` keeps that.
    """
    best: dict[tuple[int, int, str], int] = {}
    for at, key in enumerate(keys):
        if key is not None and (key not in best or values[at] > values[best[key]]):
            best[key] = at
    numbers = {label: number for number, label in enumerate(sorted({key[2] for key in best}))}
    places = {(start, end - 1, numbers[label]): (start, end, label) for start, end, label in best}
    kept = decode([Candidate(*place, values[best[key]]) for place, key in sorted(places.items())])
    chosen = {places[one[:3]] for one in kept}
    return [best[key] if key is not None and key in chosen else None for key in keys]


def align_below(
    doc: Doc,
    candidates: Sequence[Entity],
    words: Words,
    mode: str,
    entities: Sequence[Span],
    report: Counter[str],
    patterns: Mapping[str, Pattern],
) -> tuple[list[Span], list[float]]:
    """Return tokens and score of each candidate below its threshold: each span and label once, with its best score.

    They may overlap each other and the entities, but none has the tokens and label of one of the `entities`. `report`
    counts those that align with no tokens.
    """
    found: dict[tuple[int, int, int], tuple[Span, float]] = {}
    taken, text = {(span.start, span.end, span.label) for span in entities}, doc.text
    for entity in candidates:
        span = words.span(doc, entity.start, entity.end, entity.label, mode, text)
        if span is None or not len(span):
            report[CANDIDATE_UNALIGNED] += 1
            continue
        pattern = patterns.get(entity.label)
        if pattern is not None and not pattern.fullmatch(span.text):
            continue
        key = (span.start, span.end, span.label)
        if key not in taken and (key not in found or entity.score > found[key][1]):
            found[key] = (span, entity.score)
    return [span for span, _ in found.values()], [score for _, score in found.values()]


# -- writing -----------------------------------------------------------------------------------------------------------


def set_group(
    doc: Doc, key: str, spans: Sequence[Span], values: Sequence[float], report: Counter[str], **attrs: Any
) -> None:
    """Write spans to ``doc.spans[key]``, with their scores in ``attrs["scores"]`` and ``span._.score``."""
    group = SpanGroup(doc, name=key, spans=list(spans))
    group.attrs.update({"scores": list(map(float, values)), **attrs})
    write_scores(doc, spans, values, report, doc.spans.get(key, ()))
    doc.spans[key] = group


def write_scores(
    doc: Doc, spans: Sequence[Span], values: Sequence[float], report: Counter[str], old: Iterable[Span] = ()
) -> None:
    """Write ``span._.score`` of spans and remove that of `old` ones; counted in `report` if the name is taken."""
    if not scores.write_scores(doc, spans, values, old) and spans:
        report[SCORE_TAKEN] += len(spans)


def set_ents(
    doc: Doc,
    spans: Sequence[Span],
    values: Sequence[float],
    overwrite: bool,
    report: Counter[str],
    prefer: Preference = "score",
) -> None:
    """Write non-overlapping spans to ``doc.ents``: those with the best scores, or the longest.

    Existing entities stay and exclude spans that overlap them (counted in `report`); with `overwrite` an existing
    entity that overlaps a new one is removed.
    """
    existing = list(doc.ents)
    taken = np.zeros(len(doc), dtype=bool)
    if not overwrite:
        for ent in existing:
            taken[ent.start : ent.end] = True
    by_existing = taken.copy()
    kept: list[Span] = []
    order = sorted(range(len(spans)), key=lambda index: -values[index])
    if prefer == "longest":
        order.sort(key=lambda index: -len(spans[index]))
    for index in order:
        span = spans[index]
        if taken[span.start : span.end].any():
            report[OVERLAPPED] += int(by_existing[span.start : span.end].any())
            continue
        taken[span.start : span.end] = True
        kept.append(span)
    if overwrite:
        existing = [ent for ent in existing if not taken[ent.start : ent.end].any()]
    if kept or overwrite:
        doc.set_ents([*existing, *kept], default="outside")


def set_relations(
    doc: Doc, links: Sequence[Link], spans: Sequence[Span | None], report: Counter[str]
) -> None:
    """Write relations between entities to ``doc._.relations``; of equal ones the best.

    Parameters
    ----------
    doc
        The document.
    links
        The relations.
    spans
        The entities; None for one that is left out, whose relations are counted in `report`.
    report
        Counts relations that are left out.
    """
    found: dict[tuple[int, int, str, int, int, str, str], relations.Relation] = {}
    for link in links:
        head, tail = spans[link.head], spans[link.tail]
        merged = head is not None and tail is not None and (head.start, head.end) == (tail.start, tail.end)
        if head is None or tail is None or (merged and not link.itself):
            report[RELATION_UNALIGNED] += 1
            continue
        key = (head.start, head.end, head.label_, tail.start, tail.end, tail.label_, link.label)
        if key not in found or link.score > found[key].score:
            found[key] = relations.Relation(head, tail, link.label, link.score)
    relations.set_relations(doc, found.values())


def set_records(
    doc: Doc, found: Sequence[FoundRecord], words: Words, mode: str, report: Counter[str]
) -> None:
    """Write records to ``doc._.records``; a record is left out if none of its values aligns with tokens.

    Parameters
    ----------
    doc
        The document.
    found
        Its records, in words.
    words
        Its words.
    mode
        The setting ``alignment_mode``.
    report
        Counts values that do not align with tokens, or no longer match their pattern once they do.
    """
    made, text = [], doc.text
    for name, fields in found:
        best: list[float] = []
        values: dict[str, records.Value] = {}
        scores: dict[str, float | list[float] | None] = {}
        for one in fields:
            placed = _placed(doc, one, words, mode, report, text)
            if one.is_list:
                values[one.name] = cast(list[Span] | list[str], [value for value, _ in placed])
                scores[one.name] = [score for _, score in placed]
            else:
                values[one.name], scores[one.name] = placed[0] if placed else (None, None)
            best += [score for _, score in placed]
        if best:
            made.append(records.Record(name, values, max(best), scores))
    records.set_records(doc, made)


def _placed(
    doc: Doc, field: FoundField, words: Words, mode: str, report: Counter[str], text: str
) -> list[tuple[Span | str, float]]:
    """Return the values of a field as spans of tokens, or as choices, with their scores; of equal ones the best."""
    placed: dict[tuple[int, int] | str, tuple[Span | str, float]] = {}
    for start, end, score in field.values:
        if isinstance(start, str) or end is None:
            placed[str(start)] = str(start), score
            continue
        span = words.span(doc, start, end, field.name, mode, text)
        if span is None or not len(span):
            report[VALUE_UNALIGNED] += 1
            continue
        adjusted = words.offsets is not None and words.bounds(text, start, end) != (
            span.start_char,
            span.end_char,
        )
        if adjusted and field.pattern is not None and not field.pattern.fullmatch(span.text):
            report[NOT_MATCHING_VALUE] += 1
            continue
        key = span.start, span.end
        if key not in placed or score > placed[key][1]:
            placed[key] = span, score
    return list(placed.values())
