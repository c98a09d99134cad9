"""Scores of entities: ``span._.score``, stored in ``doc.user_data`` in spaCy's own layout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from spacy.tokens import Doc, Span

from gliner_pipe.data.annotations import install

#: The attribute of ``span._``.
EXTENSION = "score"


def install_extension() -> bool:
    """Register ``span._.score`` unless the name is taken.

    Repeated calls have no effect. A ``span._.score`` registered by other code is not changed: use `get_score` then.

    Returns
    -------
    bool
        Whether ``span._.score`` is the extension of this module.
    """
    install(Span, EXTENSION, getter=get_score, setter=set_score)
    return is_installed()


def is_installed() -> bool:
    """Whether ``span._.score`` is the extension of this module."""
    return Span.has_extension(EXTENSION) and Span.get_extension(EXTENSION)[2] is get_score


def get_score(span: Span) -> float | None:
    """Return the score of the entity with the place and label of `span`; None if there is none.

    A span created anew, an entity of ``doc.ents`` and a span of ``doc.spans`` share their score if they have the same
    characters and label. If several components found the same entity, it is the score written last; that of each is in
    ``doc.spans[...].attrs["scores"]``, which is also read where ``doc.user_data`` was not kept.
    """
    doc, label = span.doc, span.label_
    stored = doc.user_data.get(_key(span)) if is_installed() else None
    if isinstance(stored, Mapping) and label in stored:
        return float(stored[label])
    place = span.start, span.end, span.label
    for group in doc.spans.values():
        scores = group.attrs.get("scores")
        if scores is not None and len(scores) == len(group):
            for other, score in zip(group, scores, strict=True):
                if (other.start, other.end, other.label) == place:
                    return float(score)
    return None


def set_score(span: Span, score: float | Mapping[str, float] | None) -> None:
    """Store the score of the entity with the place and label of `span`; None removes it.

    A mapping from labels to scores, as ``doc.to_json`` writes it, holds the scores of all entities at this place.
    """
    key, label = _key(span), span.label_
    data = span.doc.user_data
    if isinstance(score, Mapping):
        data[key] = {str(name): float(value) for name, value in score.items()}
    elif score is not None:
        data[key] = {**data.get(key, {}), label: float(score)}
    elif label in data.get(key, {}):
        data[key] = {name: value for name, value in data[key].items() if name != label}


def write_scores(doc: Doc, spans: Sequence[Span], scores: Sequence[float], old: Iterable[Span] = ()) -> bool:
    """Store the scores of entities, and remove those of `old` ones; return False if ``span._.score`` is not ours."""
    if not is_installed():
        return False
    data = doc.user_data
    for span in old:
        if (key := _key(span)) in data:
            data[key].pop(span.label_, None)
            if not data[key]:
                del data[key]
    for span, score in zip(spans, scores, strict=True):
        data.setdefault(_key(span), {})[span.label_] = float(score)
    return True


def _key(span: Span) -> tuple[str, str, int, int]:
    """Return the key under which spaCy stores an attribute of a span; it counts in characters.

    spaCy shifts such keys in ``span.as_doc(copy_user_data=True)`` and ``Doc.from_docs``, and ``doc.to_json`` writes
    them. The value is a mapping from labels to scores, since the key has no label.
    """
    return "._.", EXTENSION, span.start_char, span.end_char
