"""The label encoder of a bi-encoder: one vector for each label or other short text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.pretrained_encoder import PretrainedEncoder
from gliner_pipe.modeling.encoders.label_cache import VectorStore
from gliner_pipe.modeling.layers.cache import Cache, weights_of
from gliner_pipe.modeling.layers.vector_table import VectorTable
from gliner_pipe.util.atomic import replace_file

#: Largest number of texts in a batch without gradients.
TEXTS_AT_ONCE = 128


class TextEmbedder(PretrainedEncoder):
    """A Hugging Face encoder that pools the vectors of subword tokens into one vector for each text.

    Without gradients, the vector of a text is computed once and cached until the weights change; those out of use are
    removed, see ``VectorTable``.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that contains a model.
    pooling
        ``mean`` of all subword tokens, or the ``first``, as some sentence encoders require.
    fuse_layers
        Use a weighted sum of all layers instead of the last layer.
    freeze
        Do not train the pretrained weights.
    where
        Section, for errors.
    trust_remote_code
        Run code that comes with the model when it is first loaded. This setting is not saved: whoever loads the
        pipeline has to consent again.
    adapter
        An adapter that is trained instead of the encoder.
    cache
        Folder for vectors that are shared with other processes; None for memory only.
    config
        Configuration of the encoder in place of that of `model`.
    """

    part = "encoder.label_encoder"
    adapter_section = "components.*.model.encoder.label_adapter"

    def __init__(
        self,
        model: str,
        pooling: Literal["mean", "first"] = "mean",
        fuse_layers: bool = False,
        freeze: bool = False,
        where: str = "model",
        trust_remote_code: bool = False,
        adapter: Adapter | None = None,
        cache: str | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model_name = model
        self.pooling = pooling
        self.fuse_layers = fuse_layers
        self.freeze = freeze
        self.section = where
        self.trust_remote_code = trust_remote_code
        self.adapter = adapter
        self.config = config
        self.encoder: Any = None
        self.tokenizer: Any = None
        self.cache = cache
        #: Vectors of single texts; the file of vectors.
        self._vectors: VectorTable[str] = VectorTable()
        self._stores: Cache[str, VectorStore] = Cache(1)

    def build(self, hidden_size: int) -> None:
        """Load weights and tokenizer; a linear layer maps to `hidden_size` if the width of the encoder differs."""
        self.encoder, self.tokenizer = hf.load_pretrained(
            self.model_name, self.section, self.trust_remote_code, words=False, settings=self.config
        )
        if self.adapter is not None:
            self._take_fingerprint()
        hf.grow_embeddings(self.encoder, len(self.tokenizer))
        if self.adapter is not None:
            self.adapt(self.adapter)
        self._finish(hidden_size)

    def load_assets(self, path: Path, hidden_size: int) -> None:
        """Build the encoder from a saved configuration; its weights are loaded afterwards, see ``Transformer``."""
        self._restore(path)
        self._finish(hidden_size)

    def _finish(self, hidden_size: int) -> None:
        self._add_layers(hidden_size)
        self.limit = hf.max_positions(self.encoder.config, self.tokenizer)
        self._rust = hf.rust_copy(self.tokenizer, padded=True, limit=self.limit)
        self.encoder_changed()

    def encoder_changed(self) -> None:
        """Clear the caches of vectors."""
        self._vectors.forget()
        self._stores.forget()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of texts, ``(texts, hidden)``, which must not be modified."""
        weights = weights_of(self)
        if torch.is_grad_enabled() or self.training:
            if any(weight.requires_grad for weight in weights):
                self.encoder_changed()  # fused optimizers do not raise the version of weights
            return self._run(texts)
        return self._vectors.get(texts, self._compute, weights)

    @property
    def mark(self) -> Tensor:
        """See ``VectorTable.mark``."""
        return self._vectors.mark

    def _compute(self, texts: list[str]) -> Tensor:
        """Read the vectors of texts from the disk; compute missing ones in batches and write them there."""
        stored = {} if self.cache is None else self.store.get(texts)
        device = next(self.parameters()).device
        missing = sorted((text for text in texts if text not in stored), key=len)
        for at in range(0, len(missing), TEXTS_AT_ONCE):
            part = missing[at : at + TEXTS_AT_ONCE]
            vectors = self._run(part)
            if self.cache is not None:
                self.store.put(part, vectors)
            stored.update(zip(part, vectors, strict=True))
        return torch.stack([stored[text].to(device) for text in texts])

    @property
    def store(self) -> VectorStore:
        """The file of vectors of these weights; requires a folder."""
        return self._stores.get("store", self._open_store, weights_of(self))

    def _open_store(self) -> VectorStore:
        assert self.cache is not None
        settings = (self.fingerprint(), self.pooling, self.limit, self.fuse_layers, len(self.tokenizer))
        key = hashlib.sha256(repr(settings).encode()).hexdigest()[:32]
        size = self.encoder.config.hidden_size if self.projection is None else self.projection.out_features
        where = f"{self.section.rpartition('.')[0]}.label_cache"
        return VectorStore(Path(self.cache), key, size, where)

    def _run(self, texts: Sequence[str]) -> Tensor:
        tokens, device = self.cut(texts), next(self.encoder.parameters()).device
        return self.embed(tokens["input_ids"].to(device), tokens["attention_mask"].to(device))

    def cut(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Tokenize and pad texts, on the CPU: ``input_ids`` and ``attention_mask``, ``(texts, tokens)``."""
        cut = self._rust.encode_batch(list(texts))
        return {
            "input_ids": torch.tensor([one.ids for one in cut]),
            "attention_mask": torch.tensor([one.attention_mask for one in cut]),
        }

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Map the subword tokens of texts, ``(texts, tokens)``, to vectors, ``(texts, hidden)``."""
        hidden = self._token_vectors(self.encoder, ids, mask, mask)
        if self.pooling == "first":
            return hidden[:, 0]
        weight = mask[:, :, None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)

    # -- files of vectors ------------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Return a hash of the weights."""
        digest = hashlib.sha256()
        for name, parameter in self.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save_vectors(self, path: Path) -> None:
        """Write the cached vectors to a safetensors file, with the fingerprint of the weights."""
        from safetensors.torch import save_file

        names, cached = self._vectors.items(weights_of(self))
        vectors = torch.zeros(0, 0) if cached is None else cached
        listed = torch.frombuffer(bytearray("\0".join(names).encode("utf8") or b"\0"), dtype=torch.uint8)
        content = {"vectors": vectors.cpu().contiguous(), "texts": listed}
        about = {"weights": self.fingerprint(), "format": "gliner_pipe label vectors 1"}
        with replace_file(path, follow=False) as file:
            save_file(content, file, metadata=about)

    def load_vectors(self, path: Path) -> int:
        """Read the vectors that ``save_vectors`` wrote, and return their number; they are kept, in use or not.

        Raises
        ------
        CheckpointError
            If they belong to other weights.
        """
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("weights") != self.fingerprint():
                raise CheckpointError(
                    f"{path}: the label vectors belong to other weights than those of this model. Compute them again."
                )
            vectors = file.get_tensor("vectors")
            names = bytes(file.get_tensor("texts").tolist()).decode("utf8").split("\0")
        if not len(vectors):
            return 0
        places = {name: place for place, name in enumerate(names)}
        vectors = vectors.to(next(self.parameters()).device)
        self._vectors.get(
            names, lambda new: vectors[[places[name] for name in new]], weights_of(self), pin=True
        )
        return len(names)
