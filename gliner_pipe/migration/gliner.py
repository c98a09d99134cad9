"""GLiNER's configuration files, sectioned or flat, as a configuration of this package."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confit import Config
from confit.utils.xjson import Reference

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import gliner_model
from gliner_pipe.migration.gliner_data import data_sections
from gliner_pipe.migration.joining import join
from gliner_pipe.migration.names import Given, Name, Routed, route, unknown
from gliner_pipe.migration.tables import SECTIONS
from gliner_pipe.migration.tables.model import ADAPTER, MODEL, PEFT
from gliner_pipe.migration.yaml_files import Document, read_yaml

#: Options that need validation data.
_MEASURED = ("best_metric", "patience", "patience_threshold", "load_best_model_at_end", "validate_at_start")
#: What GLiNER trains with where nothing is said, and this package with something else.
_DEFAULTS = {"train.batch_size": "8 samples", "train.transformer_lr": 5e-5}
_DEFAULT_STEPS = 10_000


@dataclass
class Migrated:
    """A configuration that was made of another one.

    Parameters
    ----------
    config
        Complete: it can be written as a cfg file and trained from.
    source
        Where it came from.
    notes
        What the user should know: names that were read as others, and what was not taken over.
    """

    config: Config
    source: str
    notes: list[str] = field(default_factory=list)

    def to_cfg(self) -> str:
        """Return the text of the cfg file, with the notes at its head."""
        head = [f"# Made from {self.source}", *(f"# - {' '.join(note.split())}" for note in self.notes)]
        return "\n".join(head) + "\n\n" + str(self.config.to_cfg_str()).rstrip() + "\n"


def to_config(source: Document | str | os.PathLike[str]) -> Migrated:
    """Turn the configuration of another system into one of this package.

    Parameters
    ----------
    source
        The file, or what :func:`~gliner_pipe.migration.yaml_files.read_yaml` made of it.

    Raises
    ------
    ConfigError
        About the first key or value that cannot be, with file, line and name.
    """
    document = source if isinstance(source, Document) else read_yaml(os.fspath(source))
    if document.shape == "own":
        raise ConfigError(
            document.where(), "is a configuration of this package already", do="Train from it as it is"
        )
    if document.shape == "autotrain":
        from gliner_pipe.migration.autotrain import config_of_document

        return config_of_document(document)
    return _from_gliner(document)


def _from_gliner(document: Document) -> Migrated:
    notes: list[str] = []
    given = list(_given(document, notes))
    peft = [item for item in given if item.name in PEFT or item.name.target.startswith(ADAPTER)]
    others = [item for item in given if item not in peft]
    checked = _checked(others)
    routed = join(route(others))
    notes += _older(others) + routed.notes
    component = _component(document, checked, routed, peft, notes)
    train, data = _train(routed, notes), data_sections(document, checked, routed, notes)
    if "val_data" not in data:
        _unmeasured(train, notes)
    elif train.get("best_metric") is None:
        train["best_metric"] = "ner.micro.f"
    for section, entries in data.items():
        train[section] = entries
    if "model_name" not in checked and "prev_path" not in checked:
        raise ConfigError(document.where(), "names no model", "model_name, or prev_path", "Add model_name")
    scorers: dict[str, Any] = {"ner": {"@scorers": "gliner_pipe.ner_exact", "span_getter": "gliner"}}
    if "relations_layer" in checked:
        scorers["relations"] = {"@scorers": "gliner_pipe.relations", "spans_key": "gliner"}
    return Migrated(assemble(component, scorers, train), str(document.path), notes)


def assemble(
    component: Mapping[str, Any],
    scorers: Mapping[str, Any],
    train: Mapping[str, Any],
    factory: str = "gliner",
) -> Config:
    """Return a complete configuration with one component, named like its factory."""
    return Config(
        {
            "nlp": {"lang": "en", "pipeline": [factory], "components": Reference("components")},
            "components": {factory: {"@factory": factory, **component}},
            "scorer": dict(scorers),
            "train": {"nlp": Reference("nlp"), "scorer": Reference("scorer"), **train},
        }
    )


def _given(document: Document, notes: list[str]) -> Iterator[Given]:
    """Yield what the file says, and refuse what nobody knows."""
    if document.shape == "flat":
        names = {
            key: name for section in ("training", "data", "model") for key, name in SECTIONS[section].items()
        }
        for key, value in document.data.items():
            if key not in names:
                raise unknown(
                    key, document.where(key), list(names), "the keys of GLiNER's model, data and training"
                )
            yield Given(names[key], value, document.where(key))
        return
    for section, keys in document.data.items():
        if section not in SECTIONS:
            raise unknown(
                section, document.where(section), list(SECTIONS), f"the sections {', '.join(SECTIONS)}"
            )
        if keys is None:
            continue
        if not isinstance(keys, dict):
            raise ConfigError(
                document.where(section), f"is {keys!r}", "a section: keys with values, indented"
            )
        for key, value in keys.items():
            yield Given(
                _name_in(section, str(key), document, notes), value, document.where(section, str(key))
            )


def _name_in(section: str, key: str, document: Document, notes: list[str]) -> Name:
    if key in SECTIONS[section]:
        return SECTIONS[section][key]
    for other, names in SECTIONS.items():
        if key in names and "peft" not in (section, other):
            if other != "data":
                notes.append(f"{key} stands in {section} and is read as if it stood in {other}")
            return names[key]
    if section == "peft" and str(document.data["peft"].get("method", "lora")).lower() != "lora":
        return Name(key, ("GLiNER",), f"{ADAPTER}.options.{key}", "A setting of that method.")
    names = SECTIONS[section]
    everywhere = [*names, *(name for other in SECTIONS.values() for name in other)]
    current = [name for name, item in names.items() if item.fate == "option" and item.systems[0] != "EDS-NLP"]
    raise unknown(key, document.where(section, key), everywhere, ", ".join(current))


def _checked(given: list[Given]) -> dict[str, Any]:
    """Return the values by their foreign names, as they are read."""
    checked: dict[str, Any] = {}
    for item in given:
        if item.name.fate == "option" and not item.absent:
            route([item])
            checked[item.name.name] = item.name.read(item.value)
    return checked


def _older(given: list[Given]) -> list[str]:
    """Say what older names were read as."""
    return [
        f"{item.name.name} is an older name, read as {item.name.target}"
        for item in given
        if item.name.systems == ("GLiNER (older)",) and item.name.fate == "option" and not item.absent
    ]


def _component(
    document: Document, checked: Mapping[str, Any], routed: Routed, peft: list[Given], notes: list[str]
) -> dict[str, Any]:
    component: dict[str, Any] = {"labels": []}
    for target, value in routed.settings.items():
        section, _, key = target.removeprefix("components.gliner.").partition(".")
        if target.startswith("components.gliner.") and section != "model":
            if key:
                component.setdefault(section, {})[key] = value
            else:
                component[section] = value
    splitter = component.pop("word_splitter", None)
    if "prev_path" in checked:
        parts: dict[str, Any] = {}
        if adapter := gliner_model.adapter(peft, notes):
            parts["adapter"] = adapter
        if gliner_model.says_loss(routed):
            parts["loss"] = gliner_model.loss(routed, notes)
        component["model"] = checked["prev_path"]
        if parts:
            name = {"@architectures": "gliner_pipe.Pretrained.v1", "name": checked["prev_path"]}
            component["model"] = {**name, **parts}
        _not_read(checked, routed, notes, "adapter" in parts)
        if splitter:
            component["word_splitter"] = {"@word_splitters": splitter}
        return component
    component["word_splitter"] = {"@word_splitters": splitter or "whitespace"}
    config = {name.name: checked[name.name] for name in MODEL if name.name in checked}
    if "model_name" in config:
        component["model"] = gliner_model.model(config, document, routed, notes)
        if adapter := gliner_model.adapter(peft, notes):
            gliner_model.add_adapter(component["model"], adapter, notes)
    return component


def _not_read(checked: Mapping[str, Any], routed: Routed, notes: list[str], adapted: bool) -> None:
    """Say what a model that is gone on with decides itself, and keep its encoder as it is where that is asked for."""
    frozen = checked.get("fine_tune") is False or checked.get("freeze_token_rep") is True
    if frozen and adapted:
        notes.append(
            "fine_tune = false is what an adapter does anyway: of the encoder, its weights alone learn"
        )
    elif frozen:
        components = routed.settings.setdefault("train.freeze_components", [])
        components += [] if "text_encoder" in components else ["text_encoder"]
    names = []
    for item in routed.places.values():
        section, name = item.name.target.removeprefix("components.gliner.model").lstrip("."), item.name.name
        if (
            item.name.target.startswith("components.gliner.model")
            and section
            and not section.startswith("loss.")
            and name != "max_len"  # texts are split by it
            and checked.get(name) is not False
            and not (frozen and name == "freeze_token_rep")
        ):
            names.append(name)
    if names:
        notes.append(f"{', '.join(names)}: not read, the model that prev_path names has its own")


def _train(routed: Routed, notes: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = dict(_DEFAULTS)
    settings |= {key: value for key, value in routed.settings.items() if key.startswith("train.")}
    train: dict[str, Any] = {}
    for target, value in settings.items():
        name = target.removeprefix("train.")
        if "." not in name:
            train[name] = str(value) if isinstance(value, Path) else value
    if train.get("max_steps") and train.pop("max_epochs", None):
        notes.append("num_train_epochs is not used: max_steps comes before it, as in transformers")
    if not train.get("max_steps") and not train.get("max_epochs"):
        train["max_steps"] = _DEFAULT_STEPS
        notes.append(f"max_steps = {_DEFAULT_STEPS}, as GLiNER has it where no number of steps is given")
    if "transformer_lr" in train and "task_lr" not in train:
        train["task_lr"] = train["transformer_lr"]
        notes.append("task_lr is that of the encoder, as in GLiNER where no other is given")
    return train


def _unmeasured(train: dict[str, Any], notes: list[str]) -> None:
    """Take out what needs validation data."""
    found = [name for name in _MEASURED if train.pop(name, None)]
    if found:
        notes.append(f"{', '.join(found)}: not set, as there is no validation data")
