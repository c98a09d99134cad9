"""Cache of projected label vectors, shared by all batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.layers.vector_table import VectorTable

#: Maximum number of labels projected at once.
LABELS_AT_ONCE = 8192


class ProjectedLabels:
    """Caches the projection of each label while its vector and the weights stay the same; see ``VectorTable``."""

    def __init__(self) -> None:
        self._vectors: VectorTable[str] = VectorTable()

    def forget(self) -> None:
        """Empty the cache."""
        self._vectors.forget()

    def of(self, layer: nn.Module, names: Sequence[str], labels: Tensor, mark: Tensor) -> Tensor:
        """Return ``layer(labels)``, computed for new labels only.

        Parameters
        ----------
        layer
            The projection.
        names
            What the model reads for each label.
        labels
            Their vectors, ``(labels, hidden)``.
        mark
            See ``Encoder.label_mark``.
        """
        if not len(names):
            return labels

        def project(new: Sequence[str]) -> Tensor:
            if len(new) == len(names):
                rows = labels
            else:
                places = [-1]
                for name in new:  # in the order of the names
                    places.append(names.index(name, places[-1] + 1))
                rows = labels[places[1:]]
            return torch.cat([layer(part) for part in rows.split(LABELS_AT_ONCE)])

        return self._vectors.get(names, project, (*layer.parameters(), mark))
