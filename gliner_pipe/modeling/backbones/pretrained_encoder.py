"""What modules with a Hugging Face encoder share: loading and saving it, with an adapter or without."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.adapters import wrapping
from gliner_pipe.modeling.adapters.base import Adapter, Form, saved_form
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.base import PretrainedModule
from gliner_pipe.util.atomic import replace_file

logger = logging.getLogger(__name__)

#: Says that the encoder has an adapter, and in which form it was saved.
MARKER = "adapter.json"
#: Folder of the adapter, as `peft` lays it out.
FOLDER = "adapter"
#: Weights of the encoder under the adapter.
BASE = "encoder.safetensors"


class EncoderHolder(PretrainedModule):
    """Holds a Hugging Face encoder and its tokenizer.

    Attributes
    ----------
    encoder
        The model, inside a ``PeftModel`` where it has an adapter.
    adapter
        The block that says so.
    checkpoint
        The checkpoint that the encoder came from, where it is not the encoder of `model_name`.
    read_base
        Reads the encoder of that checkpoint.
    """

    encoder: Any
    tokenizer: Any
    model_name: str
    freeze: bool
    trust_remote_code: bool
    adapter: Adapter | None
    quantization: str | None = None
    checkpoint: str | None = None
    read_base: Callable[[str, bool], Any] | None = None
    _names_of_base: tuple[str, ...] = ()
    _base_is_changed: bool = False
    #: What tells the base from others, and whether it was made of some of its weights only.
    _fingerprint: str = ""
    _of_vectors: bool = False
    #: Section of the encoder, and that of its adapter, for errors.
    section: str = "components.*.model"
    adapter_section: str = "components.*.model.adapter"
    #: Name of the part of the model that holds the encoder.
    part: str = ""

    @property
    def has_adapter(self) -> bool:
        """Whether there is one on the encoder; a block without one is that of weights that were merged."""
        return self.encoder is not None and wrapping.is_wrapped(self.encoder)

    @property
    def form(self) -> Form:
        """How the encoder is saved now."""
        if self.quantization is not None:
            return "adapter"  # quantised weights are not saved
        return saved_form(self.adapter)

    def adapt(self, adapter: Adapter, tokens: Sequence[str] = ()) -> None:
        """Freeze the encoder and put an adapter on it.

        Parameters
        ----------
        adapter
            The block.
        tokens
            Special tokens whose embeddings learn too: they stand for nothing yet.
        """
        self.adapter = adapter
        self._take_fingerprint()
        weights = list(self.encoder.parameters())
        base = fingerprint(weights)
        self._wrap(adapter.config(self.encoder, self.adapter_section), self._rows(tokens))
        self._base_is_changed = fingerprint(weights) != base
        self._check_form()

    def _take_fingerprint(self) -> None:
        """Take the fingerprint of the encoder as it was loaded, before it is given rows for new tokens."""
        if not self._fingerprint:
            self._of_vectors = self.quantization is not None
            self._fingerprint = fingerprint(self.encoder.parameters(), self._of_vectors)

    def _check_form(self) -> None:
        if self.form == "adapter" and self._base_is_changed:
            raise ConfigError(
                f"{self.adapter_section}.save",
                "found 'adapter' with a start that changes the weights of the encoder",
                "full, merged",
                "Or take another start, such as that of lora by default",
            )

    def _wrap(self, config: Any, rows: dict[str, list[int]]) -> None:
        self._names_of_base = tuple(self.encoder.state_dict())
        self.encoder = wrapping.wrap(self.encoder, config, rows, self.adapter_section)

    def _rows(self, tokens: Sequence[str]) -> dict[str, list[int]]:
        """Pieces of special tokens, by the name of the embedding layer."""
        vocabulary = self.tokenizer.get_vocab()
        pieces = sorted({vocabulary[token] for token in tokens if token in vocabulary})
        table = self.encoder.get_input_embeddings()
        name = next(name for name, module in self.encoder.named_modules() if module is table)
        return {name: pieces} if pieces else {}

    def encoder_changed(self) -> None:
        """Forget what was kept of the encoder as it was."""

    # -- files -----------------------------------------------------------------------------------------------------

    def save_assets(self, path: Path) -> None:
        """Write configuration and tokenizer, and what there is of an adapter."""
        self.encoder.config.save_pretrained(path)
        self.tokenizer.save_pretrained(path)
        files = (MARKER, BASE, f"{FOLDER}/{wrapping.CONFIG}", f"{FOLDER}/{wrapping.WEIGHTS}")
        for old in files:
            (path / old).unlink(missing_ok=True)
        if not self.has_adapter:
            return
        self._check_form()
        base = self.checkpoint or self.model_name
        wrapping.write(self.encoder, path / FOLDER, base)
        if self.form != "adapter":
            with replace_file(path / BASE, follow=False) as file:
                save_file(wrapping.base_state(self.encoder, self._names_of_base), file)
        marker = {
            "form": "adapter" if self.form == "adapter" else "full",
            "base": base,
            "fingerprint": self._fingerprint,
            "of_vectors": self._of_vectors,
            "changed": self._base_is_changed,
            "tokens": getattr(self.encoder.peft_config[wrapping.NAME], "trainable_token_indices", None) or {},
        }
        (path / MARKER).write_text(json.dumps(marker, indent=2), encoding="utf8")

    def _restore(self, path: Path, **options: Any) -> None:
        """Make encoder and tokenizer from what ``save_assets`` wrote.

        Weights are still to be filled in, but for an encoder with an adapter. Its own come from the folder or, where
        they were left out, from where they came at first.
        """
        marker = _read_marker(path)
        apart = marker.get("form") == "adapter"
        if self.quantization is not None and not apart:
            raise ConfigError(
                self.section.rpartition(".")[0] + ".quantization",
                f"found {self.quantization!r} for a pipeline that holds its encoder in full",
                "None",
                'Only a pipeline with an adapter of save = "adapter" can have its encoder quantised',
            )
        if apart:
            self.encoder, self.tokenizer = self._base(marker, path, options)
        else:
            self.encoder, self.tokenizer = hf.load_saved(
                path, self.section, self.trust_remote_code, **options
            )
        if marker:
            if not apart:
                self._fill_base(path / BASE)
            self._fingerprint, self._of_vectors = marker["fingerprint"], marker["of_vectors"]
            self._base_is_changed = marker["changed"]
            # some methods start from the weights of the encoder, so that these must be there by now
            self._wrap(wrapping.read_config(path / FOLDER, self.adapter_section), marker["tokens"])
            wrapping.fill(self.encoder, path / FOLDER, self.adapter_section)
        elif self.adapter is not None:
            logger.info(
                "%s: the saved encoder has no adapter (it was merged); all of its weights learn if it is trained.",
                path,
            )

    def _fill_base(self, path: Path) -> None:
        try:
            self.encoder.load_state_dict(load_file(path))
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: does not fit the encoder, or is not whole ({reason}). Save the pipeline again."
            ) from error

    def _base(self, marker: dict[str, Any], path: Path, options: dict[str, Any]) -> tuple[Any, Any]:
        name = self.checkpoint or self.model_name
        try:
            encoder = self._base_encoder(name, options)
        except (ConfigError, CheckpointError) as error:
            raise CheckpointError(
                f"{path.parent.parent}: holds an adapter only and needs the encoder it was trained on, {name!r}, which "
                f"cannot be had: {error} {self._elsewhere}"
            ) from error
        if fingerprint(encoder.parameters(), marker["of_vectors"]) != marker["fingerprint"]:
            raise CheckpointError(
                f"{path.parent.parent}: holds an adapter only, and the weights of {name!r} are not those that it was "
                f"trained on. {self._elsewhere}"
            )
        tokenizer = hf.saved_tokenizer(path, self.trust_remote_code)
        hf.grow_embeddings(encoder, len(tokenizer))
        return encoder, tokenizer

    @property
    def _elsewhere(self) -> str:
        option = "model.name" if self.checkpoint else self.section.removeprefix("components.*.")
        return f"Name the folder of that encoder: spacy.load(path, config={{'components.<name>.{option}': folder}})."

    def _base_encoder(self, name: str, options: dict[str, Any]) -> Any:
        if self.checkpoint is None:
            return hf.load_pretrained(name, self.section, self.trust_remote_code, **options)[0]
        assert self.read_base is not None, "whoever sets the checkpoint sets its reader"
        return self.read_base(name, self.trust_remote_code)


def _read_marker(path: Path) -> dict[str, Any]:
    if not (path / MARKER).is_file():
        return {}
    marker: dict[str, Any] = json.loads((path / MARKER).read_text(encoding="utf8"))
    return marker


def fingerprint(weights: Iterable[Tensor], vectors_only: bool = False) -> str:
    """Return what tells the weights of an encoder from others, in whatever order they come.

    Parameters
    ----------
    weights
        Parameters.
    vectors_only
        Look at biases and the like alone, which are the same when matrices are quantised.
    """
    digests = []
    for parameter in weights:
        if vectors_only and parameter.dim() != 1:
            continue
        digest = hashlib.sha256(str(tuple(parameter.shape)).encode())
        digest.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()
