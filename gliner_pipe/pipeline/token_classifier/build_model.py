"""A tagger's model made of a few settings, where the config has no ``[model]`` section."""

from __future__ import annotations

from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones.base import Backbone
from gliner_pipe.modeling.backbones.stacked import stack_of
from gliner_pipe.modeling.block import available, described
from gliner_pipe.modeling.decoders.tags import TagDecoder
from gliner_pipe.modeling.encoders.plain import PlainEncoder
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.registry import registry

MODES = ("joint", "independent", "marginal")
SCHEMES = ("io", "bio", "bioul", "biolu", "word")


def make_model(
    where: str, *, words: bool, embedding: Any, decoder: Any, mode: str | None, scheme: str | None
) -> TokenClassifier:
    """Make the blocks.

    Parameters
    ----------
    where
        Section of the component.
    words
        Whether each word has a label, and not each span.
    embedding
        The backbone; a transformer when None.
    decoder
        A block, or the name of one; when None ``crf`` for spans and ``softmax`` for words.
    mode, scheme
        Of the decoder that is made here; its own default when None.

    Raises
    ------
    ConfigError
        If a part is none, or `mode` or `scheme` are given beside a decoder block.
    """
    if embedding is None:
        embedding = registry.backbones.get("transformer")()
    if not isinstance(embedding, Backbone):
        allowed = f"@backbones = {', '.join(available('backbones'))}"
        raise ConfigError(f"{where}.embedding", f"found {described(embedding)}", allowed)
    stated = {"mode": mode, "scheme": scheme}
    for name, value, choices in (("mode", mode, MODES), ("scheme", scheme, SCHEMES)):
        if value is not None and value not in choices:
            raise ConfigError(f"{where}.{name}", f"found {value!r}", ", ".join(choices))
        if value is not None and isinstance(decoder, TagDecoder):
            raise ConfigError(
                f"{where}.{name}",
                "is set beside a decoder",
                "null",
                f"Write it into [{where}.decoder]",
            )
    if decoder is None:
        decoder = "softmax" if words else "crf"
    if isinstance(decoder, str):
        names = _tag_decoders()
        if decoder not in names:
            raise ConfigError(f"{where}.decoder", f"found {decoder!r}", ", ".join(names))
        options = {name: value for name, value in stated.items() if value is not None}
        if words:
            options.setdefault("scheme", "word")
        if decoder == "softmax" and mode == "marginal":
            raise ConfigError(
                f"{where}.mode", "found 'marginal' with softmax", "joint, independent", "Take crf"
            )
        decoder = registry.decoders.get(decoder)(**options)
    if not isinstance(decoder, TagDecoder):
        allowed = f"@decoders = {', '.join(_tag_decoders())}"
        raise ConfigError(f"{where}.decoder", f"found {described(decoder)}", allowed)
    return TokenClassifier(PlainEncoder(embedding), decoder)


def bottom_section(model: Any) -> str:
    """Return the section of the backbone that stands on no other."""
    return ".embedding" * len(stack_of(model.encoder.backbone))


def _tag_decoders() -> list[str]:
    """Names of the decoders of tags, those of other packages included."""
    return [name for name in available("decoders") if issubclass(registry.decoders.get(name), TagDecoder)]
