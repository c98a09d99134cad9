"""GLiNER, wired from blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gliner_pipe.backbones.base import WindowBatch
from gliner_pipe.blocks import Block
from gliner_pipe.decoders.base import Decoder
from gliner_pipe.decoders.span import SpanDecoder
from gliner_pipe.encoders.base import Encoder, EncoderBatch
from gliner_pipe.errors import CheckpointError
from gliner_pipe.fusions.base import Fusion
from gliner_pipe.losses.base import Loss
from gliner_pipe.losses.focal import FocalLoss
from gliner_pipe.model.batch import LossTerms, TrainingBatch
from gliner_pipe.model.layers import projection
from gliner_pipe.registry import registry
from gliner_pipe.span_reps.base import SpanRep

WEIGHTS = "model.safetensors"


@registry.architectures.register("gliner_pipe.GLiNER.v1")
class GLiNER(Block):
    """An encoder, a span representation, a decoder and a loss, with or without a fusion.

    Pure torch: it knows no spaCy object and can be trained, exported and timed without one.

    Parameters
    ----------
    encoder
        Lets words and labels meet.
    span_rep
        Scores spans of words against labels.
    loss
        The training signal.
    decoder
        Chooses among spans above the threshold.
    fusion
        What words and labels tell each other after the encoder; nothing when not given.
    dropout
        Dropout of the label projection.

    Notes
    -----
    Source: GLiNER (Zaratiana et al., 2024), arXiv:2311.08526.
    """

    family = "architectures"

    def __init__(
        self,
        encoder: Encoder,
        span_rep: SpanRep,
        loss: Loss | None = None,
        decoder: Decoder | None = None,
        fusion: Fusion | None = None,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.fusion = fusion
        self.span_rep = span_rep
        self.loss = loss if loss is not None else FocalLoss()
        self.decoder = decoder if decoder is not None else SpanDecoder()
        self.dropout = dropout
        self.prompt_rep: nn.Module | None = None
        #: Configuration of the blocks, where it is not in the pipeline's config (a checkpoint given by name).
        self.blocks: dict[str, Any] | None = None
        #: Name of the word splitter that the weights were trained with, where it is not the tokens of spaCy.
        self.word_splitter: str | None = None

    # -- making it -------------------------------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether there are weights."""
        return self.prompt_rep is not None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def max_width(self) -> int | None:
        """Words in the widest span that can be found; None where there is no limit."""
        return self.span_rep.max_width

    @property
    def min_overlap(self) -> int:
        """Words that neighbouring windows share, so that no span is cut."""
        return 2 * (self.max_width or 32)

    def materialize(self) -> GLiNER:
        """Return the model that stands behind this block: itself."""
        return self

    def build(self) -> None:
        """Load the pretrained backbone and make the weights of all other blocks."""
        self.encoder.build()
        self.make()

    def make(self) -> None:
        """Make the weights of all blocks on top of the encoder, which is built already."""
        size = self.encoder.output_size
        if self.fusion is not None:
            self.fusion.build(size)
        self.span_rep.build(size)
        self.prompt_rep = projection(size, size, self.dropout)

    def save(self, path: Path) -> None:
        """Write weights, and configuration and tokenizer of the backbone, into the folder `path`."""
        from safetensors.torch import save_model

        path.mkdir(parents=True, exist_ok=True)
        self.encoder.save_assets(path / "encoder")
        save_model(self, str(path / WEIGHTS))

    def load(self, path: Path) -> None:
        """Make all blocks from a folder that ``save`` wrote and fill in the weights; no network.

        Raises
        ------
        CheckpointError
            When the weights are not those of these blocks, with the names that differ.
        """
        from safetensors.torch import load_model

        if not (path / WEIGHTS).is_file():
            raise CheckpointError(f"{path}: no {WEIGHTS}. The folder is not whole: save the pipeline again.")
        self.encoder.load_assets(path / "encoder")
        self.make()
        try:
            load_model(self, str(path / WEIGHTS), strict=True)
        except RuntimeError as error:
            raise CheckpointError(
                f"{path / WEIGHTS} does not fit the blocks of the config: {' '.join(str(error).split())}"
            ) from None

    # -- running it ------------------------------------------------------------------------------------------------

    def score(self, batch: EncoderBatch) -> Tensor:
        """Score all spans of a batch of windows.

        Returns
        -------
        Tensor
            Logits, ``(rows, words, widths, labels)``; see ``valid_spans`` for those that mean something.
        """
        assert self.prompt_rep is not None
        words, labels = self.encoder(batch)
        if self.fusion is not None:
            masks = batch.windows.word_mask, batch.windows.prompt_mask
            words, labels = self.fusion(words, labels, *masks)
        return self.span_rep.score(words, self.prompt_rep(labels))

    def forward(self, batch: TrainingBatch) -> LossTerms:
        """Loss of a batch, as sums."""
        logits = self.score(batch.inputs)
        targets = torch.zeros_like(logits)
        targets[tuple(batch.gold.unbind(1))] = 1.0
        windows = batch.inputs.windows
        mask = valid_spans(windows, logits.shape[2])[..., None] & windows.prompt_mask[:, None, None, :]
        loss = self.loss(logits, targets, mask)
        return LossTerms(loss, {"span": loss.detach()})

    def denominator(self, count: float) -> float:
        """What the summed loss of a step is divided by."""
        return self.loss.denominator(count)

    def extra_repr(self) -> str:
        """Say whether there are weights."""
        return "" if self.is_built else "not built"


def valid_spans(windows: WindowBatch, n_widths: int) -> Tensor:
    """Spans that lie in their window, start in its own words, and start and end at words with pieces.

    Returns
    -------
    Tensor
        ``(rows, words, widths)``, boolean.
    """
    scorable = windows.scorable
    n_words = scorable.shape[1]
    position = torch.arange(n_words, device=scorable.device)
    starts = scorable & (position >= windows.own[:, :1]) & (position < windows.own[:, 1:])
    padded = torch.nn.functional.pad(scorable, (0, n_widths - 1))
    ends = padded.unfold(1, n_widths, 1)
    return starts[:, :, None] & ends


def check_architecture(model: Any, where: str) -> None:
    """Refuse what is no GLiNER architecture."""
    from gliner_pipe.errors import ConfigError

    if not (isinstance(model, Block) and model.family == "architectures"):
        raise ConfigError(
            where,
            f"found {type(model).__name__}",
            "@architectures = gliner_pipe.GLiNER.v1 or gliner_pipe.Pretrained.v1, or the name of a checkpoint",
        )
