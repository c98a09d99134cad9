"""Triple scorers based on a small network."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.layers.linear import projection
from gliner_pipe.modeling.triples.base import Triple, by_relation
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Share, Size


@registry.triples.register("concat")
class Concat(Triple):
    """``(W2 relu(W1 [h; t] + b1) + b2) . r``: GLiNER's default without ``triples_layer``.

    Use it unless you have a reason not to: it distinguishes head and tail, and scores all pairs and relations in one
    matrix product.

    Parameters
    ----------
    dropout
        Dropout rate of the hidden layer.

    Notes
    -----
    Source: GLiNER's ``pair_rep_layer``.
    """

    def __init__(self, dropout: Share = 0.4) -> None:
        super().__init__()
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create the projection."""
        self.pair_rep = projection(2 * hidden_size, hidden_size, self.dropout)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        pairs: Tensor = self.pair_rep(torch.cat([head, tail], -1))
        return pairs @ relations.transpose(1, 2)


@registry.triples.register("conve")
class ConvE(Triple):
    """``relu(W relu(filters([h; r])) + b) . t``, where head and relation are images, one above the other.

    For comparison: it holds ``filters x 2 hidden`` elements, and a layer over them, for each pair and relation.

    Parameters
    ----------
    height
        Rows of the image of one vector, a divisor of the width of the vectors; as square as possible by default. GLiNER
        has no option for it, so none of its checkpoints has this block.
    n_filters
        Number of filters.
    kernel_size
        Height and width of the filters.
    input_dropout
        Dropout rate of the images; a dimension of a head is dropped for all relations at once.
    filter_dropout
        Dropout rate of whole filters.
    dropout
        Dropout rate of the vector that is multiplied with the tail.

    Notes
    -----
    Source: Dettmers et al., "Convolutional 2D Knowledge Graph Embeddings", 2018, without its batch normalisation;
    GLiNER's ``ConvE``.
    """

    def __init__(
        self,
        height: Size | None = None,
        n_filters: Size = 32,
        kernel_size: Size = 3,
        input_dropout: Share = 0.2,
        filter_dropout: Share = 0.2,
        dropout: Share = 0.3,
    ) -> None:
        super().__init__()
        self.height = height
        self.n_filters = n_filters
        self.kernel_size = kernel_size
        self.input_dropout = input_dropout
        self.filter_dropout = filter_dropout
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create filters and projection."""
        divisors = [n for n in range(1, math.isqrt(hidden_size) + 1) if hidden_size % n == 0]
        height = self.height or divisors[-1]
        width = hidden_size // height
        rows, columns = 2 * height - self.kernel_size + 1, width - self.kernel_size + 1
        if hidden_size % height or rows < 1 or columns < 1:
            raise ConfigError(
                "components.*.model.triple.height",
                f"found {height} with vectors of width {hidden_size} and filters of {self.kernel_size}",
                f"a divisor of {hidden_size} that leaves room for the filters",
            )
        self.shape = (height, width)
        self.conv1 = nn.Conv2d(1, self.n_filters, self.kernel_size)
        self.fc = nn.Linear(self.n_filters * rows * columns, hidden_size)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        # filters are linear, so they are applied to head and relation separately, with zeros in the other half
        height = self.shape[0]
        above, below = self._filtered(head, (0, 0, 0, height)), self._filtered(relations, (0, 0, height, 0))
        bias = self.conv1.bias
        assert bias is not None
        above = above + bias[:, None]
        width = 3 * above.shape[2] * above.shape[3]
        return by_relation(self._score, [above, tail], [below], width)

    def _filtered(self, vectors: Tensor, empty: tuple[int, int, int, int]) -> Tensor:
        """Apply the filters to one half of the image: ``(groups, vectors, filters, positions)``."""
        vectors = F.dropout(vectors, self.input_dropout, self.training)
        images = F.pad(vectors.reshape(-1, 1, *self.shape), empty)
        filtered = F.conv2d(images, self.conv1.weight).flatten(2)
        return filtered.reshape(*vectors.shape[:2], *filtered.shape[1:])

    def _score(self, above: Tensor, tail: Tensor, below: Tensor) -> Tensor:
        filtered = (above + below).relu()
        kept = F.dropout(filtered.new_ones(filtered.shape[:-1]), self.filter_dropout, self.training)
        hidden = self.fc((filtered * kept[..., None]).flatten(3))
        return (F.dropout(hidden, self.dropout, self.training).relu() * tail).sum(-1)


@registry.triples.register("convkb")
class ConvKB(Triple):
    """``W relu(a_f h + b_f r + c_f t + d_f) + w0``, over all filters ``f`` and all dimensions.

    For comparison: it holds ``filters x hidden`` elements for each pair and relation.

    Parameters
    ----------
    n_filters
        Number of filters, each with one weight for head, relation and tail.
    dropout
        Dropout rate of the filters' output.

    Notes
    -----
    Source: Nguyen et al., "A Novel Embedding Model for Knowledge Base Completion Based on Convolutional Neural
    Network", 2018; GLiNER's ``ConvKB``.
    """

    def __init__(self, n_filters: Size = 32, dropout: Share = 0.3) -> None:
        super().__init__()
        self.n_filters = n_filters
        self.dropout = dropout

    def build(self, hidden_size: int) -> None:
        """Create filters and output layer."""
        self.conv = nn.Conv1d(3, self.n_filters, 1)
        self.fc = nn.Linear(self.n_filters * hidden_size, 1)

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        of_head, of_relation, of_tail = self.conv.weight[..., None, :, 0].unbind(-1)  # (filters, 1) each
        bias = self.conv.bias
        assert bias is not None
        pairs = head[:, :, None] * of_head + tail[:, :, None] * of_tail + bias[:, None]
        return by_relation(
            self._score, [pairs], [relations[:, :, None] * of_relation], 3 * pairs.shape[2] * head.shape[2]
        )

    def _score(self, pairs: Tensor, relations: Tensor) -> Tensor:
        filtered = F.dropout((pairs + relations).relu(), self.dropout, self.training)
        score: Tensor = self.fc(filtered.flatten(3))
        return score.squeeze(-1)


@registry.triples.register("ermlp")
class ERMLP(Triple):
    """``W2 relu(W1 [h; r; t] + b1) + b2``.

    Use it if sums of products are not expressive enough: it distinguishes head and tail and learns any function, at the
    price of a hidden layer for each pair and relation. The first layer is computed once per pair and once per relation.

    Parameters
    ----------
    size
        Width of the hidden layer.

    Notes
    -----
    Source: Dong et al., "Knowledge Vault", 2014; GLiNER's ``ERMLP``.
    """

    def __init__(self, size: Size = 2048) -> None:
        super().__init__()
        self.size = size

    def build(self, hidden_size: int) -> None:
        """Create the two layers."""
        self.mlp = nn.Sequential(nn.Linear(3 * hidden_size, self.size), nn.ReLU(), nn.Linear(self.size, 1))

    def forward(self, head: Tensor, relations: Tensor, tail: Tensor) -> Tensor:
        """Score all pairs for all relations."""
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        of_head, of_relation, of_tail = first.weight.chunk(3, 1)
        pairs = F.linear(head, of_head, first.bias) + F.linear(tail, of_tail)
        return by_relation(self._score, [pairs], [F.linear(relations, of_relation)], 2 * self.size)

    def _score(self, pairs: Tensor, relations: Tensor) -> Tensor:
        score: Tensor = self.mlp[2]((pairs + relations).relu())
        return score.squeeze(-1)
