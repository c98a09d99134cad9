"""The encoder ``causal_encoder``: labels in a prompt before the words, read by a language model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone, IntArray
from gliner_pipe.modeling.backbones.causal import CausalTransformer
from gliner_pipe.modeling.context_encoders import ContextEncoder
from gliner_pipe.modeling.encoders.base import Encoded, Encoder, EncoderBatch, Query, QueryPrompt
from gliner_pipe.modeling.layers.cache import Cache, weights_of
from gliner_pipe.modeling.lstm import BiLSTM, make_rnn
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Amount, Count, Layers

#: Largest number of cached prompts, and of prompts whose keys and values are cached.
MAX_PROMPTS = 256
MAX_READ = 16


@dataclass(frozen=True, slots=True)
class MarkedPrompt(QueryPrompt):
    """The prompt ``label <<LABEL>> ... <<SEP>>``; ``positions`` holds those of all its subword tokens.

    Attributes
    ----------
    markers
        Index of the ``<<LABEL>>`` after each label, ``(labels,)``.
    """

    markers: IntArray


class ReadPrompt(NamedTuple):
    """What a prompt leaves behind once it is read: keys and values, and the label vectors ``(1, labels, hidden)``."""

    memory: Any
    labels: Tensor


@registry.encoders.register("causal_encoder")
class CausalEncoder(Encoder):
    """Encodes ``label <<LABEL>> ... <<SEP>> words`` from left to right, as GLiNER's streaming models do.

    Use it with a language model, and for text that arrives bit by bit: :meth:`Gliner.session` reads each word once. A
    word sees the labels and the words before it; a label vector is that of the ``<<LABEL>>`` behind the label, and does
    not depend on the text. A prompt is therefore read once for all texts with the same labels.

    Parameters
    ----------
    backbone
        Encodes prompt and words: a ``causal_transformer``.
    label_context
        Encoder over the vectors of the prompt, in which its subword tokens see each other in both directions; none by
        default.
    rnn_layers
        Number of layers of a bidirectional LSTM over the words; 0 for none.
    label_token, sep_token
        The special tokens of the prompt.
    right_context
        Sessions: number of words after an entity that may still change its score; the maximum width of an entity when
        None.
    max_session_tokens
        Sessions: largest number of subword tokens that are kept, prompt included; a session goes on beyond it with the
        latest words. The positions of the model when None; where these have no limit, a window.
    new_tokens
        Special tokens to add to the vocabulary; those above by default.

    Notes
    -----
    Source: GLiNER's ``StreamingSpanModel``.
    """

    reads_relations = False
    reads_bare_labels = True

    def __init__(
        self,
        backbone: Backbone,
        label_context: ContextEncoder | None = None,
        rnn_layers: Layers = 0,
        label_token: str = "<<LABEL>>",
        sep_token: str = "<<SEP>>",
        right_context: Amount | None = None,
        max_session_tokens: Count | None = None,
        new_tokens: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(backbone, CausalTransformer):
            where, found = "components.*.model.encoder.backbone", f"found {type(backbone).__name__}"
            raise ConfigError(where, f"{found} below a causal_encoder", "@backbones = causal_transformer")
        if backbone.fuse_layers:
            found = "found True: the weights of the layers would depend on what follows a word"
            raise ConfigError("components.*.model.encoder.backbone.fuse_layers", found, "False")
        self.backbone: CausalTransformer = backbone
        self.label_context = label_context
        self.rnn_layers = rnn_layers
        self.label_token, self.sep_token = label_token, sep_token
        self.right_context, self.max_session_tokens = right_context, max_session_tokens
        self.new_tokens = [label_token, sep_token] if new_tokens is None else new_tokens
        self.rnn: BiLSTM | None = None
        self._prompts: Cache[Query, MarkedPrompt] = Cache(MAX_PROMPTS)
        self._read: Cache[Query, ReadPrompt] = Cache(MAX_READ)

    def build(self) -> None:
        """Load the backbone with the special tokens and create the other layers."""
        self.backbone.build(self.new_tokens)
        self._make()

    def load_assets(self, path: Path) -> None:
        """Build the modules from a saved folder."""
        self.backbone.load_assets(path / "backbone")
        self._make()

    def _make(self) -> None:
        self._prompts.forget()
        self._read.forget()
        if self.label_context is not None:
            self.label_context.build(self.output_size)
        self.rnn = make_rnn(self.output_size, self.rnn_layers)

    # -- the prompt ------------------------------------------------------------------------------------------------

    def prompt(self, query: Query) -> MarkedPrompt:
        """Return the subword tokens of ``label <<LABEL>> ... <<SEP>>``, from a cache of the latest prompts."""
        return self._prompts.get(query, lambda: self._make_prompt(query))

    def _make_prompt(self, query: Query) -> MarkedPrompt:
        words: list[str] = []
        markers: list[int] = []
        for label in query.entities:
            words += [label, self.label_token] if label else [self.label_token]
            markers.append(len(words) - 1)
        (pieces,) = self.backbone.tokenize([[*words, self.sep_token]])
        firsts = np.cumsum(pieces.counts) - pieces.counts
        return MarkedPrompt(
            pieces.ids, np.arange(len(pieces.ids)), query, firsts[np.array(markers, np.int64)]
        )

    def read_prompt(self, query: Query) -> ReadPrompt:
        """Return what the prompt of `query` leaves behind, from a cache; without gradients. It must not be modified."""
        own = [self.backbone.weights_in_use, self.backbone.projection, self.label_context]
        weights = [weight for module in own if module is not None for weight in weights_of(module)]

        def read() -> ReadPrompt:
            prompt, device = self.prompt(query), next(self.parameters()).device
            memory = self.backbone.new_memory()
            vectors = self.backbone.read_on(torch.from_numpy(prompt.ids)[None].to(device), memory)
            mask = torch.ones(vectors.shape[:2], dtype=torch.bool, device=device)
            return ReadPrompt(memory, self._label_vectors(vectors, mask, [query]))

        return self._read.get(query, read, weights)

    def _label_vectors(self, prompt: Tensor, mask: Tensor, queries: Sequence[Query]) -> Tensor:
        """Return the label vectors of each row, ``(rows, labels, hidden)``, given those of all tokens of the prompt."""
        if self.label_context is not None:
            prompt = self.label_context(prompt, mask)
        markers = [self.prompt(query).markers for query in queries]
        places = np.zeros((len(markers), max(map(len, markers))), np.int64)
        for row, found in enumerate(markers):
            places[row, : len(found)] = found
        at = torch.from_numpy(places).to(prompt.device)
        return prompt.gather(1, at[:, :, None].expand(-1, -1, prompt.shape[-1]))

    # -- windows ---------------------------------------------------------------------------------------------------

    def forward(self, batch: EncoderBatch) -> Encoded:
        """Run a batch of windows; without gradients, a prompt that all rows share is not run again."""
        windows, queries = batch.windows, batch.queries
        rows = len(queries)
        if torch.is_grad_enabled() or self.training:
            self._read.forget()  # fused optimizers do not raise the version of weights
        elif self._can_share(queries):
            read = self.read_prompt(queries[0])
            memory = copied(read.memory, rows)
            words = self.backbone.words_after(windows, len(self.prompt(queries[0]).ids), memory)
            labels = read.labels.expand(rows, -1, -1)
            return self._encoded(words, labels, windows.word_mask)
        words, prompt = self.backbone.vectors(windows)
        labels = self._label_vectors(prompt, windows.prompt_mask, queries) * batch.label_mask[:, :, None]
        return self._encoded(words, labels, windows.word_mask)

    def _can_share(self, queries: Sequence[Query]) -> bool:
        """Whether all rows have one prompt, and its keys and values can be kept."""
        if self.backbone.features is not None or self.backbone.reduced.precision.compile:
            return False
        return all(query is queries[0] or query == queries[0] for query in queries[1:])

    def _encoded(self, words: Tensor, labels: Tensor, word_mask: Tensor) -> Encoded:
        if self.rnn is not None:
            words = self.rnn(words, word_mask)
        return Encoded(words, labels, labels[:, :0])


def copied(memory: Any, rows: int = 1) -> Any:
    """Return a copy of the keys and values of one row, for a number of rows."""
    memory = copy.deepcopy(memory)
    if rows > 1:
        memory.batch_repeat_interleave(rows)
    return memory
