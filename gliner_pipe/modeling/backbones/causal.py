"""The backbone ``causal_transformer``: a language model that reads from left to right, over sliding windows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import IntArray, WindowBatch, pool_words
from gliner_pipe.modeling.backbones.transformer import Transformer, mask_if_padded
from gliner_pipe.registry import registry


@registry.backbones.register("causal_transformer")
class CausalTransformer(Transformer):
    """A Hugging Face language model (Qwen, Llama, GPT-2 ...), in which no subword token sees the next.

    Use it below a ``causal_encoder``. Windows have no special tokens around prompt and text, so that the text can go
    on: the keys and values of what was read are kept, and only new subword tokens are run. It has the options of
    ``transformer``, but ``fuse_layers`` must be False: weights of layers depend on all of a text.

    Notes
    -----
    Source: GLiNER's ``Decoder`` (``gliner_streaming_span``), without its language model head.
    """

    def _finish(self) -> None:
        super()._finish()
        if not hf.is_causal(self.encoder):
            found = f"{self.model_name!r} is bidirectional: a word would see those that follow"
            raise ConfigError(self.section, found, "language models", "Use @backbones = transformer")

    def _special_pieces(self) -> tuple[list[int], list[int]]:
        return [], []

    def _token_vectors(
        self, encoder: Any, ids: Tensor, mask: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Tensor:
        return super()._token_vectors(encoder, ids, mask, attention_mask, **{"use_cache": False, **options})

    @property
    def weights_in_use(self) -> Any:
        """The encoder that is run without gradients; kept keys and values hold for its weights only."""
        return self._current_encoder()

    def new_memory(self) -> Any:
        """Return empty keys and values, for ``read_on``."""
        from transformers import DynamicCache

        return DynamicCache(config=self._built().config)

    def read_on(self, ids: Tensor, memory: Any, mask: Tensor | None = None) -> Tensor:
        """Run subword tokens that follow those already in `memory`, which takes their keys and values in addition.

        Parameters
        ----------
        ids
            ``(rows, tokens)``.
        memory
            From ``new_memory`` or ``copied``.
        mask
            0 for padding, for the tokens in `memory` and the new ones; None without padding.

        Returns
        -------
        Tensor
            Vectors of the new tokens, ``(rows, tokens, hidden)``.
        """
        encoder = self._encoder_on(ids.device)
        return self._token_vectors(encoder, ids, ids, mask, past_key_values=memory, use_cache=True)

    def words_after(self, batch: WindowBatch, n_prompt: int, memory: Any) -> Tensor:
        """Return the word vectors of windows that all begin with the same prompt, ``(rows, words, hidden)``.

        Parameters
        ----------
        batch
            The windows.
        n_prompt
            Number of subword tokens of the prompt.
        memory
            Keys and values of the prompt, for as many rows; they are extended.
        """
        hidden = self.read_on(batch.input_ids[:, n_prompt:], memory, mask_if_padded(batch.attention_mask))
        start = (batch.piece_start - n_prompt).clamp(min=0)
        return pool_words(hidden, start, batch.piece_count, self.pooling)

    def next_words(self, ids: IntArray, counts: IntArray, memory: Any) -> Tensor:
        """Return the vectors of the next words of a text, ``(1, words, hidden)``; `memory` is extended.

        Parameters
        ----------
        ids
            Their subword tokens, ``(tokens,)``.
        counts
            Number of subword tokens of each, ``(words,)``.
        memory
            Keys and values of prompt and text before them.
        """
        device = next(self.parameters()).device
        hidden = self.read_on(torch.from_numpy(ids)[None].to(device), memory)
        numbers = torch.from_numpy(counts)[None].to(device)
        return pool_words(hidden, numbers.cumsum(1) - numbers, numbers, self.pooling)
