"""The part of a model with a Hugging Face encoder: loading, running and saving it, with an adapter or without."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.adapters import wrapping
from gliner_pipe.modeling.adapters.base import Adapter, Form, saved_form
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import PretrainedModule
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.devices import has_flash_attention

logger = logging.getLogger(__name__)

#: Describes the adapter of the encoder, and the form in which it was saved.
MARKER = "adapter.json"
#: Folder of the adapter, in the layout of `peft`.
FOLDER = "adapter"
#: Weights of the encoder under the adapter.
BASE = "encoder.safetensors"
#: Name of flash-attn in `transformers`.
FLASH = "flash_attention_2"


class LayerFusion(nn.Module):
    """Weighted sum of the layers of a transformer, with weights that depend on the text.

    Squeeze-and-excitation over layers, as GLiNER's ``fuse_layers``.

    Parameters
    ----------
    n_layers
        Number of layers, without the embeddings.
    hidden_size
        Width of the layers and of the result.
    """

    def __init__(self, n_layers: int, hidden_size: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(hidden_size, 1)
        self.W1 = nn.Linear(n_layers, n_layers // 2)
        self.W2 = nn.Linear(n_layers // 2, n_layers)
        self.output_projection = nn.Linear(hidden_size, hidden_size)

    def forward(self, layers: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Fuse `layers`, each ``(rows, tokens, hidden)``; padding (`mask` 0) does not affect the weights."""
        stacked = torch.stack(list(layers), dim=1)
        weight = mask[:, None, :].to(stacked.dtype)
        squeezed = (self.squeeze(stacked).squeeze(-1) * weight).sum(-1) / weight.sum(-1)
        gates = torch.sigmoid(self.W2(torch.relu(self.W1(squeezed))))
        return self.output_projection((stacked * gates[:, :, None, None]).sum(1))


