"""One vector for each short text: how labels are read apart from the text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gliner_pipe.errors import CheckpointError
from gliner_pipe.modeling.adapters.base import Adapter
from gliner_pipe.modeling.backbones import hf
from gliner_pipe.modeling.backbones.pretrained_encoder import EncoderHolder
from gliner_pipe.modeling.encoders.label_cache import VectorStore
from gliner_pipe.modeling.layers.cache import Cache, weights_of
from gliner_pipe.modeling.layers.pooling import LayerFusion
from gliner_pipe.util.atomic import replace_file

#: Texts that are run at once without gradients.
TEXTS_AT_ONCE = 128
#: Vectors that are kept in memory at most, unless more are asked for at once.
MOST_KEPT = 1 << 17


class TextEmbedder(EncoderHolder):
    """A Hugging Face encoder whose piece vectors are averaged.

    Without gradients, the vector of a text is computed once and kept until the weights change.

    Parameters
    ----------
    model
        Hub id, folder, or installed package that holds a model.
    pooling
        ``mean`` of all pieces, or the ``first``, as some sentence encoders want it.
    fuse_layers
        Mix all layers instead of taking the last.
    freeze
        Keep the pretrained weights as they are.
    where
        Section that errors name.
    trust_remote_code
        Run code that comes with the model when it is first read. It is not saved: whoever loads the pipeline consents
        anew.
    adapter
        New weights that learn in place of the encoder's own.
    cache
        Folder in which vectors are kept for other processes; None for memory only.
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
    ) -> None:
        super().__init__()
        self.model_name = model
        self.pooling = pooling
        self.fuse_layers = fuse_layers
        self.freeze = freeze
        self.section = where
        self.trust_remote_code = trust_remote_code
        self.adapter = adapter
        self.encoder: Any = None
        self.tokenizer: Any = None
        self.cache = cache
        #: Vectors of texts; those of the last texts together; where they are on disk.
        self._vectors: Cache[str, Tensor] = Cache(MOST_KEPT)
        self._last: Cache[tuple[str, ...], Tensor] = Cache(1)
        self._stores: Cache[str, VectorStore] = Cache(1)

    def build(self, hidden_size: int) -> None:
        """Load weights and tokenizer; a linear layer maps to `hidden_size` where the encoder's own width differs."""
        self.encoder, self.tokenizer = hf.load_pretrained(
            self.model_name, self.section, self.trust_remote_code
        )
        if self.adapter is not None:
            self.adapt(self.adapter)
        self._finish(hidden_size)

    def load_assets(self, path: Path, hidden_size: int) -> None:
        """Make the encoder from a saved configuration, with weights still to be filled in; see ``Transformer``."""
        self._restore(path)
        self._finish(hidden_size)

    def _finish(self, hidden_size: int) -> None:
        encoder, tokenizer = self.encoder, self.tokenizer
        width = encoder.config.hidden_size
        self.fusion = LayerFusion(encoder.config.num_hidden_layers, width) if self.fuse_layers else None
        self.projection = nn.Linear(width, hidden_size) if hidden_size != width else None
        self.limit = hf.max_positions(encoder.config, tokenizer)
        self._rust = hf.rust_copy(tokenizer, padded=True, limit=self.limit)
        if self.freeze:
            encoder.requires_grad_(False)
        self.encoder_changed()

    def encoder_changed(self) -> None:
        """Forget the vectors that are kept."""
        for cache in (self._vectors, self._last, self._stores):
            cache.forget()

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the vectors of texts, ``(texts, hidden)``; the same tensor where they are asked for once more."""
        weights = weights_of(self)
        if torch.is_grad_enabled() or self.training:
            if any(weight.requires_grad for weight in weights):
                self.encoder_changed()  # a step may follow, and fused optimizers leave no trace on weights
            return self._run(texts)
        texts = tuple(texts)
        last = self._last.peek(texts, weights)
        if last is None:
            vectors = self._vectors.get_all(texts, self._made, weights)
            last = self._last.get(texts, lambda: torch.stack(vectors), weights)
        return last

    def _made(self, texts: list[str]) -> list[Tensor]:
        """Vectors of texts, read from the disk or made, and then written there, in parts."""
        stored: dict[str, Tensor] = {}
        if self.cache is not None:
            stored = self.store.get(texts)
        device = next(self.parameters()).device
        missing = sorted((text for text in texts if text not in stored), key=len)
        for at in range(0, len(missing), TEXTS_AT_ONCE):
            part = missing[at : at + TEXTS_AT_ONCE]
            vectors = self._run(part)
            if self.cache is not None:
                self.store.put(part, vectors)
            stored.update(zip(part, vectors, strict=True))
        return [stored[text].to(device) for text in texts]

    @property
    def store(self) -> VectorStore:
        """Vectors on disk that these weights make; there must be a folder for them."""
        return self._stores.get("store", self._open_store, weights_of(self))

    def _open_store(self) -> VectorStore:
        assert self.cache is not None
        made = (self.fingerprint(), self.pooling, self.limit, self.fuse_layers, len(self.tokenizer))
        key = hashlib.sha256(repr(made).encode()).hexdigest()[:32]
        size = self.encoder.config.hidden_size if self.projection is None else self.projection.out_features
        where = f"{self.section.rpartition('.')[0]}.label_cache"
        return VectorStore(Path(self.cache), key, size, where)

    def _run(self, texts: Sequence[str]) -> Tensor:
        pieces, device = self.cut(texts), next(self.encoder.parameters()).device
        return self.embed(pieces["input_ids"].to(device), pieces["attention_mask"].to(device))

    def cut(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the pieces of texts, padded, on the CPU: ``input_ids`` and ``attention_mask``, ``(texts, pieces)``."""
        cut = self._rust.encode_batch(list(texts))
        return {
            "input_ids": torch.tensor([one.ids for one in cut]),
            "attention_mask": torch.tensor([one.attention_mask for one in cut]),
        }

    def embed(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors of texts that were cut into pieces, ``(texts, pieces)`` to ``(texts, hidden)``."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            output = self.encoder(
                input_ids=ids, attention_mask=mask, output_hidden_states=self.fuse_layers, return_dict=True
            )
        if self.fusion is not None:
            hidden = self.fusion([layer.float() for layer in output.hidden_states[1:]], mask)
        else:
            hidden = output.last_hidden_state.float()
        if self.projection is not None:
            hidden = self.projection(hidden)
        if self.pooling == "first":
            return hidden[:, 0]
        weight = mask[:, :, None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)

    def train(self, mode: bool = True) -> TextEmbedder:
        """Set the training mode; a frozen encoder stays without dropout."""
        super().train(mode)
        if self.freeze and self.encoder is not None:
            self.encoder.eval()
        return self

    # -- vectors that are kept -------------------------------------------------------------------------------------

    def fingerprint(self) -> str:
        """Return what tells these weights from others."""
        digest = hashlib.sha256()
        for name, parameter in self.named_parameters():
            digest.update(name.encode())
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()

    def save_vectors(self, path: Path) -> None:
        """Write the vectors that are kept to a safetensors file, with the fingerprint of the weights."""
        from safetensors.torch import save_file

        kept = self._vectors.items(weights_of(self))
        names = list(kept)
        vectors = torch.stack(list(kept.values())) if kept else torch.zeros(0, 0)
        listed = torch.frombuffer(bytearray("\0".join(names).encode("utf8") or b"\0"), dtype=torch.uint8)
        content = {"vectors": vectors.cpu().contiguous(), "texts": listed}
        about = {"weights": self.fingerprint(), "format": "gliner_pipe label vectors 1"}
        with replace_file(path, follow=False) as file:
            save_file(content, file, metadata=about)

    def load_vectors(self, path: Path) -> int:
        """Take the vectors that ``save_vectors`` wrote and return how many there are.

        Raises
        ------
        CheckpointError
            When they were made by other weights.
        """
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            made_by = (file.metadata() or {}).get("weights")
            if made_by != self.fingerprint():
                raise CheckpointError(
                    f"{path}: the label vectors were made by other weights than those of this model. Make them again."
                )
            vectors = file.get_tensor("vectors")
            names = bytes(file.get_tensor("texts").tolist()).decode("utf8").split("\0")
        if not len(vectors):
            return 0
        read = dict(zip(names, vectors.to(next(self.parameters()).device).unbind(0), strict=True))
        self._vectors.get_all(names, lambda new: [read[name] for name in new], weights_of(self))
        return len(names)
