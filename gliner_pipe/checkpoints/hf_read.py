"""Reads Hugging Face token classification models: ``config.json``, weights and tokenizer."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from gliner_pipe.data.tags import OUTSIDE, split_tag_names
from gliner_pipe.errors import CheckpointError, ConfigError, GlinerPipeError, unreadable
from gliner_pipe.modeling.backbones import hf, hf_weights
from gliner_pipe.modeling.backbones.stacked import Dense
from gliner_pipe.modeling.backbones.transformer import Transformer
from gliner_pipe.modeling.backbones.windows import default_stride
from gliner_pipe.modeling.block import from_blocks
from gliner_pipe.modeling.decoders.tags import Scheme, TagTables
from gliner_pipe.modeling.token_classifier import TokenClassifier
from gliner_pipe.util import consent
from gliner_pipe.util.plurals import number_of

GENERIC = re.compile(r"(LABEL_)?\d+")


class TagNames(NamedTuple):
    """The tags of a model's outputs.

    Attributes
    ----------
    scheme
        Tag scheme of a decoder with these tags.
    labels
        Labels in the order of the outputs.
    places
        Output of each tag, by our name of the tag.
    names
        Name of each output.
    """

    scheme: Scheme
    labels: tuple[str, ...]
    places: dict[str, int]
    names: tuple[str, ...] = ()

    @property
    def is_ordered(self) -> bool:
        """Whether the outputs are named and ordered as the tags of a decoder with these labels are."""
        return list(self.names) == TagTables.make(self.scheme, self.labels, chain_per_label=False).names

    def rows(self, scheme: Scheme) -> list[int | None]:
        """Return the output of each tag of a decoder, in its order; None for a tag that the model lacks."""
        names = TagTables.make(scheme, self.labels, chain_per_label=False).names
        return [self.places.get(name) for name in names]


def read_tags(names: Sequence[str]) -> TagNames:
    """Parse the tag names of a model.

    Names may be written in any dialect of tags (``B-person``, ``B_person``, ``person-B``, ``b-person`` ...) with the
    prefixes of IO, BIO, BIOUL, BIOES or BMES, in any order; or labels without a prefix, with ``O`` (IO) or without (a
    label for each word). Outputs for padding (``<PAD>``) are not used.

    Parameters
    ----------
    names
        The name of each output.

    Raises
    ------
    ValueError
        If two outputs are the same tag, names look like tags and are none, or there is no label.
    """
    names = [name.strip() for name in names]
    outside = [place for place, name in enumerate(names) if name.upper() == OUTSIDE]
    parsed = {place: parts for place, parts in enumerate(split_tag_names(names)) if parts is not None}
    if not parsed or "" in names:
        raise ValueError(f"has no label ({', '.join(map(repr, names)) or 'nothing'})")
    labels = tuple(dict.fromkeys(label for _, label in parsed.values()))
    prefixes = {prefix for prefix, _ in parsed.values()}
    scheme: Scheme = (
        "word" if "W" in prefixes else "bioul" if prefixes & set("LU") else "bio" if "B" in prefixes else "io"
    )
    named = [(OUTSIDE, place) for place in outside]
    named += [
        (label if scheme == "word" else f"{prefix}-{label}", place)
        for place, (prefix, label) in parsed.items()
    ]
    doubles = [name for name, count in Counter(name for name, _ in named).items() if count > 1]
    if doubles:
        raise ValueError(f"has the tag {doubles[0]!r} twice")
    return TagNames(scheme, labels, dict(named), tuple(names))


CONFIG = "config.json"
#: Subword tokens in a window, for a model with a higher limit.
WINDOW = 510
#: Logit of a tag that a model lacks: a probability near 0, from which training can still recover.
UNSEEN = -30.0
_ALLOWED = (
    "a token classification model of transformers: a folder, an installed package that holds one, a hub id"
)
_PROBE = ["The", "quick", "brown", "fox", "of", "1984", "jumps", "over", "Zürich", ",", "and", "back", "."]


class Head(NamedTuple):
    """The layers of a token classification model after its encoder.

    Attributes
    ----------
    classifier
        The linear layer to the tags.
    dense
        Layer before it (ModernBERT) with ``dense``, ``act`` and ``norm``; None if there is none.
    dropout
        Dropout before the classifier.
    """

    classifier: nn.Linear
    dense: nn.Module | None
    dropout: float


def read_model(
    name: str,
    *,
    tag_names: Sequence[str] | Mapping[str, str] | None = None,
    any_names: bool = False,
    scheme: Scheme | None = None,
    constrained: bool = False,
    all_pieces: bool = False,
    window: int | None = None,
    stride: int | None = None,
    trust_remote_code: bool = False,
) -> TokenClassifier:
    """Compose the blocks of a token classification model and load its weights.

    Parameters
    ----------
    name
        A folder, an installed package that holds a model, or a hub id.
    tag_names
        The tags by output number, in place of those of the model's configuration.
    any_names
        Accept generic tag names (``LABEL_0``) as tags without a label; they are refused otherwise.
    scheme, constrained, all_pieces
        Options of the decoder; the scheme is that of the tags when None.
    window, stride
        Subword tokens in a window, and from one window to the next.
    trust_remote_code
        Run code that comes with the model.

    Raises
    ------
    ConfigError
        If it cannot be loaded, is not a token classification model, or its tags cannot be parsed.
    CheckpointError
        If it has layers without an equivalent block, or its scores differ from those of the blocks.
    """
    with unreadable(name):
        return _read_model(
            name, tag_names, any_names, scheme, constrained, all_pieces, window, stride, trust_remote_code
        )


def _read_model(
    name: str,
    tag_names: Sequence[str] | Mapping[str, str] | None,
    any_names: bool,
    scheme: Scheme | None,
    constrained: bool,
    all_pieces: bool,
    window: int | None,
    stride: int | None,
    trust_remote_code: bool,
) -> TokenClassifier:
    theirs, tokenizer, attention = _load(name, trust_remote_code)
    head = head_of(theirs, name)
    tags = _tags(theirs.config, tag_names, name, any_names)
    if scheme is not None and scheme != tags.scheme and not any_names:
        raise ConfigError(
            "model.scheme", f"found {scheme!r} for a model whose tags are in {tags.scheme!r}", "null"
        )
    blocks = _blocks(
        name,
        theirs,
        tokenizer,
        head,
        scheme or tags.scheme,
        constrained,
        all_pieces,
        window,
        stride,
        attention,
    )
    if tags.names and not tags.is_ordered:  # to write it with the same ids
        blocks["decoder"]["tag_names"] = list(tags.names)
    model = from_blocks(blocks)
    transformer_of(model).trust_remote_code = trust_remote_code  # consent is not saved with the blocks
    with tempfile.TemporaryDirectory() as folder:
        theirs.config.save_pretrained(folder + "/encoder/backbone")
        tokenizer.save_pretrained(folder + "/encoder/backbone")
        model.encoder.load_assets(Path(folder) / "encoder")
    model.make(tags.labels)
    _fill_encoder(transformer_of(model).encoder, theirs, name)
    _fill_head(model, head, tags)
    _compare(model.eval(), theirs.eval(), tags, name)
    return model


def read_encoder(name: str, trust_remote_code: bool = False) -> Any:
    """Return the encoder alone: the base of an adapter saved without it."""
    return transformer_of(read_model(name, any_names=True, trust_remote_code=trust_remote_code)).encoder


def is_model(folder: Path) -> bool:
    """Whether a folder holds a token classification model, according to its ``config.json``."""
    path = folder / CONFIG
    if not path.is_file():
        return False
    try:
        named = json.loads(path.read_text(encoding="utf8")).get("architectures")
    except (ValueError, AttributeError):
        return False
    return any(str(one).endswith("ForTokenClassification") for one in named or ())


# -- reading -----------------------------------------------------------------------------------------------------------


def _load(name: str, trust_remote_code: bool) -> tuple[Any, Any, str]:
    """Load model, tokenizer and the name of its attention; a model without a trained classifier is refused."""
    from transformers import AutoModelForTokenClassification

    folder = hf.locate(name)
    for marker, hint in (
        ("gliner_config.json", 'Use @factory = "gliner" for it'),
        ("meta.json", f"It is a spaCy pipeline: spacy.load({name!r})"),
    ):
        if folder is not None and (folder / marker).is_file() and not (folder / CONFIG).is_file():
            raise ConfigError("model", f"{name!r} has no {CONFIG}", _ALLOWED, hint)
    source = hf.source_of(name, "model")
    trusted = trust_remote_code or consent.is_given()
    options = {"dtype": torch.float32, "trust_remote_code": trusted}
    try:
        attention = hf.stated_attention(hf.config_dict(source))
        tokenizer = hf.tokenizer_of(source, trusted)
        model = hf.load_weights(
            AutoModelForTokenClassification, source, name, "model", options, refuse=partial(_refuse, name)
        )
    except GlinerPipeError:
        raise
    except hf_weights.FAILURES as error:
        raise hf.unloadable(error, name, "model", _ALLOWED) from error
    if not getattr(tokenizer, "is_fast", False):
        found = f"{name!r} has the tokenizer {type(tokenizer).__name__}, which does not map subword tokens to words"
        raise ConfigError("model", found, "models with a fast tokenizer (tokenizer.json)")
    if (extra := hf.missing_rows(model, tokenizer)) > 0:
        raise CheckpointError(
            f"{name}: its tokenizer has {extra} tokens more than its embeddings have rows. The tokenizer does not "
            "belong to these weights."
        )
    return model, tokenizer, attention


def _refuse(name: str, reason: str) -> ConfigError:
    do = 'For an encoder alone write [components.<name>.embedding] @backbones = "transformer"'
    return ConfigError("model", f"{name!r} is not a trained token classifier: it {reason}", _ALLOWED, do)


def head_of(model: Any, name: str) -> Head:
    """Return the layers of a model after its encoder."""
    parts = {
        key: part
        for key, part in model.named_children()
        if key != model.base_model_prefix and part is not None
    }
    linear = [part for part in parts.values() if isinstance(part, nn.Linear)]
    dropouts = [part.p for part in parts.values() if isinstance(part, nn.Dropout)]
    dense = [part for part in parts.values() if not isinstance(part, (nn.Linear, nn.Dropout))]
    known = all(sorted(key for key, _ in part.named_children()) == ["act", "dense", "norm"] for part in dense)
    if len(linear) != 1 or linear[0].out_features != model.config.num_labels or len(dense) > 1 or not known:
        shown = ", ".join(f"{key} ({type(part).__name__})" for key, part in parts.items())
        raise CheckpointError(
            f"{name}: {type(model).__name__} has {shown or 'nothing'} after its encoder. Allowed: dropout and a "
            "linear layer, optionally after a dense layer as in ModernBERT."
        )
    return Head(linear[0], dense[0] if dense else None, dropouts[0] if dropouts else 0.0)


def _tags(config: Any, given: Any, name: str, any_names: bool) -> TagNames:
    found = config.id2label if given is None else given
    if isinstance(found, Mapping):
        by_number = {int(number): str(tag) for number, tag in found.items()}
        names = [by_number.get(number, "") for number in range(config.num_labels)]
    else:
        names = [str(tag) for tag in found]
    allowed = f"the {config.num_labels} tags of the model, e.g. {['O', 'B-person', 'I-person']}"
    do = "Name them: tag_names of @architectures = gliner_pipe.PretrainedTokenClassifier.v1"
    if len(names) != config.num_labels or (given is not None and not all(names)):
        raise ConfigError(
            "model.tag_names", f"names {number_of(len(list(filter(None, names))), 'tag')}", allowed
        )
    if given is None and all(GENERIC.fullmatch(tag) or not tag for tag in names):
        if any_names:
            return TagNames("bio", ("LABEL",), {})
        raise ConfigError(
            "model", f"{name!r} does not name its tags ({', '.join(names[:3])} ...)", allowed, do
        )
    try:
        return read_tags(names)
    except ValueError as error:
        raise ConfigError("model.tag_names" if given else "model", f"{name!r} {error}", allowed, do) from None


def _blocks(
    name: str,
    model: Any,
    tokenizer: Any,
    head: Head,
    scheme: str,
    constrained: bool,
    all_pieces: bool,
    window: int | None,
    stride: int | None,
    attention: str,
) -> dict[str, Any]:
    """Return the configuration of the blocks."""
    limit = hf.max_positions(model.config, tokenizer)
    specials = sum(map(len, hf.special_pieces(tokenizer)))
    size = window or (WINDOW if limit is None else min(WINDOW, limit - specials))
    backbone: dict[str, Any] = {
        "@backbones": "transformer",
        "model": name,
        "window": size,
        "stride": stride or default_stride(size),
        "pooling": "first",
        "attn_implementation": attention,
    }
    if head.dense is not None:
        layer: Any = head.dense
        backbone = {
            "@backbones": "dense",
            "embedding": backbone,
            "activation": model.config.classifier_activation,
            "bias": layer.dense.bias is not None,
            "norm_bias": layer.norm.bias is not None,
            "norm_eps": layer.norm.eps,
        }
    return {
        "@architectures": "gliner_pipe.TokenClassifier.v1",
        "encoder": {"@encoders": "plain", "backbone": backbone},
        "decoder": {
            "@decoders": "softmax",
            "scheme": scheme,
            "constrained": constrained,
            "dropout": head.dropout,
            "all_pieces": all_pieces,
        },
    }


def transformer_of(model: TokenClassifier) -> Transformer:
    """Return the transformer backbone, without a dense layer over it."""
    backbone: Any = model.encoder.backbone
    found: Any = backbone.embedding if isinstance(backbone, Dense) else backbone
    return cast(Transformer, found)


def same_kind(model: Any, encoder: nn.Module) -> nn.Module | None:
    """Return the part of a token classification model with the class of `encoder`."""
    return next((part for part in model.base_model.modules() if type(part) is type(encoder)), None)


def _fill_encoder(encoder: nn.Module, model: Any, name: str) -> None:
    theirs = same_kind(model, encoder)
    if theirs is None:
        raise CheckpointError(f"{name}: {type(model).__name__} has no {type(encoder).__name__} inside.")
    missing, unexpected = encoder.load_state_dict(theirs.state_dict(), strict=False)
    own = dict(encoder.named_parameters())
    poolers = [key for key in missing if key.startswith("pooler.")]
    with torch.no_grad():
        for key in poolers:  # unused; zeroed so that saved files are reproducible
            own[key].zero_()
    if len(poolers) < len(missing) or unexpected:
        raise CheckpointError(
            f"{name}: the tensors do not match {type(encoder).__name__}. Missing: "
            f"{', '.join(missing) or 'none'}. Unexpected: {', '.join(unexpected) or 'none'}."
        )


def _fill_head(model: TokenClassifier, head: Head, tags: TagNames) -> None:
    backbone = model.encoder.backbone
    if head.dense is not None:
        parts: Any = (backbone, head.dense)
        for key in ("dense", "norm"):
            getattr(parts[0], key).load_state_dict(getattr(parts[1], key).state_dict())
    layer = model.decoder.project
    if not tags.places:  # generic names: the classifier is not used
        return
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(UNSEEN)
        for place, row in enumerate(tags.rows(model.decoder.scheme)):
            if row is not None:
                layer.weight[place] = head.classifier.weight[row]
                layer.bias[place] = 0.0 if head.classifier.bias is None else head.classifier.bias[row]


@torch.no_grad()
def _compare(model: TokenClassifier, theirs: Any, tags: TagNames, name: str) -> None:
    """Refuse a model whose scores differ from those of the blocks, since its code does more than its layers."""
    inputs = model.encoder.collate(model.prepare([_PROBE]))
    windows = inputs.windows
    logits = theirs(input_ids=windows.input_ids, attention_mask=windows.attention_mask).logits[0].float()
    rows = tags.rows(model.decoder.scheme)
    here = [place for place, row in enumerate(rows) if row is not None]
    read = windows.piece_count[0] > 0
    ours = model.emissions(inputs)[0, read, 0][:, here]
    wanted = logits[windows.piece_start[0, read]][:, [row for row in rows if row is not None]]
    if here and not torch.allclose(ours, wanted, atol=1e-3, rtol=1e-3):
        raise CheckpointError(
            f"{name}: {type(theirs).__name__} computes other scores than an encoder with a linear layer (maximum "
            f"difference {float((ours - wanted).abs().max()):.3g}), and no block is equivalent to it."
        )
