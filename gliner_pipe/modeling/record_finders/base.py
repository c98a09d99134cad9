"""Base class of record finders, which find records that the model reads as tasks."""

from __future__ import annotations

from gliner_pipe.modeling.task_finders import TaskFinder


class RecordFinder(TaskFinder):
    """Finds the records of ``record`` tasks: values for their fields."""

    family = "record_finders"
