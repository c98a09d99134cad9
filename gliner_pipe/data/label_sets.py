"""Labels of a component and labels of data, compared: where they share none, nothing can be learned or scored."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.data.annotations import SpanSetter, gold_spans, supervision
from gliner_pipe.errors import ConfigError, DataError

#: Labels that a message names.
SHOWN = 10

#: Short names that data sets use, and what they stand for.
_SHORT = {
    "per": "person",
    "pers": "person",
    "org": "organization",
    "loc": "location",
    "misc": "miscellaneous",
}


logger = logging.getLogger("gliner_pipe")
_told_elsewhere: ContextVar[bool] = ContextVar("told_elsewhere", default=False)


@dataclass(frozen=True)
class LabelSets:
    """The labels of one component, and how often each label stands in the data.

    Attributes
    ----------
    where
        The setting that holds the labels, e.g. ``"components.gliner.labels"``.
    own
        Labels of the component.
    train, dev
        Counts of the data.
    asked
        Labels that a validation asks for; those of the component when None.
    closed
        Whether nothing but the labels of the component can be found. Otherwise each training text is asked for its
        own labels, so that the model can learn from labels which the component does not have.
    learns_others
        Whether labels that the component does not have are learned from.
    noun
        What is counted.
    unseen
        Labels that are kept out of the training on purpose.
    """

    where: str
    own: Sequence[str]
    train: Mapping[str, int]
    dev: Mapping[str, int] = field(default_factory=dict)
    asked: Sequence[str] | None = None
    closed: bool = True
    learns_others: bool = True
    noun: str = "entities"
    unseen: Sequence[str] = ()

    def check(self) -> None:
        """Refuse labels of which the data have none.

        Raises
        ------
        ConfigError
            With the labels of both sides, and what to write.
        """
        if not self.own or not self.train or set(self.own) & set(self.train):
            return
        if not self.closed and set(self.asked or self.own) & set(self.dev):
            return  # a model that reads labels learns from some and is measured on others
        section, _, option = self.where.rpartition(".")
        do = (
            f"Write {option} = [] in [{section}], or --{self.where} '[]', to take those of the training data"
            f"{self._otherwise(section, option)}"
        )
        raise ConfigError(
            self.where,
            f"are {named(self.own)}; the training data have {counted(self.train)}: none in common",
            "labels of the training data",
            do + self._renaming(self.train, self.own),
        )

    def check_validation(self, where: str) -> None:
        """Refuse validation data of which no label is asked for.

        Raises
        ------
        ConfigError
            With the labels of both sides.
        """
        asked = self.own if self.asked is None else self.asked
        if asked and self.dev and not set(asked) & set(self.dev):
            raise ConfigError(
                where,
                f"holds {counted(self.dev)}; a validation asks for {named(asked)}: none in common, so every score "
                "would be 0",
                "validation data with labels that are asked for",
                "Check the path, or name what to ask for: labels = [...] in [train.val_data]"
                + self._renaming(self.dev, asked),
            )

    def warnings(self) -> Iterator[str]:
        """Yield a line for each way in which the labels differ."""
        own, asked = set(self.own), self.own if self.asked is None else self.asked
        if self.noun == "relations" and not self.train:
            yield f"[{self.where}] cannot be learned: the training data state no relation"
        if not own:
            return
        strange = {label: number for label, number in self.train.items() if label not in own}
        if strange:
            effect = (
                "they are learned from, but not asked for after the training"
                if self.learns_others
                else "they are not learned"
            )
            yield (
                f"[{self.where}] lacks labels of {sum(strange.values())} {self.noun} of the training data; {effect}: "
                f"{counted(strange)}{self._renaming(strange, self.own)}"
            )
        absent = [label for label in self.own if label not in self.train and label not in self.unseen]
        if absent and self.closed and self.train:
            dev = {label: self.dev[label] for label in absent if label in self.dev}
            only = f"; of these the validation data have {counted(dev)}" if dev else ""
            yield (
                f"[{self.where}] has {len(absent)} of {len(own)} labels that the training data do not have; the model "
                f"learns that they are absent: {named(absent)}{only}"
            )
        missed = {label: number for label, number in self.dev.items() if label not in asked}
        if missed:
            effect = "count as missed" if self.asked is None else "are left out"
            yield (
                f"[train.val_data] has {sum(missed.values())} {self.noun} whose labels a validation does not ask for; "
                f"they {effect}: {counted(missed)}{self._renaming(missed, asked)}"
            )
        new = {
            label: number
            for label, number in self.dev.items()
            if label in asked and label not in self.train and label not in self.unseen
        }
        if new and self.train and not self.closed:
            yield (
                f"[train.val_data] has {sum(new.values())} {self.noun} of labels that stand nowhere in the training "
                f"data: {counted(new)}{self._renaming(new, list(self.train))}"
            )

    def _otherwise(self, section: str, option: str) -> str:
        """What to write where a config section does not hold the labels."""
        name = section.split(".")[1]
        if self.learns_others:
            return f" (for a saved pipeline: nlp.get_pipe({name!r}).{option} = [])"
        return (
            f' (for a checkpoint: labels = "data" in [{section}.model]; for a saved pipeline: '
            f"nlp.get_pipe({name!r}).initialize(get_examples, labels=[...]))"
        )

    def _renaming(self, found: Iterable[str], known: Iterable[str]) -> str:
        same = alike(found, known)
        if not same:
            return ""
        shown = json.dumps(dict(list(same.items())[:SHOWN]), ensure_ascii=False)
        option = "rel_label_map" if self.noun == "relations" else "label_map"
        return f". If these are other spellings of the same labels, set {option} = {shown} in the section of the reader"


def named(labels: Iterable[str]) -> str:
    """Return labels for a message, the first ones by name."""
    every = list(labels)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def counted(labels: Mapping[str, int]) -> str:
    """Return labels with their numbers for a message, the most frequent ones by name."""
    return named(f"{label} ({number})" for label, number in Counter(labels).most_common())


def alike(found: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return which labels are other spellings of known ones: case, blanks, underscores, plural, ``B-``, ``PER``."""
    by_core = {_core(label): label for label in known}
    return {label: by_core[_core(label)] for label in found if _core(label) in by_core}


