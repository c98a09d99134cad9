"""Labels in the prompt, before the words: one pass reads both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gliner_pipe.backbones.base import Backbone
from gliner_pipe.backbones.windows import Prompt, Window
from gliner_pipe.encoders.base import Encoded, Encoder, EncoderBatch
from gliner_pipe.encoders.lstm import BiLSTM
from gliner_pipe.registry import registry

#: Label sets whose prompts are kept.
MAX_PROMPTS = 256


@registry.encoders.register("uni_encoder")
class UniEncoder(Encoder):
    """Reads ``<<ENT>> label <<ENT>> label ... <<SEP>> words``, the encoder of most GLiNER models.

    Use it for up to some 30 labels: words and labels see each other in every layer, and every label costs room in
    the window. For label sets of hundreds take ``bi_encoder``.

    Parameters
    ----------
    backbone
        Where the vectors come from.
    rnn_layers
        Layers of a bidirectional LSTM over the words; 0 for none.
    embed_ent_token
        True: a label's vector is that of its ``<<ENT>>``; False: that of the first piece of the label itself.
    ent_token, sep_token
        The special tokens of the prompt.
    new_tokens
        Special tokens that are added to the vocabulary; ``(ent_token, sep_token)`` when not given.

    Notes
    -----
    Source: GLiNER (Zaratiana et al., 2024), ``UniEncoderSpanModel``.
    """

    def __init__(
        self,
        backbone: Backbone,
        rnn_layers: int = 1,
        embed_ent_token: bool = True,
        ent_token: str = "<<ENT>>",
        sep_token: str = "<<SEP>>",
        new_tokens: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.rnn_layers = rnn_layers
        self.embed_ent_token = embed_ent_token
        self.ent_token, self.sep_token = ent_token, sep_token
        self.new_tokens = [ent_token, sep_token] if new_tokens is None else new_tokens
        self.rnn: BiLSTM | None = None
        self._prompts: dict[tuple[str, ...], Prompt] = {}

    def build(self) -> None:
        """Load the backbone with the special tokens, and make the LSTM."""
        self.backbone.build(self.new_tokens)
        self._make()

    def load_assets(self, path: Path) -> None:
        """Make the modules from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self._make()

    def _make(self) -> None:
        self._prompts.clear()
        self.rnn = BiLSTM(self.output_size, self.rnn_layers) if self.rnn_layers else None

    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        labels: Sequence[Sequence[str]],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut texts into windows, each with the prompt of its labels."""
        prompts = [self._prompt(tuple(names)) for names in labels]
        return self.backbone.windows(self.backbone.tokenize(texts), prompts, min_overlap, report)

    def _prompt(self, labels: tuple[str, ...]) -> Prompt:
        if labels not in self._prompts:
            if len(self._prompts) >= MAX_PROMPTS:
                del self._prompts[next(iter(self._prompts))]
            self._prompts[labels] = self._make_prompt(labels)
        return self._prompts[labels]

    def _make_prompt(self, labels: tuple[str, ...]) -> Prompt:
        words = [word for label in labels for word in (self.ent_token, label)] + [self.sep_token]
        (pieces,) = self.backbone.tokenize([words])
        firsts = np.cumsum(pieces.counts) - pieces.counts
        return Prompt(pieces.ids, firsts[0 : 2 * len(labels) : 2] + (0 if self.embed_ent_token else 1))

    def collate(self, windows: Sequence[Window]) -> EncoderBatch:
        """Pad windows into one batch, on the CPU."""
        return EncoderBatch(self.backbone.collate(windows))

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows."""
        words, labels = self.backbone(batch.windows)
        if self.rnn is not None:
            words = self.rnn(words, batch.windows.word_mask)
        return Encoded(words, labels)
