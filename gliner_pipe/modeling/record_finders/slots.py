"""The record finder ``slots``: as many records of a kind as the counter predicts, each with queries of its own."""

from __future__ import annotations

from gliner_pipe.modeling.record_finders.base import RecordFinder
from gliner_pipe.registry import registry


@registry.record_finders.register("slots")
class SlotRecords(RecordFinder):
    """Predicts the number of records of a kind in a window, up to 19, and finds the values of each among spans.

    The queries of fields are scored with those of entity labels: the words are projected once for all. It has no
    weights; the model needs a counter.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """

    needs_counter = True
    slots_of = "record"
