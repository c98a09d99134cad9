"""Base class of relation finders, which find relations that the model reads as tasks."""

from __future__ import annotations

from gliner_pipe.modeling.task_finders import TaskFinder


class RelationFinder(TaskFinder):
    """Finds the relations of ``relation`` tasks, with spans of the text as their ends."""

    family = "relation_finders"
