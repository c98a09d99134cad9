"""Labels as users write them: a string, or a mapping with description and threshold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gliner_pipe.errors import ConfigError


@dataclass(frozen=True, slots=True)
class LabelItem:
    """One label.

    Attributes
    ----------
    label
        Name that entities carry.
    description
        What the model reads in place of the name.
    threshold
        Score that this label needs; None for the component's.
    """

    label: str
    description: str | None = None
    threshold: float | None = None

    @property
    def text(self) -> str:
        """What the model reads."""
        return self.description or self.label

    def to_config(self) -> str | dict[str, Any]:
        """Return the label as it stands in a config: a string where that says everything."""
        item: dict[str, Any] = {"label": self.label}
        if self.description is not None:
            item["description"] = self.description
        if self.threshold is not None:
            item["threshold"] = self.threshold
        return self.label if len(item) == 1 else item


def parse_labels(labels: Iterable[Any], where: str) -> tuple[LabelItem, ...]:
    """Read a list of labels; of several with one name the first counts.

    Parameters
    ----------
    labels
        Strings, or mappings with ``label`` and perhaps ``description`` and ``threshold``.
    where
        Section, for errors.

    Raises
    ------
    ConfigError
        For anything else.
    """
    if isinstance(labels, str) or not isinstance(labels, Iterable):
        raise ConfigError(where, f"found {labels!r}", "a list of labels", f"Write [{labels!r}]")
    if isinstance(labels, Mapping):
        name, text = next(iter(labels.items()), ("person", "..."))
        do = f"Write {json.dumps([{'label': str(name), 'description': str(text)}], ensure_ascii=False)}"
        raise ConfigError(where, f"found {labels!r}", "a list of labels", do)
    items: dict[str, LabelItem] = {}
    for index, label in enumerate(labels):
        item = label if isinstance(label, LabelItem) else _parse(label, f"{where}[{index}]")
        items.setdefault(item.label, item)
    return tuple(items.values())


def refuse_references(labels: Any, where: str) -> None:
    """Refuse labels with ``${`` in a config, which spaCy would read back as references.

    Raises
    ------
    ConfigError
        With the label.
    """
    if "${" in str(labels):
        raise ConfigError(
            where,
            f"found '${{' in {labels!r}",
            "labels without it, as spaCy's config files read it as a reference",
            "Set such labels at run time: nlp.get_pipe(...).labels = [...]",
        )


def _parse(label: Any, where: str) -> LabelItem:
    fields = {"label": label} if isinstance(label, str) else label
    if not isinstance(fields, Mapping):
        raise ConfigError(where, f"found {label!r}", 'a string, or {"label", "description", "threshold"}')
    unknown = set(fields) - {"label", "description", "threshold"}
    if unknown:
        raise ConfigError(where, f"found the key {sorted(unknown)[0]!r}", "label, description, threshold")
    name, description, threshold = (fields.get(key) for key in ("label", "description", "threshold"))
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(where, f"found the label {name!r}", "a string that is not blank")
    if description is not None and (not isinstance(description, str) or not description.strip()):
        raise ConfigError(where, f"found the description {description!r}", "a string that is not blank")
    return LabelItem(name, description, None if threshold is None else check_threshold(threshold, where))


def check_threshold(value: Any, where: str) -> float:
    """Return `value` as a score in [0, 1], or refuse it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(where, f"found the threshold {value!r}", "a number from 0 to 1")
    return float(value)
