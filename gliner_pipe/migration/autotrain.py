"""AutoTrain's token classification: its parameters, its YAML files, and a training with them.

Examples
--------
>>> from gliner_pipe.migration.autotrain import TokenClassificationParams, train
>>> params = TokenClassificationParams(data_path="corpus", model="bert-base-cased", project_name="my-ner")
>>> nlp = train(params)  # doctest: +SKIP
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.gliner import Migrated, assemble
from gliner_pipe.migration.gliner_model import pretrained_config
from gliner_pipe.migration.joining import join
from gliner_pipe.migration.names import Given, route, unknown
from gliner_pipe.migration.tables import PARAMETERS
from gliner_pipe.migration.tables.autotrain import BACKBONE
from gliner_pipe.migration.values import TOKEN
from gliner_pipe.migration.yaml_files import Document

#: Share of local data that is measured on where no split of it is named, as in AutoTrain.
VALIDATION_SPLIT = 0.2
#: What is new in a GLiNER model learns so many times as fast as the encoder.
TASK_LR_RATIO = 4
#: Encoders whose token classification models have one more layer.
DENSE = ("modernbert",)

TASKS = ("token-classification", "text-token-classification", "ner")
#: Sections of AutoTrain's files, and their keys by the parameter that each is.
_TOP = {"base_model": "model", "project_name": "project_name", "log": "log"}
_DATA = {"path": "data_path", "train_split": "train_split", "valid_split": "valid_split"}
_COLUMNS = {
    "tokens_column": "tokens_column",
    "text_column": "tokens_column",
    "tags_column": "tags_column",
    "target_column": "tags_column",
    "label_column": "tags_column",
}
_HUB = {name: name for name in ("username", "token", "push_to_hub")}
_ENVIRONMENT = re.compile(r"\$\{(\w+)\}")


@dataclass
class TokenClassificationParams:
    """Parameters of a training, by the names and with the defaults that they have in AutoTrain; ``tag_names`` is ours.

    Use it to run a script that was written for AutoTrain; what each becomes is in the documentation, on the page about
    moving here.

    Raises
    ------
    ConfigError
        If a value cannot be.
    """

    data_path: str
    model: str = "bert-base-uncased"
    project_name: str = "project-name"
    tokens_column: str = "tokens"
    tags_column: str = "tags"
    train_split: str = "train"
    valid_split: str | None = None
    max_samples: int | None = None
    lr: float = 5e-5
    epochs: float = 3
    batch_size: int = 8
    max_seq_length: int = 128
    warmup_ratio: float = 0.1
    gradient_accumulation: int = 1
    optimizer: str = "adamw_torch"
    scheduler: str = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42
    mixed_precision: str | None = None
    auto_find_batch_size: bool = False
    logging_steps: int = -1
    eval_strategy: str = "epoch"
    early_stopping_patience: int = 5
    early_stopping_threshold: float = 0.01
    push_to_hub: bool = False
    username: str | None = None
    token: str | None = field(default=None, repr=False)
    save_total_limit: int = 1
    log: str = "none"
    tag_names: list[str] | None = None

    def __post_init__(self) -> None:
        for item in self.given():
            if item.absent and item.name.name == "data_path":
                raise ConfigError(item.where, f"is {item.value!r}", "a file, a folder or a data set")
            route([item])

    def given(self) -> Iterator[Given]:
        """Yield the parameters with what they mean, the default for None; the token, which is not needed, left out."""
        for item in fields(self):
            if item.name != "token":
                given = Given(PARAMETERS[item.name], getattr(self, item.name), f"params.{item.name}")
                yield (
                    given
                    if not given.absent or item.default is MISSING
                    else replace(given, value=item.default)
                )

    def to_config(self) -> Migrated:
        """Return the configuration that these parameters stand for."""
        migrated = _migrated(list(self.given()), "parameters of AutoTrain")
        if self.token:
            migrated.notes.append(f"the token is not read: {TOKEN}")
        return migrated


def config_of_document(document: Document) -> Migrated:
    """Return the configuration that a YAML file of AutoTrain stands for.

    Raises
    ------
    ConfigError
        If it is about another task, or a key or value cannot be.
    """
    task = str(document.data.get("task", TASKS[0])).replace("_", "-")
    if task not in TASKS:
        raise ConfigError(document.where("task"), f"is {document.data['task']!r}", TASKS[0])
    given = [item for item in _from_document(document) if not item.absent]
    said = {item.name.name for item in given}
    if "data_path" not in said:
        raise ConfigError(
            document.where("data"), "has no path", "a file, a folder or a data set", "Add data: path"
        )
    defaults = {item.name: item.default for item in fields(TokenClassificationParams)}
    given += [
        Given(PARAMETERS[name], value, f"{document.path} ({name}, by default)")
        for name, value in defaults.items()
        if name not in said and name != "token"
    ]
    return _migrated(given, str(document.path))


def _from_document(document: Document) -> Iterator[Given]:
    for key, value in document.data.items():
        if key in ("task", "backend"):
            continue
        if key in _TOP:
            yield _item(_TOP[key], value, document, (key,))
        elif key not in ("data", "params", "hub"):
            known = ["task", "backend", *_TOP, "data", "params", "hub"]
            raise unknown(key, document.where(key), known, ", ".join(known))
        elif value is not None:
            if not isinstance(value, dict):
                raise ConfigError(
                    document.where(key), f"is {value!r}", "a section: keys with values, indented"
                )
            names = {"data": _DATA, "hub": _HUB, "params": {name: name for name in PARAMETERS}}[key]
            for name, inner in value.items():
                if key == "data" and name == "column_mapping":
                    if not isinstance(inner or {}, dict):
                        raise ConfigError(document.where(key, name), f"is {inner!r}", ", ".join(_COLUMNS))
                    for column, target in dict(inner or {}).items():
                        yield _known(_COLUMNS, column, target, document, (key, name, column))
                else:
                    yield _known(names, name, inner, document, (key, name))


def _known(
    names: Mapping[str, str], key: str, value: Any, document: Document, path: tuple[str, ...]
) -> Given:
    if key not in names:
        raise unknown(str(key), document.where(*path), list(names), ", ".join(names))
    return _item(names[key], value, document, path)


def _item(parameter: str, value: Any, document: Document, path: tuple[str, ...]) -> Given:
    where = document.where(*path)
    if isinstance(value, str) and parameter != "token":
        value = _ENVIRONMENT.sub(lambda match: _environment(match.group(1), where), value)
    return Given(PARAMETERS[parameter], value, where)


def _environment(name: str, where: str) -> str:
    if name not in os.environ:
        raise ConfigError(where, f"names the environment variable {name}, which is not set", do=f"Set {name}")
    return os.environ[name]


def _migrated(given: list[Given], source: str) -> Migrated:
    values = {item.name.name: item for item in given if not item.absent}
    routed = join(route([item for item in given if item.name.name != "username"]))
    notes = routed.notes
    settings = {
        key: str(value) if isinstance(value, Path) else value for key, value in routed.settings.items()
    }
    train = {
        key.removeprefix("train."): value
        for key, value in settings.items()
        if key.startswith("train.") and key.count(".") == 1
    }
    _sections(train, settings, values, notes)
    if "validation_interval" in train:
        train["checkpoint_interval"] = train["validation_interval"]
    _hub(train, values)
    names = {"ner": "gliner_pipe.ner_exact", "seqeval": "gliner_pipe.seqeval"}
    scorers = {key: {"@scorers": name, "span_getter": "gliner"} for key, name in names.items()}
    name, window = str(settings[f"{BACKBONE}.model"]), int(settings[f"{BACKBONE}.window"])
    if _is_gliner(name):
        notes.append("max_seq_length is not used: the GLiNER model has windows of its own")
        train["task_lr"] = TASK_LR_RATIO * train["transformer_lr"]
        notes.append(f"task_lr = {train['task_lr']:g}: what is new learns {TASK_LR_RATIO} times as fast")
        component: dict[str, Any] = {"labels": [], "label_sampling": {"all_labels": True}, "model": name}
        return Migrated(assemble(component, scorers, train), source, notes)
    train["task_lr"] = train["transformer_lr"]  # AutoTrain has one rate for all weights
    train["transformers_path"] = str(Path(train["output_path"]).parent)
    component = {"labels": [], **_blocks(name, window, notes)}
    return Migrated(assemble(component, scorers, train, "token_classifier"), source, notes)


def _sections(
    train: dict[str, Any], settings: Mapping[str, Any], values: Mapping[str, Given], notes: list[str]
) -> None:
    """Add the sections of data to the options of a training, and take out what needs data to measure on."""
    prefix = "train.train_data.reader."
    reader = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
    train["train_data"] = {"randomize": True, "reader": {"@readers": "bio", **reader}}
    if "valid_split" in values:
        if glob.has_magic(reader["path"]) or Path(reader["path"]).expanduser().is_file():
            raise ConfigError(
                values["valid_split"].where,
                "is set, and data_path is no data set with parts",
                "a folder with train.csv and validation.csv, or a data set",
                "Leave valid_split out: a fifth of the data is held out then",
            )
        validation = {**reader, "split": values["valid_split"].value}
        if "max_samples" in reader:
            validation["max_samples"] = max(1, reader["max_samples"] // 5)
        train["val_data"] = {"reader": {"@readers": "bio", **validation}}
    elif _is_local_table(reader["path"]):
        train["validation_split"] = VALIDATION_SPLIT
        notes.append("validation_split = 0.2: there is no valid_split, so a fifth of the data is held out")
    else:
        dropped = [name for name in ("patience", "patience_threshold") if train.pop(name, None)]
        notes.append(f"{', '.join(dropped)}: not set, as there is no valid_split")
        return
    train["best_metric"] = "ner.micro.f"
    train["load_best_model_at_end"] = True


def _is_local_table(path: str) -> bool:
    """Tell whether the data are files here, not a data set with named parts."""
    place = Path(path).expanduser()
    marks = ("dataset_dict.json", "dataset_info.json", "state.json")
    return glob.has_magic(path) or (place.exists() and not any((place / name).exists() for name in marks))


def _hub(train: dict[str, Any], values: Mapping[str, Given]) -> None:
    if not train.get("push_to_hub"):
        return
    if "username" not in values:
        raise ConfigError(
            values["push_to_hub"].where,
            "is set, and there is no username",
            do="Give username, the owner of the model",
        )
    project = Path(values["project_name"].value).name
    train["hub_model_id"] = f"{values['username'].value}/{project}"


def _is_gliner(name: str) -> bool:
    from gliner_pipe.checkpoints.gliner_read import CONFIG
    from gliner_pipe.modeling.backbones.hf import locate

    folder = locate(name, CONFIG)
    return folder is not None and (folder / CONFIG).is_file()


def _blocks(name: str, window: int, notes: list[str]) -> dict[str, Any]:
    """Return the blocks of a tagger: over an encoder, or those of a token classification model that is gone on with."""
    from gliner_pipe.modeling.backbones.hf import max_positions, special_pieces

    encoder, tokenizer = pretrained_config(name, notes)
    limit = None if encoder is None else max_positions(encoder, tokenizer)
    if limit is not None:
        most = limit - sum(map(len, special_pieces(tokenizer)))
        if window > most:
            notes.append(f"window = {most}: {name} takes no more; longer texts are read in several windows")
            window = most
    size = {"window": window, "stride": max(1, 2 * window // 3)}
    architectures = getattr(encoder, "architectures", None) or ()
    if any(str(one).endswith("ForTokenClassification") for one in architectures):
        notes.append(
            f"{name} is a token classifier: tags that it has in common with the data keep their weights"
        )
        model = {"@architectures": "gliner_pipe.PretrainedTokenClassifier.v1", "name": name, "labels": "data"}
        return {"model": {**model, "scheme": "bio", "all_pieces": True, **size}}
    embedding: dict[str, Any] = {"@backbones": "transformer", "model": name, **size}
    if encoder is not None and encoder.model_type in DENSE:  # as transformers has it before the classifier
        embedding = {"@backbones": "dense", "embedding": embedding}
    return {"embedding": embedding, "decoder": {"@decoders": "softmax", "scheme": "bio", "all_pieces": True}}
