"""Base class of relation finders, which find relations that the model reads as tasks."""

from __future__ import annotations

from gliner_pipe.modeling.block import Block


class RelationFinder(Block):
    """Finds the relations of ``relation`` tasks, with spans of the text as their ends."""

    family = "relation_finders"

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width; none by default."""
