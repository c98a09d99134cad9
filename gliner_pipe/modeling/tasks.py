"""Tasks that a model reads beside entity labels: records, relations and classes of a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

#: Kinds of tasks, in the order in which a prompt holds them.
KINDS = ("record", "relation", "classes")

#: How a model forms records: around a field that is found once for each, around any field, or from the whole text.
RecordMode = Literal["natural", "latent", "anchorless"]


class TaskField(NamedTuple):
    """A part of a task: a field of a record, the head or tail of a relation, or a label of a classification.

    Attributes
    ----------
    name
        What the model reads.
    description
        Text that explains the name; None for none.
    choices
        The only values of a field of a record, which need not stand in the text; empty for a span of the text.
    is_list
        Whether a field of a record may have several values.
    exclusive
        Whether a span belongs to this field in one record only (boundary models).
    """

    name: str
    description: str | None = None
    choices: tuple[str, ...] = ()
    is_list: bool = False
    exclusive: bool = False


class Task(NamedTuple):
    """A record, a relation or a classification, as the model reads it; thresholds and patterns are settings.

    Attributes
    ----------
    kind
        What is predicted.
    name
        Name of the task.
    fields
        Its parts; ``head`` and ``tail`` of a relation.
    description
        Text that explains the name; None for none.
    examples
        Texts with their labels, for a classification.
    mode
        How records are formed; None for a model that counts them, or for one record in a text.
    anchor
        Name of the field that each record has once, in mode ``natural``.
    """

    kind: Literal["record", "relation", "classes"]
    name: str
    fields: tuple[TaskField, ...]
    description: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    mode: RecordMode | None = None
    anchor: str | None = None


#: The two ends of a relation.
HEAD_AND_TAIL = (TaskField("head"), TaskField("tail"))


def choice_words(tasks: Iterable[Task]) -> list[str]:
    """Return the words before the text: ``( record: field ( a | b ) , field ( c | d ) )`` for each with choices."""
    words: list[str] = []
    for task in tasks:
        fields = [field for field in task.fields if task.kind == "record" and field.choices]
        for number, field in enumerate(fields):
            words += [","] if number else ["(", f"{task.name}:"]
            words += [
                field.name,
                "(",
                *[word for choice in field.choices for word in (choice, "|")][:-1],
                ")",
            ]
        words += [")"] if fields else []
    return words


def choice_places(tasks: Sequence[Task]) -> dict[tuple[int, int], list[int]]:
    """Return where the choices stand among the words of the prompt, by number of the task and of the field.

    A word that stands there several times, in any case, is read in the first place, as in GLiNER2: fields with a common
    choice read the same word, each by a query of its own.
    """
    first: dict[str, int] = {}
    for place, word in enumerate(choice_words(tasks)):
        first.setdefault(word.lower(), place)
    return {
        (number, index): [first[choice.lower()] for choice in field.choices]
        for number, task in enumerate(tasks)
        for index, field in enumerate(task.fields)
        if task.kind == "record" and field.choices
    }