class PretrainedEncoder(PretrainedModule):
    """A Hugging Face encoder with its tokenizer, and optional layers and adapter on it.

    Attributes
    ----------
    encoder
        The model, inside a ``PeftModel`` if it has an adapter.
    adapter
        The block that configures the adapter.
    checkpoint
        The checkpoint that the encoder comes from, if it is not the encoder of `model_name`.
    read_base
        Reads the encoder of that checkpoint.
    section, adapter_section
        Sections of the encoder and of its adapter, for errors.
    part
        Name of this module in the model.
    """

    encoder: Any
    tokenizer: Any
    model_name: str
    freeze: bool
    fuse_layers: bool
    trust_remote_code: bool
    adapter: Adapter | None
    fusion: LayerFusion | None
    projection: nn.Linear | None
    quantization: str | None = None
    checkpoint: str | None = None
    read_base: Callable[[str, bool], Any] | None = None
    section: str = "components.*.model"
    adapter_section: str = "components.*.model.adapter"
    part: str = ""
    #: Names of the weights of the encoder before it was wrapped, and whether the adapter has changed these weights.
    _base_names: tuple[str, ...] = ()
    _base_changed: bool = False
    #: Fingerprint of the encoder as it was loaded, and whether it covers vectors (biases and norms) only.
    _fingerprint: str = ""
    _of_vectors: bool = False

    # -- running ---------------------------------------------------------------------------------------------------

    def _add_layers(self, size: int | None) -> None:
        """Add layer fusion and a projection to width `size` where needed, and freeze the encoder if set."""
        width = self.encoder.config.hidden_size
        self.fusion = LayerFusion(self.encoder.config.num_hidden_layers, width) if self.fuse_layers else None
        self.projection = None if size in (None, width) else nn.Linear(width, size)
        if self.freeze:
            self.encoder.requires_grad_(False)

    def _token_vectors(
        self, encoder: Any, ids: Tensor, mask: Tensor, attention_mask: Tensor | None, **options: Any
    ) -> Tensor:
        """Return the vectors of subword tokens, ``(rows, tokens, hidden)``; `encoder` is run with `attention_mask`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            output = encoder(
                input_ids=ids,
                attention_mask=attention_mask,
                output_hidden_states=self.fuse_layers,
                return_dict=True,
                **options,
            )
        if self.fusion is not None:
            hidden: Tensor = self.fusion([layer.float() for layer in output.hidden_states[1:]], mask)
        else:
            hidden = output.last_hidden_state.float()
        return hidden if self.projection is None else self.projection(hidden)

    def train(self: Any, mode: bool = True) -> Any:
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.freeze and self.encoder is not None:
            self.encoder.eval()
        return self

    def encoder_changed(self) -> None:
        """Clear caches of the output of the encoder."""

    # -- the adapter -----------------------------------------------------------------------------------------------

    @property
    def has_adapter(self) -> bool:
        """Whether the encoder has an adapter; after merging it has none, though ``adapter`` is still set."""
        return self.encoder is not None and wrapping.is_wrapped(self.encoder)

    @property
    def form(self) -> Form:
        """The form in which the encoder is saved at present."""
        return saved_form(self.adapter) if self.quantization is None else "adapter"

    def adapt(self, adapter: Adapter, tokens: Sequence[str] = ()) -> None:
        """Freeze the encoder and add an adapter to it.

        Parameters
        ----------
        adapter
            The block.
        tokens
            Special tokens whose embeddings are trained as well, as they have no pretrained meaning.
        """
        self.adapter = adapter
        self._take_fingerprint()
        weights = list(self.encoder.parameters())
        before = fingerprint(weights)
        vocabulary = self.tokenizer.get_vocab()
        ids = sorted({vocabulary[token] for token in tokens if token in vocabulary})
        table = self.encoder.get_input_embeddings()
        name = next(name for name, module in self.encoder.named_modules() if module is table)
        self._wrap(adapter.config(self.encoder, self.adapter_section), {name: ids} if ids else {})
        self._base_changed = fingerprint(weights) != before
        self._check_form()

    def _take_fingerprint(self) -> None:
        """Take the fingerprint of the encoder as loaded, before embeddings of new tokens are added."""
        if not self._fingerprint:
            self._of_vectors = self.quantization is not None
            self._fingerprint = fingerprint(self.encoder.parameters(), self._of_vectors)

    def _check_form(self) -> None:
        if self.form == "adapter" and self._base_changed:
            raise ConfigError(
                f"{self.adapter_section}.save",
                "found 'adapter' with an initialisation that changes the weights of the encoder",
                "full, merged",
                'Or choose another initialisation, such as init = "default" of lora',
            )

    def _wrap(self, config: Any, tokens: dict[str, list[int]]) -> None:
        self._base_names = tuple(self.encoder.state_dict())
        self.encoder = wrapping.wrap(self.encoder, config, tokens, self.adapter_section)

    # -- files -----------------------------------------------------------------------------------------------------

    def save_assets(self, path: Path) -> None:
        """Write configuration, tokenizer and adapter."""
        self.encoder.config.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        for old in (MARKER, BASE, f"{FOLDER}/{wrapping.CONFIG}", f"{FOLDER}/{wrapping.WEIGHTS}"):
            (path / old).unlink(missing_ok=True)
        if not self.has_adapter:
            return
        self._check_form()
        base = self.checkpoint or self.model_name
        wrapping.write(self.encoder, path / FOLDER, base)
        if self.form != "adapter":
            with replace_file(path / BASE, follow=False) as file:
                save_file(wrapping.base_state(self.encoder, self._base_names), file)
        marker = {
            "form": "adapter" if self.form == "adapter" else "full",
            "base": base,
            "fingerprint": self._fingerprint,
            "of_vectors": self._of_vectors,
            "changed": self._base_changed,
            "tokens": getattr(self.encoder.peft_config[wrapping.NAME], "trainable_token_indices", None) or {},
        }
        (path / MARKER).write_text(json.dumps(marker, indent=2), encoding="utf8")

    def _restore(self, path: Path, **options: Any) -> None:
        """Build encoder and tokenizer from what ``save_assets`` wrote.

        The weights of an encoder with an adapter are loaded from the folder or, if they are not saved in it, from their
        origin. The weights of other encoders are loaded afterwards, with those of the model.
        """
        file = path / MARKER
        marker: dict[str, Any] = json.loads(file.read_text(encoding="utf8")) if file.is_file() else {}
        adapter_only = marker.get("form") == "adapter"
        if self.quantization is not None and not adapter_only:
            raise ConfigError(
                self.section.rpartition(".")[0] + ".quantization",
                f"found {self.quantization!r} for a pipeline that holds its encoder in full",
                "None",
                'Quantise only the encoder of a pipeline with an adapter of save = "adapter"',
            )
        if adapter_only:
            self.encoder, self.tokenizer = self._load_base(marker, path, options)
        else:
            self.encoder, self.tokenizer = hf.load_saved(
                path, self.section, self.trust_remote_code, **options
            )
        if not marker:
            if self.adapter is not None:
                logger.info("%s: the adapter was merged when saving; training will update all weights.", path)
            return
        if not adapter_only:
            self._fill_base(path / BASE)
        self._fingerprint, self._of_vectors = marker["fingerprint"], marker["of_vectors"]
        self._base_changed = marker["changed"]
        # some methods initialise from the weights of the encoder, which must be loaded before
        self._wrap(wrapping.read_config(path / FOLDER, self.adapter_section), marker["tokens"])
        wrapping.fill(self.encoder, path / FOLDER, self.adapter_section)

    def _fill_base(self, path: Path) -> None:
        try:
            self.encoder.load_state_dict(load_file(path))
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: the weights do not fit the encoder or are incomplete ({reason}). Save the pipeline again."
            ) from error

    def _load_base(self, marker: dict[str, Any], path: Path, options: dict[str, Any]) -> tuple[Any, Any]:
        """Load the encoder that an adapter was trained on, and check its weights."""
        name = self.checkpoint or self.model_name
        option = "model.name" if self.checkpoint else self.section.removeprefix("components.*.")
        do = f"Pass the folder of that encoder: spacy.load(path, config={{'components.<name>.{option}': folder}})."
        try:
            if self.checkpoint is None:
                encoder, _ = hf.load_pretrained(name, self.section, self.trust_remote_code, **options)
            else:
                assert self.read_base is not None, "set together with the checkpoint"
                encoder = self.read_base(name, self.trust_remote_code)
        except (ConfigError, CheckpointError) as error:
            raise CheckpointError(
                f"{path.parent.parent}: holds an adapter only, and the encoder it was trained on, {name!r}, cannot be "
                f"loaded: {error} {do}"
            ) from error
        if fingerprint(encoder.parameters(), marker["of_vectors"]) != marker["fingerprint"]:
            raise CheckpointError(
                f"{path.parent.parent}: holds an adapter only, and it was trained on other weights than those of "
                f"{name!r}. {do}"
            )
        tokenizer = hf.saved_tokenizer(path, self.trust_remote_code)
        hf.grow_embeddings(encoder, len(tokenizer))
        return encoder, tokenizer


def check_wrapped(model: nn.Module, where: str) -> None:
    """Refuse a model with layers of `peft` that no block describes: it could be trained, but not loaded again.

    Parameters
    ----------
    model
        The blocks.
    where
        Section of the model, for the error.

    Raises
    ------
    ConfigError
        With the block to use.
    """
    described: set[nn.Module] = set()
    for path, module in model.named_modules():
        if isinstance(module, PretrainedEncoder) and module.adapter is not None:
            described.update(module.modules())
        elif type(module).__module__.partition(".")[0] == "peft" and module not in described:
            raise ConfigError(
                f"{where}.{path}" if path else where,
                f"is a {type(module).__name__} of peft that was added in Python, which is not saved",
                "an adapter in the configuration of the model",
                'Write @adapters = "lora" in the section of the backbone (or adapter of a checkpoint) instead',
            )


def follow_device(model: Any, device: torch.device) -> None:
    """Switch a model with ``auto`` attention to flash-attn where that is supported, and otherwise to `sdpa`.

    flash-attn needs a GPU of compute capability 8.0 or newer, 16-bit weights, the package and support by the model; it
    skips padding.
    """
    kind = getattr(model.config, "_attn_implementation", None)
    if kind not in ("sdpa", FLASH) or not hasattr(model, "set_attn_implementation"):
        return
    if kind == "sdpa" and device.type != "cuda":
        return
    wanted = FLASH if _flash_runs(model, device) else "sdpa"
    if wanted != kind:
        model.set_attn_implementation(wanted)


def _flash_runs(model: Any, device: torch.device) -> bool:
    supported = getattr(model, "_supports_flash_attn", False) or getattr(
        model, "_supports_flash_attn_2", False
    )
    short = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
    return bool(supported and short and _has_flash_package() and has_flash_attention(device))


@cache
def _has_flash_package() -> bool:
    """Look for the package once: each batch asks."""
    return importlib.util.find_spec("flash_attn") is not None


def fingerprint(weights: Iterable[Tensor], vectors_only: bool = False) -> str:
    """Return a hash of the weights of an encoder, which does not depend on their order.

    Parameters
    ----------
    weights
        Parameters.
    vectors_only
        Hash vectors (biases and norms) only, which quantisation does not change.
    """
    digests = []
    for parameter in weights:
        if vectors_only and parameter.dim() != 1:
            continue
        digest = hashlib.sha256(str(tuple(parameter.shape)).encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
