"""The classifier ``label_mlp``: a two-layer network over the vector of each label."""

from __future__ import annotations

from torch import Tensor

from gliner_pipe.modeling.classifiers.base import Classifier
from gliner_pipe.modeling.layers.linear import mlp
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Positive


@registry.classifiers.register("label_mlp")
class LabelMlp(Classifier):
    """Scores each label by a two-layer network over its vector, without a look at the other labels.

    Labels see each other, and the text, in the encoder: use it with an encoder that reads tasks.

    Parameters
    ----------
    temperature
        Divides the logits.

    Notes
    -----
    Source: GLiNER2 (Zaratiana et al., 2025), arXiv:2507.18546.
    """

    def __init__(self, temperature: Positive = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def build(self, hidden_size: int) -> None:
        """Create the weights for vectors of this width."""
        self.network = mlp(hidden_size, 2 * hidden_size, 1)

    def forward(self, labels: Tensor) -> Tensor:
        """Return the logit of each label, ``(...)`` for ``(..., hidden)``."""
        logits: Tensor = self.network(labels)
        return logits.squeeze(-1) / self.temperature
