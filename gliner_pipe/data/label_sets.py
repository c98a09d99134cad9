"""Compares the labels of a component with the labels of the data: without a common one, nothing can be learned."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import combinations

from gliner_pipe.errors import ConfigError

#: Maximum number of labels in a message.
SHOWN = 10

#: Maximum number of labels that are compared with each other, and the similarity of two spellings of one label.
MOST_COMPARED, SAME_RATIO = 200, 0.9

#: Abbreviations of labels that data sets use.
_SHORT = {
    "per": "person",
    "pers": "person",
    "org": "organization",
    "loc": "location",
    "misc": "miscellaneous",
}

logger = logging.getLogger("gliner_pipe")
_silent: ContextVar[bool] = ContextVar("label_warnings_off", default=False)


@dataclass(frozen=True)
class LabelSets:
    """The labels of one component, and how often each label occurs in the data.

    Attributes
    ----------
    where
        Setting of the labels, e.g. ``"components.gliner.labels"``; without a section, an option of a command.
    own
        Labels of the component.
    train, dev
        Counts of the labels in the training and in the validation data.
    asked
        Labels that a validation predicts; None for the labels of the component.
    closed
        Whether the component predicts its own labels only. Otherwise the labels of each training text are candidates,
        so the model can learn from labels that the component does not have.
    learns_others
        Whether annotations with other labels than those of the component are learned.
    noun
        Kind of annotation, for messages.
    unseen
        Labels that are kept out of training on purpose.
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
        """Raise an error if the training data has none of the labels.

        Raises
        ------
        ConfigError
            With the labels of both sides and the setting to change.
        """
        if not self.own or not self.train or set(self.own) & set(self.train):
            return
        if not self.closed and set(self.asked or self.own) & set(self.dev):
            return  # a zero-shot model is trained on some labels and evaluated on others
        section, _, option = self.where.rpartition(".")
        do = "Remove it to use the labels of the data"
        if section:
            do = (
                f"Set {option} = [] in [{section}], or --{self.where} '[]', to use the labels of the training data"
                f"{self._otherwise(section, option)}"
            )
        raise ConfigError(
            self.where,
            f"has {named(self.own)}; the training data has {counted(self.train)}: no common label",
            "labels of the training data",
            do + self._renaming(self.train, self.own),
        )

    def check_validation(self, where: str) -> None:
        """Raise an error if a validation predicts none of the labels of its data.

        Raises
        ------
        ConfigError
            With the labels of both sides.
        """
        asked = self.own if self.asked is None else self.asked
        if asked and self.dev and not set(asked) & set(self.dev):
            raise ConfigError(
                where,
                f"has {counted(self.dev)}; a validation predicts {named(asked)}: no common label, so every score "
                "would be 0",
                "validation data with labels that are predicted",
                "Check the path, or set the labels to predict: labels = [...] in [train.val_data]"
                + self._renaming(self.dev, asked),
            )

    def warnings(self) -> Iterator[str]:
        """Yield a line for each difference between the labels of the component and of the data."""
        own, asked = set(self.own), self.own if self.asked is None else self.asked
        if self.noun == "relations" and not self.train:
            yield f"[{self.where}] cannot be learned: the training data has no relation"
        if not own:
            return
        strange = {label: number for label, number in self.train.items() if label not in own}
        if strange:
            effect = (
                "they are learned, but not predicted by default after training"
                if self.learns_others
                else "they are not learned"
            )
            yield (
                f"[{self.where}] lacks the labels of {sum(strange.values())} {self.noun} of the training data; "
                f"{effect}: {counted(strange)}{self._renaming(strange, self.own)}"
            )
        absent = [label for label in self.own if label not in self.train and label not in self.unseen]
        if absent and self.closed and self.train:
            dev = {label: self.dev[label] for label in absent if label in self.dev}
            only = f"; the validation data has {counted(dev)} of these" if dev else ""
            yield (
                f"[{self.where}] has {len(absent)} of {len(own)} labels that do not occur in the training data; the "
                f"model learns never to predict them: {named(absent)}{only}"
            )
        missed = {label: number for label, number in self.dev.items() if label not in asked}
        if missed:
            effect = "count as false negatives" if self.asked is None else "are left out of the scores"
            yield (
                f"[train.val_data] has {sum(missed.values())} {self.noun} whose labels a validation does not predict; "
                f"they {effect}: {counted(missed)}{self._renaming(missed, asked)}"
            )
        new = {
            label: number
            for label, number in self.dev.items()
            if label in asked and label not in self.train and label not in self.unseen
        }
        if new and self.train and not self.closed:
            yield (
                f"[train.val_data] has {sum(new.values())} {self.noun} of labels that do not occur in the training "
                f"data: {counted(new)}{self._renaming(new, list(self.train))}"
            )

    def _otherwise(self, section: str, option: str) -> str:
        """Return how to change the labels where a config section does not set them."""
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
        return (
            f". For spelling variants of the same labels, set {option} = {shown} in the section of the reader"
        )


