"""Parses the setting ``class_rules``: which labels of classifications may be chosen together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.pipeline.gliner.task_settings import ClassesItem

BoolArray = npt.NDArray[np.bool_]


class OneLabel(NamedTuple):
    """True if a label of a task is chosen."""

    task: str
    label: str


class AtLeast(NamedTuple):
    """True if at least `least` of the parts are true; if `negated`, when fewer are. All operators are made of it."""

    least: int
    parts: tuple[Expression, ...]
    negated: bool = False


Expression = OneLabel | AtLeast


class UnknownName(ConfigError):
    """A rule names a task or a label that is not asked for."""


def labels_in(rule: Expression) -> Iterator[OneLabel]:
    """Yield the labels that a rule depends on."""
    if isinstance(rule, OneLabel):
        yield rule
    else:
        for part in rule.parts:
            yield from labels_in(part)


def holds(rule: Expression, chosen: Mapping[OneLabel, BoolArray]) -> BoolArray:
    """Return where a rule holds; `chosen` says where each label is chosen."""
    if isinstance(rule, OneLabel):
        return chosen[rule]
    true = sum(holds(part, chosen).astype(np.int64) for part in rule.parts)
    result: BoolArray = np.asarray(true) >= rule.least
    return ~result if rule.negated else result


def parse_rules(
    rules: Sequence[Any], items: Sequence[ClassesItem], where: str, *, all_names: bool
) -> list[Expression]:
    """Parse rules between the labels of classifications.

    Parameters
    ----------
    rules
        Each a mapping with one operator, such as ``{"implies": ["intent=delete", "effects=delete"]}``. See the page on
        classes for the operators.
    items
        The classifications.
    where
        Section, for errors.
    all_names
        Whether all tasks and labels that a rule names must be there; otherwise a rule that names others is left out.

    Raises
    ------
    ConfigError
        If a rule has another form, or names a label that does not exist.
    """
    by_name = {item.name: item for item in items}
    parsed = []
    for index, rule in enumerate(rules):
        try:
            parsed.append(
                _Reader(by_name).expression(rule, f"{where}[{index}]", "a mapping with one operator")
            )
        except UnknownName:
            if all_names:
                raise
    return parsed


#: Most rules inside each other.
MOST_DEPTH = 50
#: Operators by what they take.
_OF_EXPRESSIONS = ("all_of", "any_of", "exactly_one_of", "implies", "iff", "excludes")
_OF_TASK_AND_NUMBER = ("at_least", "at_most", "exactly")
_OF_LEVEL = ("min_level", "max_level")
OPERATORS = (*_OF_EXPRESSIONS, "not", *_OF_TASK_AND_NUMBER, *_OF_LEVEL, "any_selected")


class _Reader:
    """Reads a rule."""

    def __init__(self, items: Mapping[str, ClassesItem]) -> None:
        self.items, self.depth = items, 0

    def expression(self, rule: Any, where: str, allowed: str = "") -> Expression:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise ConfigError(where, "is a rule inside too many others", f"at most {MOST_DEPTH} levels")
        read = self._expression(rule, where, allowed)
        self.depth -= 1
        return read

    def _expression(self, rule: Any, where: str, allowed: str) -> Expression:
        if isinstance(rule, str) and not allowed:
            return self._label(rule, where)
        if not isinstance(rule, Mapping) or len(rule) != 1:
            raise ConfigError(
                where, f"found {rule!r}", allowed or '"task=label", or a mapping with one operator'
            )
        ((operator, value),) = rule.items()
        if operator not in OPERATORS:
            do = did_you_mean(str(operator), OPERATORS)
            raise ConfigError(where, f"found the operator {operator!r}", ", ".join(OPERATORS), do)
        where = f"{where}.{operator}"
        if operator == "not":
            return AtLeast(1, (self.expression(value, where),), negated=True)
        if operator in _OF_EXPRESSIONS:
            return self._of_expressions(operator, value, where)
        if operator in _OF_TASK_AND_NUMBER:
            return self._of_number(operator, value, where)
        if operator in _OF_LEVEL:
            return self._of_level(operator, value, where)
        return AtLeast(1, _labels(self._task(value, where)))

    def _of_expressions(self, operator: str, value: Any, where: str) -> Expression:
        two = operator in ("implies", "iff", "excludes")
        if not isinstance(value, (list, tuple)) or not value or (two and len(value) != 2):
            raise ConfigError(where, f"found {value!r}", "a list of two" if two else "a list of at least one")
        parts = tuple(self.expression(one, f"{where}[{index}]") for index, one in enumerate(value))
        if operator == "any_of":
            return AtLeast(1, parts)
        if operator == "all_of":
            return AtLeast(len(parts), parts)
        if operator == "exactly_one_of":
            return _between(1, 1, parts)
        if operator == "excludes":
            return AtLeast(2, parts, negated=True)
        left, right = parts
        forward = AtLeast(1, (AtLeast(1, (left,), negated=True), right))
        if operator == "implies":
            return forward
        return _all(forward, AtLeast(1, (left, AtLeast(1, (right,), negated=True))))

    def _of_number(self, operator: str, value: Any, where: str) -> Expression:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise ConfigError(where, f"found {value!r}", "a list of a task and a number")
        labels, number = _labels(self._task(value[0], where)), value[1]
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= len(labels):
            raise ConfigError(where, f"found {number!r}", f"a number from 0 to {len(labels)}")
        least = 0 if operator == "at_most" else number
        return _between(least, len(labels) if operator == "at_least" else number, labels)

    def _of_level(self, operator: str, value: Any, where: str) -> Expression:
        level = self._label(value, where)
        item = self.items[level.task]
        if not item.ordinal:
            raise ConfigError(where, f"names the task {level.task!r}", "a task with ordinal = true")
        labels, at = _labels(item), item.names.index(level.label)
        return AtLeast(1, labels[at:] if operator == "min_level" else labels[: at + 1])

    def _task(self, name: Any, where: str) -> ClassesItem:
        if not isinstance(name, str):
            raise ConfigError(where, f"found {name!r}", f"a task: {', '.join(self.items)}")
        if name not in self.items:
            do = did_you_mean(str(name), list(self.items))
            raise UnknownName(where, f"names the task {name!r}", f"a task: {', '.join(self.items)}", do)
        return self.items[name]

    def _label(self, name: Any, where: str) -> OneLabel:
        """Return the label of a name such as ``task=label``; both may hold an equals sign."""
        if not isinstance(name, str) or "=" not in name:
            raise ConfigError(where, f"found {name!r}", '"task=label"')
        asked = [task for task in self.items if name.startswith(f"{task}=")]
        for task in asked:
            if (label := name[len(task) + 1 :]) in self.items[task].names:
                return OneLabel(task, label)
        item = self._task(asked[0] if asked else name.partition("=")[0], where)
        label = name[len(item.name) + 1 :]
        do = did_you_mean(label, item.names)
        raise UnknownName(
            where, f"names the label {label!r}", f"a label of {item.name!r}: {', '.join(item.names)}", do
        )


def _labels(item: ClassesItem) -> tuple[OneLabel, ...]:
    return tuple(OneLabel(item.name, label) for label in item.names)


def _all(*parts: Expression) -> Expression:
    return AtLeast(len(parts), parts)


def _between(least: int, most: int, parts: tuple[Expression, ...]) -> Expression:
    return _all(AtLeast(least, parts), AtLeast(most + 1, parts, negated=True))
