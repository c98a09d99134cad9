"""Base class of counters, which turn the vectors of labels and fields into queries for spans."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.layers.linear import Linear, mlp

#: Number of instances that can be told apart: a text holds 0 to 19 of a task.
MOST_INSTANCES = 20


class Counter(Block):
    """Makes one query for each field and instance, and predicts the number of instances.

    The queries of instance k of the head and of the tail of a relation find the two ends of its k-th instance in a
    text. Entity labels have a single instance. A GRU that starts at the vector of the field steps from one instance to
    the next.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """

    family = "counters"

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""
        self.pos_embedding = nn.Embedding(MOST_INSTANCES, hidden_size)
        self.of_instance = Linear(hidden_size, 3 * hidden_size)
        self.of_state = Linear(hidden_size, 3 * hidden_size)
        self.number = mlp(hidden_size, 2 * hidden_size, MOST_INSTANCES)

    def count(self, groups: Tensor) -> Tensor:
        """Return the logits of 0 to 19 instances.

        Parameters
        ----------
        groups
            Vectors of tasks, ``(..., hidden)``.

        Returns
        -------
        Tensor
            ``(..., 20)``.
        """
        logits: Tensor = self.number(groups)
        return logits

    def forward(self, fields: Tensor, slots: int, mask: Tensor | None = None) -> Tensor:
        """Return the queries of the first instances.

        Parameters
        ----------
        fields
            Vectors of labels or fields, ``(rows, fields, hidden)``.
        slots
            Number of instances, 1 to 20.
        mask
            False for padding, ``(rows, fields)``; None if there is none. The queries of padding are undefined.

        Returns
        -------
        Tensor
            ``(rows, slots, fields, hidden)``.
        """
        return self.project(self._states(fields, slots), fields, mask)

    @abstractmethod
    def project(self, states: Tensor, fields: Tensor, mask: Tensor | None) -> Tensor:
        """Map the states of the instances, ``(rows, slots, fields, hidden)``, to queries of the same shape."""

    def _states(self, fields: Tensor, slots: int) -> Tensor:
        """Return the state of the GRU after each instance; its input is the same for all fields."""
        inputs = self.of_instance(self.pos_embedding.weight[:slots])
        state, states = fields, []
        for step in inputs:
            reset, update, new = step.chunk(3)
            from_reset, from_update, from_state = self.of_state(state).chunk(3, -1)
            gate = (update + from_update).sigmoid()
            fresh = (new + (reset + from_reset).sigmoid() * from_state).tanh()
            state = fresh + gate * (state - fresh)
            states.append(state)
        return torch.stack(states, 1)
