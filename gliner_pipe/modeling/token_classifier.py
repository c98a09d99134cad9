"""A tagger of words with a closed label set, wired from blocks."""

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
from gliner_pipe.modeling.backbones.windows import Pieces, TensorBatch, Window
from gliner_pipe.modeling.batch import LossTerms
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.decoders.tags import TagDecoder
from gliner_pipe.modeling.encoders.base import Encoder, EncoderBatch, Query
from gliner_pipe.modeling.inference import TokenBudget, run_groups
from gliner_pipe.modeling.merging import merged
from gliner_pipe.modeling.weights import check_weights, fill_weights, write_weights
from gliner_pipe.registry import registry

LABELS = "labels.json"
#: Words that neighbouring windows share at least: half of them are context of the words of each window.
MIN_OVERLAP = 8


@dataclass(frozen=True)
class TaggingBatch(TensorBatch):
    """Windows, and how their words join to chains with known tags.

    Attributes
    ----------
    inputs
        What the encoder reads.
    places
        Where the vector of each word of each chain stands among those of all windows, laid out row after row,
        ``(rows, words)``.
    gold
        Tags of these words; -100 where not known, ``(rows, words, chains)``.
    mask
        True for words, ``(rows, words)``.
    n_words, n_pieces
        Words of the texts, and pieces of the padded windows.
    count
        What the loss is over, known before the forward pass.
    dropped
        Why gold annotations are missing from the targets, with their numbers.
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
class TokenClassifier(Block):
    """An encoder and a decoder of tags: what the component ``token_classifier`` runs.

    A text of many windows gets the scores of each word from the window in which the word is most central; the decoder
    then sees the text as a whole, in training as in prediction, so that windows have no borders for it.

    Pure torch: it knows no spaCy object.

    Parameters
    ----------
    encoder
        Where the vectors of words come from: ``plain``.
    decoder
        From vectors to tags to spans: ``softmax`` or ``crf``.
    """

    family = "architectures"
    is_tagger = True

    def __init__(self, encoder: Encoder, decoder: TagDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        #: The closed label set, known once built.
        self.labels: tuple[str, ...] = ()
        self._made = False
        #: Configuration of the blocks, where it is not in the pipeline's config (a checkpoint given by name).
        self.blocks: dict[str, Any] | None = None
        #: Name of the word splitter that the weights were trained with, where it is not the tokens of spaCy.
        self.word_splitter: str | None = None
        #: False where a training takes its labels from the data, whatever labels the weights are of.
        self.keeps_labels = True

    # -- making it -------------------------------------------------------------------------------------------------

    @property
    def is_built(self) -> bool:
        """Whether there are weights."""
        return self._made

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def min_overlap(self) -> int:
        """Words that neighbouring windows share."""
        return MIN_OVERLAP

    def materialize(self) -> TokenClassifier:
        """Return the model that stands behind this block: itself."""
        return self

    def build(self, labels: Sequence[str]) -> None:
        """Load the pretrained backbone and make the weights for a closed label set."""
        self.encoder.build()
        self.make(labels)

    def make(self, labels: Sequence[str]) -> None:
        """Make the weights on top of the encoder, which is built already; those for other labels are given up.

        Raises
        ------
        ConfigError
            If there is no label.
        """
        if not labels:
            raise ConfigError(
                "components.*.labels",
                "is empty, and the training data has none either",
                "at least one label",
                "Name the labels, or the place of the gold annotations: target_span_getter",
            )
        self.labels = tuple(labels)
        device = next((weight.device for weight in self.encoder.parameters()), torch.device("cpu"))
        self.decoder.build(self.encoder.output_size, self.labels)
        self.decoder.to(device)
        self._made = True

    def remake(self, labels: Sequence[str]) -> None:
        """Make the weights for other labels; tags that both label sets have keep what scores them."""
        known, old = {name: place for place, name in enumerate(self.decoder.tags)}, self.decoder.project
        was_one, before = self.decoder.n_chains == 1 and not self.decoder.chain_a_label, self.decoder.scheme
        self.make(labels)
        if not was_one or self.decoder.scheme != before:
            return
        shared = [(place, known[name]) for place, name in enumerate(self.decoder.tags) if name in known]
        with torch.no_grad():
            for place, other in shared:
                self.decoder.project.weight[place] = old.weight[other]
                self.decoder.project.bias[place] = old.bias[other]

    def save(self, path: Path) -> None:
        """Write weights, labels, and configuration and tokenizer of the backbone, into the folder `path`.

        Adapters are written as their ``save`` says; the model itself stays as it is.
        """
        model = merged(self, all_of_them=False)
        path.mkdir(parents=True, exist_ok=True)
        model.encoder.save_assets(path / "encoder")
        (path / LABELS).write_text(json.dumps(self.labels, ensure_ascii=False), encoding="utf8")
        write_weights(model, path)

    def load(self, path: Path) -> None:
        """Make all blocks from a folder that ``save`` wrote and fill in the weights; no network.

        Raises
        ------
        CheckpointError
            When the weights are not those of these blocks, with the names that differ.
        """
        check_weights(path)
        self.load_assets(path)
        fill_weights(self, path)

    def load_assets(self, path: Path) -> None:
        """Make encoder and decoder from the folder `path`, with weights still to be filled in."""
        if not (path / LABELS).is_file():
            raise CheckpointError(f"{path}: no {LABELS}. The folder is not whole: save the pipeline again.")
        self.encoder.load_assets(path / "encoder")
        self.make(json.loads((path / LABELS).read_text(encoding="utf8")))

    # -- running it ------------------------------------------------------------------------------------------------

    def emissions(self, inputs: EncoderBatch) -> Tensor:
        """Score the words of windows, ``(rows, words, chains, tags)``."""
        words = self.encoder(inputs).words
        emissions: Tensor = self.decoder.emissions(words)
        return emissions

    def forward(self, batch: TaggingBatch) -> LossTerms:
        """Loss of a batch, as a sum."""
        joined = self.emissions(batch.inputs).flatten(0, 1)[batch.places]
        return LossTerms.of({"tags": self.decoder.loss(joined, batch.gold, batch.mask)})

    def denominator(self, count: float) -> float:
        """What the summed loss of a step is divided by."""
        return count or 1.0

    def prepare(
        self,
        texts: Sequence[Sequence[str]],
        report: Counter[str] | None = None,
        pieces: Sequence[Pieces] | None = None,
    ) -> list[Window]:
        """Cut the words of each text into windows; `pieces` are those of the words, where they are known already."""
        return self.encoder.prepare(texts, [Query(())] * len(texts), self.min_overlap, report, pieces)

    def score(self, windows: Sequence[Window], n_texts: int, budget: TokenBudget) -> list[Tensor]:
        """Score the words of whole texts.

        Parameters
        ----------
        windows
            Of all texts, from ``prepare``.
        n_texts
            How many these are.
        budget
            How much to run at once.

        Returns
        -------
        list of Tensor
            For each text ``(words, chains, tags)``; no words for a text without windows.
        """
        own: dict[int, Tensor] = {}

        def run(group: list[int], loaded: EncoderBatch) -> int:
            inputs = loaded.to(self.device)
            emissions = self.emissions(inputs)
            for row, index in enumerate(group):
                window = windows[index]
                # a copy, where the rest of the batch would stay in memory with it
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

    def extra_repr(self) -> str:
        """Say whether there are weights."""
        return "" if self.is_built else "not built"


def check_tagger(model: Any, where: str) -> None:
    """Refuse what is no architecture of a tagger, nor named as one (``is_tagger``)."""
    if not (isinstance(model, Block) and getattr(model, "is_tagger", False)):
        raise ConfigError(
            where,
            f"found {type(model).__name__}",
            "@architectures = gliner_pipe.TokenClassifier.v1",
        )
