"""Texts become training examples: what the teacher finds is their gold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from spacy.language import Language
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, set_spans, set_supervision
from gliner_pipe.errors import DataError
from gliner_pipe.prediction.predict_texts import predict_texts
from gliner_pipe.prediction.texts import TextItem

EMPTY = "texts without words"
TWICE = "texts that came before"
UNALIGNED = "entities not on token borders of the student"


@dataclass
class Annotated:
    """What a teacher annotated.

    Attributes
    ----------
    examples
        Documents of the student with the teacher's entities.
    dropped
        What was left out, with numbers.
    labels
        How many entities of each label there are.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def words(self) -> int:
        """Words of all texts."""
        return sum(len(example.reference) for example in self.examples)


def annotate(
    teacher: Language,
    student: Language,
    texts: Iterable[TextItem],
    setter: SpanSetter,
    asked: Sequence[str] = (),
) -> Annotated:
    """Have a teacher annotate texts, which are read as a stream.

    Parameters
    ----------
    teacher
        Any pipeline that writes ``doc.spans`` or ``doc.ents``.
    student
        Gives the documents their tokens.
    texts
        A text that comes again is left out: it must not be learned from and measured on.
    setter
        Where the entities go.
    asked
        Labels that the teacher was asked for: where it found none, there is none.

    Raises
    ------
    DataError
        If there is no text with words, or the teacher found nothing in any of them.
    """
    found = Annotated()
    for item, _, entities in predict_texts(teacher, _fresh(texts, found.dropped)):
        bare = student.make_doc(item.text)
        reference = bare.copy()
        spans = [reference.char_span(e["start"], e["end"], e["label"]) for e in entities]
        kept = [span for span in spans if span is not None]
        found.dropped[UNALIGNED] += len(spans) - len(kept)
        set_spans(reference, kept, setter, found.dropped)
        set_supervision(reference, source=item.where, ner_labels=list(asked) or None)
        found.labels.update(span.label_ for span in kept)
        found.examples.append(Example(bare, reference))
    found.dropped = +found.dropped
    if not found.examples:
        raise DataError("distill.texts", "hold no text with words", "at least two")
    if not found.labels:
        raise DataError(
            "distill.texts",
            f"are {len(found.examples)}, in none of which the teacher found anything",
            "texts with entities",
            "Check labels and threshold, and what the teacher finds: python -m gliner_pipe.predict",
        )
    return found


def _fresh(texts: Iterable[TextItem], dropped: Counter[str]) -> Iterator[TextItem]:
    seen: set[int] = set()
    for item in texts:
        known = hash(item.text)
        if not item.text.strip():
            dropped[EMPTY] += 1
        elif known in seen:
            dropped[TWICE] += 1
        else:
            seen.add(known)
            yield item
