"""Tasks that a model reads beside entity labels: records, relations and classes of a text."""

from __future__ import annotations

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
