"""The encoder ``plain``: words only, for models with a closed label set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query, QueryPrompt
from gliner_pipe.registry import registry

_NONE = np.zeros(0, np.int64)


@registry.encoders.register("plain")
class PlainEncoder(Encoder):
    """Returns the word vectors of the backbone; windows contain text only, without a label prompt.

    Use it for closed label sets (``gliner_pipe.TokenClassifier.v1``). For labels that are chosen at run time use
    ``uni_encoder`` or ``bi_encoder``.

    Parameters
    ----------
    backbone
        Encodes the words: a ``transformer``, or ``text_cnn`` and ``lstm`` on top of one.
    """

    reads_relations = False

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def build(self) -> None:
        """Load the backbone."""
        self.backbone.build()

    def load_assets(self, path: Path) -> None:
        """Build the backbone from a saved folder."""
        self.backbone.load_assets(path / "backbone")

    def prompt(self, query: Query) -> QueryPrompt:
        """Return the empty prompt.

        Raises
        ------
        ConfigError
            If the query has labels.
        """
        if labels := query.entities or query.relations:
            raise ConfigError(
                "components.*.model.encoder",
                f"found 'plain' in a model that encodes labels, such as {labels[0]!r}",
                "uni_encoder, bi_encoder",
                'For a closed label set use @factory = "token_classifier"',
            )
        return QueryPrompt(_NONE, _NONE, query)

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows; there are no label vectors."""
        words, prompt = self.backbone.vectors(batch.windows)
        return Encoded(words, prompt[:, :0], prompt[:, :0])