def named(labels: Iterable[str]) -> str:
    """Return the first labels and the number of the others, for a message."""
    every = list(labels)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return ", ".join(every[:SHOWN]) + more


def counted(labels: Mapping[str, int]) -> str:
    """Return the most frequent labels with their counts, for a message."""
    return named(f"{label} ({number})" for label, number in Counter(labels).most_common())


def alike(found: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return labels that are spelling variants of known ones: case, blanks, underscores, plural, ``B-``, ``PER``."""
    by_core = {_core(label): label for label in known}
    return {label: by_core[_core(label)] for label in found if _core(label) in by_core}


def label_doubts(labels: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for labels that are probably mistakes: variants of each other, numbers, tags, single occurrences.

    Parameters
    ----------
    labels
        Counts of the labels in the data.
    """
    variants: dict[str, list[str]] = {}
    for label in labels:
        variants.setdefault(_core(label), []).append(label)
    groups = [group for group in variants.values() if len(group) > 1]
    grouped = {label for group in groups for label in group}
    groups += _close(label for label in list(labels)[:MOST_COMPARED] if label not in grouped)
    for group in groups:
        yield f"labels that may be the same: {counted({label: labels[label] for label in group})}"
    yield from odd_labels(labels)
    if single := [label for label, number in labels.items() if number == 1]:
        yield f"labels that occur once: {named(single)}"


def odd_labels(labels: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for labels that look like numbers, and one for those that look like tags; arguments as above."""
    for what, pattern in (("numbers", r"[\d\W_]+"), ("tags", r"[BILUSEM][-_].+|O")):
        found = {label: number for label, number in labels.items() if re.fullmatch(pattern, label)}
        if found:
            yield f"labels that look like {what}: {counted(found)}"


def _close(labels: Iterable[str]) -> list[list[str]]:
    """Return pairs of long labels that differ in one or two letters, and not in a number only."""
    long = [label for label in labels if len(label) >= 6]
    return [
        [one, other]
        for one, other in combinations(long, 2)
        if abs(len(one) - len(other)) <= 2
        and re.sub(r"\d", "", one) != re.sub(r"\d", "", other)
        and SequenceMatcher(None, one.casefold(), other.casefold(), autojunk=False).ratio() >= SAME_RATIO
    ]


def _core(label: str) -> str:
    text = re.sub(r"^[BILUSE]-", "", label).casefold()
    text = re.sub(r"[\W_]+", "", text).replace("isation", "ization")
    text = _SHORT.get(text, text)
    return text[:-3] + "y" if text.endswith("ies") else text.removesuffix("s")


def warn_of_labels(sets: Iterable[LabelSets]) -> None:
    """Log the differences between the labels of a component and of its examples.

    Raises
    ------
    ConfigError
        There is no common label, and the component predicts its own labels only.
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
        for line in lines if not _silent.get() else ():
            logger.warning("warning: %s", line)


@contextmanager
def label_warnings_off() -> Iterator[None]:
    """Silence :func:`warn_of_labels` within the block, for callers that report the differences themselves."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)
