"""Base class of record finders, which find records that the model reads as tasks."""

from __future__ import annotations

from gliner_pipe.modeling.block import Block


class RecordFinder(Block):
    """Finds the records of ``record`` tasks: values for their fields."""

    family = "record_finders"

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width; none by default."""