def _core(label: str) -> str:
    text = re.sub(r"^[BILUSE]-", "", label).casefold()
    text = re.sub(r"[\W_]+", "", text).replace("isation", "ization")
    text = _SHORT.get(text, text)
    return text[:-3] + "y" if text.endswith("ies") else text.removesuffix("s")


def count_labels(examples: Iterable[Example], getter: SpanSetter) -> Counter[str]:
    """Count the gold entities of examples by label."""
    counts = Counter(span.label_ for example in examples for span in gold_spans(example.reference, getter))
    counts.pop("", None)
    return counts


def count_relations(examples: Iterable[Example]) -> Counter[str]:
    """Count the gold relations of examples by label."""
    stated = (supervision(example.reference).get("relations", []) for example in examples)
    return Counter(label for relations in stated for _, _, label in relations)


def places_of(docs: Iterable[Doc]) -> Counter[str]:
    """Count entities by the place where they stand: the key of a span group, or ``ents``."""
    counts: Counter[str] = Counter()
    for doc in docs:
        counts.update({key: len(group) for key, group in doc.spans.items()})
        counts["ents"] += len(doc.ents)
    return +counts


def no_gold(where: str, getter: SpanSetter, examples: int, elsewhere: Counter[str]) -> DataError:
    """Return the error about documents without an entity at the place where they are looked for.

    Parameters
    ----------
    where
        Which data.
    getter
        That place.
    examples
        Number of the documents.
    elsewhere
        What :func:`places_of` found in them.
    """
    found = f"holds {examples} examples, none with an entity in {place_name(getter)} or doc.ents"
    do = "Check the reader's span_setter and label_map"
    if elsewhere:
        best = elsewhere.most_common(1)[0][0]
        found += "; there are " + ", ".join(
            f"{number} in {place_name(place)}" for place, number in elsewhere.most_common(SHOWN)
        )
        do = (
            f'Name that place: gold_spans_key = "{best}" of a gliner component, target_span_getter = "{best}" of a '
            "token_classifier, or the span_setter of the reader"
        )
    return DataError(where, found, "examples with entities", do)


def refuse_no_gold(where: str, getter: SpanSetter, examples: Iterable[Example]) -> None:
    """Refuse examples whose entities all stand in other places than the one where they are looked for.

    Examples without any entity are accepted: a pipeline may be initialized without data.

    Raises
    ------
    DataError
        With these places.
    """
    docs = [example.reference for example in examples]
    elsewhere = places_of(docs)
    if elsewhere and not any(gold_spans(doc, getter) for doc in docs):
        raise no_gold(where, getter, len(docs), elsewhere)


def warn_of_labels(sets: Iterable[LabelSets]) -> None:
    """Log in which ways the labels of a component and of its examples differ.

    Raises
    ------
    ConfigError
        If they share none, and the component finds nothing else.
    """
    for one in sets:
        try:
            one.check()
        except ConfigError as error:
            if one.closed:
                raise
            lines = [str(error)]
        else:
            lines = list(one.warnings())
        for line in lines if not _told_elsewhere.get() else ():
            logger.warning("warning: %s", line)


@contextmanager
def told_elsewhere() -> Iterator[None]:
    """Keep :func:`warn_of_labels` silent in the block, where the caller tells the user itself."""
    token = _told_elsewhere.set(True)
    try:
        yield
    finally:
        _told_elsewhere.reset(token)


def place_name(getter: SpanSetter) -> str:
    """Return how a message names the place of entities."""
    return "doc.ents" if getter == "ents" else f"doc.spans[{getter!r}]"
