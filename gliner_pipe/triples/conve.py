"""ConvE: a convolution over head and relation, against the tail."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.registry import registry
from gliner_pipe.triples.base import Triple, by_relation


@registry.triples.register("conve")
class ConvE(Triple):
    """``relu(W relu(filters([h; r])) + b) . t``, where head and relation are images, one above the other.

    Of use for comparison: it holds ``filters x 2 hidden`` numbers, and a layer over them, for each pair and relation.

    Parameters
    ----------
    height
        Rows of the image of one vector, which must divide the width of the vectors; None for the number next to a
        square. GLiNER gives no way to say it, so that no checkpoint of its has this block.
    n_filters
        Filters.
    kernel_size
        Height and width of the filters.
    input_dropout
        Of the images; a dimension of a head is dropped for all relations at once.
    filter_dropout
        Of whole filters.
    dropout
        Of the vector that meets the tail.

    Notes
    -----
    Source: Dettmers et al., "Convolutional 2D Knowledge Graph Embeddings", 2018, without its batch normalisation;
    GLiNER's ``ConvE``.
    """

    def __init__(
        self,
        height: int | None = None,
        n_filters: int = 32,
        kernel_size: int = 3,
        input_dropout: float = 0.2,
        filter_dropout: float = 0.2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        self.height = height
        self.n_filters = n_filters
        self.kernel_size = kernel_size
        self.input_dropout = input_dropout
        self.filter_dropout = filter_dropout
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Make filters and projection."""
        divisors = [n for n in range(1, math.isqrt(hidden_size) + 1) if hidden_size % n == 0]
        height = self.height or divisors[-1]
        width = hidden_size // height
        rows, columns = 2 * height - self.kernel_size + 1, width - self.kernel_size + 1
        if hidden_size % height or rows < 1 or columns < 1:
            raise ConfigError(
                "components.*.model.triples.height",
                f"found {height} with vectors of width {hidden_size} and filters of {self.kernel_size}",
                f"a divisor of {hidden_size} that leaves room for the filters",
            )
        self.shape = (height, width)
        self.conv1 = nn.Conv2d(1, self.n_filters, self.kernel_size)
        self.fc = nn.Linear(self.n_filters * rows * columns, hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        # A filter is linear: the images of head and relation go through it apart, with nothing in the other half.
        height = self.shape[0]
        above, below = self._filtered(head, (0, 0, 0, height)), self._filtered(relations, (0, 0, height, 0))
        bias = self.conv1.bias
        assert bias is not None
        above = above + bias[:, None]
        width = 3 * above.shape[2] * above.shape[3]
        return by_relation(self._score, [above, tail], [below], width)

    def _filtered(self, vectors: Tensor, empty: tuple[int, int, int, int]) -> Tensor:
        """What filters make of one half of the image, ``(groups, vectors, filters, places)``."""
        vectors = F.dropout(vectors, self.input_dropout, self.training)
        images = F.pad(vectors.reshape(-1, 1, *self.shape), empty)
        filtered = F.conv2d(images, self.conv1.weight).flatten(2)
        return filtered.reshape(*vectors.shape[:2], *filtered.shape[1:])

    def _score(self, above: Tensor, tail: Tensor, below: Tensor) -> Tensor:
        filtered = (above + below).relu()
        kept = F.dropout(filtered.new_ones(filtered.shape[:-1]), self.filter_dropout, self.training)
        hidden = self.fc((filtered * kept[..., None]).flatten(3))
        return (F.dropout(hidden, self.dropout, self.training).relu() * tail).sum(-1)
