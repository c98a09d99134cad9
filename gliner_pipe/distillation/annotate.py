"""A teacher annotates texts: its entities become the gold entities of training examples."""

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
from gliner_pipe.util.plurals import number_of

#: Reasons for dropping texts and entities.
EMPTY = "texts without words"
TWICE = "duplicate texts"
UNALIGNED = "entities that do not align with the student's token boundaries"


@dataclass
class Annotated:
    """The annotations of a teacher.

    Attributes
    ----------
    examples
        Documents of the student with the teacher's entities.
    dropped
        Numbers of dropped texts and entities, by reason.
    labels
        Numbers of entities by label.
    """

    examples: list[Example] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)

    @property
    def words(self) -> int:
        """Number of words of all texts."""
        return sum(len(example.reference) for example in self.examples)


def annotate(
    teacher: Language,
    student: Language,
    texts: Iterable[TextItem],
    setter: SpanSetter,
    labels: Sequence[str] = (),
) -> Annotated:
    """Annotate a stream of texts with a teacher.

    Parameters
    ----------
    teacher
        Any pipeline that sets ``doc.spans`` or ``doc.ents``.
    student
        Its tokenizer creates the documents.
    texts
        Duplicate texts are dropped, so that no text is both in the training and in the held-out data.
    setter
        Where the entities are set.
    labels
        Labels that the teacher predicts: a text without entities of a label is a negative example of it.

    Raises
    ------
    DataError
        If no text has words, or the teacher predicts no entity in any text.
    """
    found = Annotated()
    for item, _, entities in predict_texts(teacher, _fresh(texts, found.dropped)):
        bare = student.make_doc(item.text)
        reference = bare.copy()
        spans = [reference.char_span(e["start"], e["end"], e["label"]) for e in entities]
        kept = [span for span in spans if span is not None]
        found.dropped[UNALIGNED] += len(spans) - len(kept)
        set_spans(reference, kept, setter, found.dropped)
        set_supervision(reference, source=item.where, ner_labels=list(labels) or None)
        found.labels.update(span.label_ for span in kept)
        found.examples.append(Example(bare, reference))
    found.dropped = +found.dropped
    if not found.examples:
        raise DataError("distill.texts", "contain no text with words", "at least two texts")
    if not found.labels:
        raise DataError(
            "distill.texts",
            f"have no entity that the teacher predicts, in {number_of(len(found.examples), 'text')}",
            "texts with entities",
            "Check labels and threshold, and the predictions of the teacher with python -m gliner_pipe.predict",
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
