"""GLiNER's configuration files, in sections or flat."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import gliner_model
from gliner_pipe.migration.gliner_data import data_sections
from gliner_pipe.migration.migrated import Migrated, assemble
from gliner_pipe.migration.names import Name, unknown
from gliner_pipe.migration.routing import Given, Routed, route
from gliner_pipe.migration.tables import ADAPTER, EDSNLP, LOSS, NETWORK, SECTIONS
from gliner_pipe.migration.values import anything
from gliner_pipe.migration.yaml_files import Document

#: Options that need validation data.
_VALIDATED = ("best_metric", "patience", "patience_threshold", "load_best_model_at_end", "validate_at_start")
#: GLiNER's defaults that differ from those of this package.
_DEFAULTS = {"batch_size": "8 samples", "transformer_lr": 5e-5}
_DEFAULT_STEPS = 10_000


def from_document(document: Document) -> Migrated:
    """Return the configuration of a GLiNER file.

    Raises
    ------
    ConfigError
        For the first mistake.
    """
    notes: list[str] = []
    routed = route(_given(document, notes))
    if not {"model_name", "prev_path"} & routed.read.keys():
        raise ConfigError(document.where(), "names no model", "model_name, or prev_path", "Add model_name")
    notes += [
        f"{item.name.name} is an older name, read as {item.name.target}"
        for item in routed.places.values()
        if item.name.older
    ]
    notes += routed.notes
    component = _component(document, routed, notes)
    train, data = _train(routed, notes), data_sections(document, routed, notes)
    if "val_data" in data:
        train.setdefault("best_metric", "ner.micro.f")
    else:
        _drop_validated(train, notes)
    scorers: dict[str, Any] = {"ner": {"@scorers": "gliner_pipe.ner_exact", "span_getter": "gliner"}}
    if "relations_layer" in routed.read:
        scorers["relations"] = {"@scorers": "gliner_pipe.relations", "spans_key": "gliner"}
    return Migrated(assemble(component, scorers, {**train, **data}), str(document.path), notes)


def _given(document: Document, notes: list[str]) -> Iterator[Given]:
    """Yield the values of a file; a :class:`ConfigError` for an unknown section or key."""
    if document.shape == "flat":
        names = {**SECTIONS["training"], **SECTIONS["data"], **SECTIONS["model"]}
        for key, value, where in document.items():
            if key not in names:
                raise unknown(key, where, list(names), "the keys of GLiNER's model, data and training")
            yield Given(names[key], value, where)
        return
    for section, _, place in document.items():
        if section not in SECTIONS:
            raise unknown(section, place, list(SECTIONS), f"the sections {', '.join(SECTIONS)}")
        for key, value, where in document.items(section):
            yield Given(_name_in(section, key, document, notes), value, where)


def _name_in(section: str, key: str, document: Document, notes: list[str]) -> Name:
    """Return the row of a key; it may be one of another section, except of ``peft``."""
    if key in SECTIONS[section]:
        return SECTIONS[section][key]
    for other, names in SECTIONS.items():
        if key in names and "peft" not in (section, other):
            if other != "data":
                notes.append(f"{key} is in the section {section} and is read as part of the section {other}")
            return names[key]
    if section == "peft" and str(document.data["peft"].get("method", "lora")).lower() != "lora":
        return Name(key, f"{ADAPTER}.options.{key}", anything, "A setting of that method.")
    current = [
        name.name for name in SECTIONS[section].values()
        if name.fate == "option" and not name.older and name not in EDSNLP
    ]  # fmt: skip
    everywhere = [*SECTIONS[section], *(name for names in SECTIONS.values() for name in names)]
    raise unknown(key, document.where(section, key), everywhere, ", ".join(current))


def _component(document: Document, routed: Routed, notes: list[str]) -> dict[str, Any]:
    component: dict[str, Any] = {"labels": []}
    for target, value in routed.within("components.gliner").items():
        section, _, key = target.partition(".")
        if section == "model":
            continue
        if key:
            component.setdefault(section, {})[key] = value
        else:
            component[section] = value
    continued = "prev_path" in routed.read
    splitter = component.pop("word_splitter", None if continued else "whitespace")
    if splitter:
        component["word_splitter"] = {"@word_splitters": splitter}
    adapter = gliner_model.adapter(routed)
    if continued:
        component["model"] = _pretrained(routed, adapter, notes)
    else:
        component["model"] = gliner_model.model(document, routed, adapter, notes)
    return component


def _pretrained(routed: Routed, adapter: dict[str, Any] | None, notes: list[str]) -> str | dict[str, Any]:
    """Return the model that ``prev_path`` names, with the adapter and the loss of the file."""
    name = str(routed.read["prev_path"])
    changes: dict[str, Any] = {"adapter": adapter} if adapter else {}
    if routed.within(LOSS):
        changes["loss"] = gliner_model.loss(routed, notes)
    frozen = gliner_model.is_frozen(routed)
    if frozen and adapter:
        notes.append(
            "fine_tune = false is implied by an adapter: of the encoder, only the adapter is trained"
        )
    elif frozen:
        components = routed.settings.setdefault("train.freeze_components", [])
        components += [] if "text_encoder" in components else ["text_encoder"]
    unread = [
        item.name.name
        for item in routed.places.values()
        if item.name.target.startswith(f"{NETWORK}.")
        and not item.name.target.startswith((f"{LOSS}.", ADAPTER))
        and item.name.name != "max_len"  # texts are split by it
        and routed.read.get(item.name.name) is not False
        and not (frozen and item.name.name == "freeze_token_rep")
    ]
    if unread:
        notes.append(f"{', '.join(unread)}: not read, because the model of prev_path has its own")
    return {"@architectures": "gliner_pipe.Pretrained.v1", "name": name, **changes} if changes else name


def _train(routed: Routed, notes: list[str]) -> dict[str, Any]:
    train: dict[str, Any] = {**_DEFAULTS, **routed.options()}
    train = {name: str(value) if isinstance(value, Path) else value for name, value in train.items()}
    if train.get("max_steps") and train.pop("max_epochs", None):
        notes.append("num_train_epochs is not used: max_steps takes precedence, as in transformers")
    if not train.get("max_steps") and not train.get("max_epochs"):
        train["max_steps"] = _DEFAULT_STEPS
        notes.append(f"max_steps = {_DEFAULT_STEPS}, GLiNER's default without a number of steps or epochs")
    if "task_lr" not in train:
        train["task_lr"] = train["transformer_lr"]
        notes.append("task_lr is the learning rate of the encoder, GLiNER's default")
    return train


def _drop_validated(train: dict[str, Any], notes: list[str]) -> None:
    """Remove the options that need validation data."""
    dropped = [name for name in _VALIDATED if train.pop(name, None)]
    if dropped:
        notes.append(f"{', '.join(dropped)}: not set, because there is no validation data")
