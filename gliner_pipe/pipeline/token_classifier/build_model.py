"""Builds a tagger's model from a few settings, for a config without a ``[model]`` section."""

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
CHAINS = ("one", "per_label")


def make_model(
    where: str,
    *,
    words: bool,
    embedding: Any,
    decoder: Any,
    mode: str | None,
    scheme: str | None,
    chains: str | None,
) -> TokenClassifier:
    """Build the blocks.

    Parameters
    ----------
    where
        Section of the component.
    words
        Whether each word has a label, rather than each span.
    embedding
        The backbone; a transformer when None.
    decoder
        A block, or its name; None for ``crf`` on spans and ``softmax`` on words.
    mode, scheme, chains
        Options of a decoder given by name; its defaults when None.

    Raises
    ------
    ConfigError
        If a part is not a suitable block, or `mode`, `scheme` or `chains` is set together with a decoder block.
    """
    if embedding is None:
        embedding = registry.backbones.get("transformer")()
    if not isinstance(embedding, Backbone):
        allowed = f"@backbones = {', '.join(available('backbones'))}"
        raise ConfigError(f"{where}.embedding", f"found {described(embedding)}", allowed)
    stated = {"mode": mode, "scheme": scheme, "chains": chains}
    for (name, value), choices in zip(stated.items(), (MODES, SCHEMES, CHAINS), strict=True):
        if value is not None and value not in choices:
            raise ConfigError(f"{where}.{name}", f"found {value!r}", ", ".join(choices))
        if value is not None and isinstance(decoder, TagDecoder):
            raise ConfigError(
                f"{where}.{name}",
                "is set together with a decoder",
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
                f"{where}.mode", "found 'marginal' with softmax", "joint, independent", "Use crf"
            )
        if decoder == "softmax" and chains is not None:
            do = 'Set mode = "independent" for a chain for each label'
            raise ConfigError(f"{where}.chains", f"found {chains!r} with softmax", "null", do)
        decoder = registry.decoders.get(decoder)(**options)
    if not isinstance(decoder, TagDecoder):
        allowed = f"@decoders = {', '.join(_tag_decoders())}"
        raise ConfigError(f"{where}.decoder", f"found {described(decoder)}", allowed)
    return TokenClassifier(PlainEncoder(embedding), decoder)


def bottom_section(model: Any) -> str:
    """Return the section of the innermost backbone."""
    return ".embedding" * len(stack_of(model.encoder.backbone))


def _tag_decoders() -> list[str]:
    """Return the names of tag decoders, including those of other packages."""
    return [name for name in available("decoders") if issubclass(registry.decoders.get(name), TagDecoder)]
