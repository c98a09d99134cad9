"""Compares a training with the checkpoint that it resumes: settings of the components, and data."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from spacy.language import Language
from spacy.training import Example
from spacy.util import load_config

from gliner_pipe.data.annotations import SpanSetter, gold_spans
from gliner_pipe.data.checks import CountedExamples, content_of
from gliner_pipe.errors import ConfigError

#: Settings of a model that may change while its weights keep their meaning: how it is trained and run, and where its
#: pretrained weights came from.
_FREE = re.compile(
    r"model\.((.+\.)?(dropout|window|stride|training_stride|max_width|max_tokens_per_device|freeze|dtype|save|negatives"
    r"|gradient_checkpointing|attn_implementation|trust_remote_code|quantization|[a-z_]*coef|blank_entity_prob"
    r"|max_new_tokens|constrained|n_best|labels)|encoder\.label_model|name|(.*\.)?model|(relation_)?loss(\..+)?)"
)
#: Settings that have no effect while another one of their section is null.
_NEEDS = {"embed_rel_token": "rel_token"}
#: Settings of a component that say nothing about what it learns.
_OF_THE_MACHINE = ("device", "batch_size", "compile", "dtype", "quantize")


class Change(NamedTuple):
    """A setting with its value in the checkpoint, and its value now."""

    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.path} was {_shown(self.old)} and is {_shown(self.new)}"


def check_settings(
    nlp: Language, names: Iterable[str], checkpoint: Path, note: Callable[[str], None]
) -> None:
    """Compare the settings of components with those in a checkpoint; tell what differs, once.

    Parameters
    ----------
    nlp
        The pipeline that is trained.
    names
        Its trained components.
    checkpoint
        Folder of the checkpoint.
    note
        Prints a line for the user.

    Raises
    ------
    ConfigError
        If the checkpoint lacks a component, or a setting of a model differs that gives its weights another meaning or
        shape. Defaults may differ between versions: such a setting must be written into the config.
    """
    saved = load_config(checkpoint / "config.cfg")["components"]
    for name in names:
        if name not in saved:
            raise ConfigError(
                "train.resume_from_checkpoint",
                f"is a training of the components {', '.join(saved)}, and the pipeline has {name!r}",
                "a checkpoint of the same components",
            )
        changes = list(changed(saved[name], nlp.config["components"][name]))
        fixed = [one for one in changes if one.path.startswith("model") and not _FREE.fullmatch(one.path)]
        if fixed:
            path, old, new = fixed[0]
            section, _, option = f"components.{name}.{path}".rpartition(".")
            others = f" (and {'; '.join(map(str, fixed[1:]))})" if len(fixed) > 1 else ""
            raise ConfigError(
                f"components.{name}.{path}",
                f"is {_shown(new)}, and {_shown(old)} in the checkpoint {checkpoint}{others}",
                f"{_shown(old)}, to resume this training",
                f"Write {option} = {_shown(old)} in [{section}], or start a new training",
            )
        told = [str(one) for one in changes if one.path not in _OF_THE_MACHINE]
        if told:
            note(
                f"warning: [train.resume_from_checkpoint] the settings of {name!r} differ from those of the "
                f"checkpoint: {'; '.join(told)}"
            )


def changed(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Yield the settings that two versions of a section both have, with different values.

    Parameters
    ----------
    old, new
        Two configs of a component.
    path
        Dotted path of both.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        blocks = [{key: value for key, value in one.items() if key.startswith("@")} for one in (old, new)]
        # settings that a block lacks have their defaults; other mappings are one value
        if blocks[0] != blocks[1] or (path and not any(blocks) and old.keys() != new.keys()):
            yield Change(path, old, new)
            return
        for key in old:
            if key in new and not (key in _NEEDS and new.get(_NEEDS[key]) is None):
                yield from changed(old[key], new[key], f"{path}.{key}" if path else key)
    elif isinstance(old, float) and isinstance(new, (int, float)):
        if not math.isclose(old, new, rel_tol=1e-9):
            yield Change(path, old, new)
    elif _listed(old) != _listed(new):
        yield Change(path, old, new)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def describe_data(examples: Iterable[Example], places: SpanSetter) -> str:
    """Return the size of annotated data and a checksum of texts and annotations, to tell other data apart."""
    if isinstance(examples, CountedExamples):
        counts = examples.gold_counts(places)
        size, checksum = (counts.documents, counts.tokens, counts.entities), counts.checksum
    else:
        digest, size = hashlib.sha256(), (0, 0, 0)
        for example in examples:
            doc = example.reference
            spans = gold_spans(doc, places)
            size = size[0] + 1, size[1] + len(doc), size[2] + len(spans)
            digest.update(content_of(doc, spans))
        checksum = digest.hexdigest()
    return "{} documents, {} tokens, {} entities, checksum {}".format(*size, checksum[:8])


def _shown(value: Any) -> str:
    """Return a value as a config writes it, shortened; of a block its name."""
    if isinstance(value, Mapping) and (block := [key for key in value if key.startswith("@")]):
        value = {block[0]: value[block[0]]}
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."
