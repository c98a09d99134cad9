"""The token classification architecture: a tagger of words with a closed label set, composed of blocks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.backbones.base import Pieces, TensorBatch, Window
from gliner_pipe.modeling.batch import LossTerms
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.decoders.tags import TagDecoder
from gliner_pipe.modeling.encoders.base import Encoder, EncoderBatch, Query
from gliner_pipe.modeling.gliner import Architecture
from gliner_pipe.modeling.inference import TokenBudget, run_groups
from gliner_pipe.registry import registry

LABELS = "labels.json"
#: Minimum overlap of neighbouring windows in words; each window uses half of it as context on that side.
MIN_OVERLAP = 8


@dataclass(frozen=True)
class TaggingBatch(TensorBatch):
    """Windows, the sequences that their words form, and gold tags.

    Attributes
    ----------
    inputs
        Encoder input.
    places
        For each word of each sequence, the index of its vector in the flattened output of all windows,
        ``(rows, words)``.
    gold
        Tags of these words; -100 if unknown, ``(rows, words, chains)``.
    mask
        True for words, ``(rows, words)``.
    n_words, n_pieces
        Number of words of the texts, and of subword tokens of the padded windows.
    count
        Number of elements in the loss, known before the forward pass.
    dropped
        Reasons why gold annotations are missing from the targets, with counts.
    """

    inputs: EncoderBatch
    places: Tensor
    gold: Tensor
    mask: Tensor
    n_words: int
    n_pieces: int
    count: float
    dropped: Counter[str] = field(default_factory=Counter)


@registry.architectures.register("gliner_pipe.TokenClassifier.v1")
class TokenClassifier(Architecture):
    """An encoder and a tag decoder: the model of the component ``token_classifier``.

    In a text of several windows, the scores of a word are those of the window in which it is most central. The decoder
    sees the text as a whole, in training and in prediction, so window boundaries have no effect on it.

    Pure PyTorch, without spaCy.

    Parameters
    ----------
    encoder
        Encodes words: ``plain``.
    decoder
        Turns word vectors into tags and tags into spans: ``softmax`` or ``crf``.
    """

    is_tagger = True

    def __init__(self, encoder: Encoder, decoder: TagDecoder) -> None:
        super().__init__(encoder)
        self.decoder = decoder
        #: The closed label set, known once built.
        self.labels: tuple[str, ...] = ()
        #: False if training takes the labels from the data instead of from the weights.
        self.keeps_labels = True

    # -- building, saving, loading -----------------------------------------------------------------------------------

    @property
    def min_overlap(self) -> int:
        """Minimum overlap of neighbouring windows in words."""
        return MIN_OVERLAP

    def build(self, labels: Sequence[str]) -> None:
        """Load the pretrained backbone and create the weights for a closed label set."""
        self.encoder.build()
        self.make(labels)

    def make(self, labels: Sequence[str]) -> None:
        """Create the weights on top of the encoder, which is built already; weights of other labels are discarded.

        Raises
        ------
        ConfigError
            If there are no labels.
        """
        if not labels:
            raise ConfigError(
                "components.*.labels",
                "found no labels, neither in the configuration nor in the training data",
                "at least one label",
                "Set labels, or set target_span_getter to where the gold annotations are",
            )
        self.labels = tuple(labels)
        device = next((weight.device for weight in self.encoder.parameters()), torch.device("cpu"))
        self.decoder.build(self.encoder.output_size, self.labels)
        self.decoder.to(device)
        self.is_built = True

    def remake(self, labels: Sequence[str]) -> None:
        """Create the weights for other labels; tags that both label sets have keep their weights."""
        index_of = {name: index for index, name in enumerate(self.decoder.tags)}
        old, scheme = self.decoder.project, self.decoder.scheme
        single_chain = self.decoder.n_chains == 1 and not self.decoder.chain_per_label
        self.make(labels)
        if not single_chain or self.decoder.scheme != scheme:
            return
        with torch.no_grad():
            for index, name in enumerate(self.decoder.tags):
                if name in index_of:
                    self.decoder.project.weight[index] = old.weight[index_of[name]]
                    self.decoder.project.bias[index] = old.bias[index_of[name]]

    def save_assets(self, path: Path) -> None:
        """Save labels, and configuration and tokenizer of the backbone, to the folder `path`."""
        super().save_assets(path)
        self.save_tags(path)

    def save_tags(self, path: Path) -> None:
        """Save the labels, and what the decoder needs to be built, to the folder `path`."""
        (path / LABELS).write_text(json.dumps(self.labels, ensure_ascii=False), encoding="utf8")
        self.decoder.save_assets(path)

    def load_assets(self, path: Path) -> None:
        """Create all blocks from what ``save_assets`` wrote, with weights still to be loaded."""
        if not (path / LABELS).is_file():
            raise CheckpointError(
                f"{path}: {LABELS} is missing. The folder is incomplete: save the pipeline again."
            )
        self.encoder.load_assets(path / "encoder")
        self.decoder.load_assets(path)
        self.make(json.loads((path / LABELS).read_text(encoding="utf8")))

    # -- running -----------------------------------------------------------------------------------------------------

    def emissions(self, inputs: EncoderBatch) -> Tensor:
        """Return the tag scores of the words of windows, ``(rows, words, chains, tags)``."""
        words = self.encoder(inputs).words
        emissions: Tensor = self.decoder.emissions(words)
        return emissions

    def forward(self, batch: TaggingBatch) -> LossTerms:
        """Return the loss of a batch, as a sum."""
        joined = self.emissions(batch.inputs).flatten(0, 1)[batch.places]
        return LossTerms.of({"tags": self.decoder.loss(joined, batch.gold, batch.mask)})

    def denominator(self, count: float) -> float:
        """Return the number by which the summed loss of a step is divided."""
        return count or 1.0

    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        report: Counter[str] | None = None,
        pieces: Sequence[Pieces] | None = None,
        training: bool = False,
    ) -> list[Window]:
        """Split the words of each text into windows; `pieces` are their subword tokens, if already known."""
        queries = [Query(())] * len(texts)
        return self.encoder.prepare(texts, queries, self.min_overlap, report, pieces, training)

    def score(self, windows: Sequence[Window], n_texts: int, budget: TokenBudget) -> list[Tensor]:
        """Score the words of whole texts.

        Parameters
        ----------
        windows
            Windows of all texts, from ``prepare``.
        n_texts
            Number of texts.
        budget
            Token budget.

        Returns
        -------
        list of Tensor
            Tag scores of each text, ``(words, chains, tags)``; no words for a text without windows.
        """
        own: dict[int, Tensor] = {}

        def run(group: list[int], loaded: EncoderBatch) -> int:
            inputs = loaded.to(self.device)
            emissions = self.emissions(inputs)
            for row, index in enumerate(group):
                window = windows[index]
                # copied, so that the rest of the batch can be freed
                own[index] = emissions[
                    row, window.own_start - window.start : window.own_stop - window.start
                ].clone()
            return int(inputs.windows.input_ids.numel())

        run_groups(self, windows, budget, self.encoder.collate, run)
        parts: list[list[Tensor]] = [[] for _ in range(n_texts)]
        for index, window in enumerate(windows):
            parts[window.text].append(own[index])
        empty = torch.zeros(0, self.decoder.n_chains, len(self.decoder.tags), device=self.device)
        return [torch.cat(some) if some else empty for some in parts]


def check_tagger(model: Any, where: str) -> None:
    """Raise ConfigError unless `model` is a tagger architecture (``is_tagger``)."""
    if not (isinstance(model, Block) and getattr(model, "is_tagger", False)):
        raise ConfigError(
            where,
            f"found {type(model).__name__}",
            "@architectures = gliner_pipe.TokenClassifier.v1",
        )
