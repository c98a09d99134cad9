"""The relation finder ``slots``: as many relations of a kind as the counter predicts, each with queries of its own."""

from __future__ import annotations

from gliner_pipe.modeling.relation_finders.base import RelationFinder
from gliner_pipe.registry import registry


@registry.relation_finders.register("slots")
class SlotRelations(RelationFinder):
    """Predicts the number of relations of a kind in a window, up to 19, and finds head and tail of each among spans.

    The ends of a relation need not be entities. The queries of heads and tails are scored with those of entity labels:
    the words are projected once for all. It has no weights; the model needs a counter.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """

    needs_counter = True
    slots_of = "relation"
