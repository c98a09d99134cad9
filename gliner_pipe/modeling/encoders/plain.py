"""Words alone: the encoder of models that read no labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query, QueryPrompt
from gliner_pipe.registry import registry

_NONE = np.zeros(0, np.int64)


@registry.encoders.register("plain")
class PlainEncoder(Encoder):
    """Hands on what the backbone makes of the words; nothing stands before them, so windows hold text only.

    Use it for closed label sets (``gliner_pipe.TokenClassifier.v1``). Models that are asked for labels at run time take
    ``uni_encoder`` or ``bi_encoder``.

    Parameters
    ----------
    backbone
        Where the vectors come from; ``text_cnn`` and ``lstm`` may stand on a ``transformer``.
    """

    reads_relations = False

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def build(self) -> None:
        """Load the backbone."""
        self.backbone.build()

    def load_assets(self, path: Path) -> None:
        """Make the backbone from a saved folder."""
        self.backbone.load_assets(path / "backbone")

    def prompt(self, query: Query) -> QueryPrompt:
        """Return the empty prompt.

        Raises
        ------
        ConfigError
            If labels are to be read.
        """
        asked: Sequence[str] = query.entities or query.relations
        if asked:
            raise ConfigError(
                "components.*.model.encoder",
                f"found 'plain' in a model that is to read the label {asked[0]!r}",
                "uni_encoder, bi_encoder",
                'For a closed label set take @factory = "token_classifier"',
            )
        return QueryPrompt(_NONE, _NONE, query)

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows; there are no vectors of labels."""
        words, prompt = self.backbone.vectors(batch.windows)
        return Encoded(words, prompt[:, :0], prompt[:, :0])
