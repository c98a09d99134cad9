"""AutoTrain's token classification: its parameters and its YAML files.

Examples
--------
>>> from gliner_pipe.migration.autotrain import TokenClassificationParams
>>> params = TokenClassificationParams(data_path="corpus", model="bert-base-cased", project_name="my-ner")
>>> migrated = params.to_config()
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from gliner_pipe.checkpoints.hf_read import TagNames, read_tags
from gliner_pipe.data.readers.cells import cell_of, is_one_word, list_cell
from gliner_pipe.data.readers.tables import BLANK_ROW, hub_tag_names, open_tables
from gliner_pipe.data.tag_lists import tags_by_id
from gliner_pipe.data.tags import OUTSIDE
from gliner_pipe.errors import ConfigError, GlinerPipeError
from gliner_pipe.migration.migrated import Migrated, assemble, pretrained_config
from gliner_pipe.migration.names import unknown
from gliner_pipe.migration.routing import Given, Routed, route
from gliner_pipe.migration.tables import PARAMETERS, TRAIN_READER, VAL_READER
from gliner_pipe.migration.values import TOKEN
from gliner_pipe.migration.yaml_files import Document

#: Share of local data that is held out for validation if no split is named, as in AutoTrain.
VALIDATION_SPLIT = 0.2
#: Learning rate of the new layers of a GLiNER model, relative to that of the encoder.
TASK_LR_RATIO = 4
#: Encoders whose token classification models have one more dense layer.
DENSE = ("modernbert",)

TASKS = ("token-classification", "text-token-classification", "ner")
#: Parameter of each key in a file, by section.
_KEYS: dict[tuple[str, ...], dict[str, str]] = {
    (): {"base_model": "model", "project_name": "project_name", "log": "log"},
    ("data",): {"path": "data_path", "train_split": "train_split", "valid_split": "valid_split"},
    ("data", "column_mapping"): {
        **dict.fromkeys(("tokens_column", "text_column"), "tokens_column"),
        **dict.fromkeys(("tags_column", "target_column", "label_column"), "tags_column"),
    },
    ("params",): {name: name for name in PARAMETERS},
    ("hub",): {name: name for name in ("username", "token", "push_to_hub")},
}
#: Keys of a file that are not parameters.
_OTHER_KEYS = ("task", "backend")
_ENVIRONMENT = re.compile(r"\$\{(\w+)\}")


@dataclass
class TokenClassificationParams:
    """Parameters of a training, with AutoTrain's names and defaults; only ``tag_names`` is our own.

    A script that was written for AutoTrain works with it; the documentation lists what each parameter becomes, on the
    page about migrating.

    Parameters
    ----------
    data_path
        File, folder, or data set of the hub.
    model
        The encoder; or a token classification model of transformers or a GLiNER model, to continue its
        training.
    project_name
        Folder of the trained model for transformers; it also holds the pipelines model-last and model-best.
    tokens_column
        Column of the words.
    tags_column
        Column of the tags.
    train_split
        Split of the data for training.
    valid_split
        Split of the data for validation; without it a fifth of local data is held out.
    max_samples
        Maximum training rows, spread evenly; validation takes a fifth as many.
    lr
        Peak learning rate.
    epochs
        Passes over the data.
    batch_size
        Examples per batch.
    max_seq_length
        Subword tokens per window; longer texts are read in several windows, none is truncated.
    warmup_ratio
        Share of the steps during which the learning rates rise.
    gradient_accumulation
        Batches per step.
    optimizer
        adamw_torch, adamw_hf, sgd or adafactor.
    scheduler
        linear, cosine, constant or polynomial.
    weight_decay
        Weight decay.
    max_grad_norm
        Maximum norm of the gradients; 0 disables clipping.
    seed
        Seed of new weights and the order of the data (AutoTrain never reads it).
    mixed_precision
        fp16, bf16 or none.
    auto_find_batch_size
        Split batches when memory runs out; the result is the same.
    logging_steps
        Steps between two log lines; -1 logs every step.
    eval_strategy
        When to validate and save: no (once, after the last step), steps or epoch.
    early_stopping_patience
        Validations without a better score after which training stops.
    early_stopping_threshold
        Minimum improvement that counts as better.
    push_to_hub
        Upload the model to the Hugging Face hub.
    username
        Owner of the model on the hub; its name is that of the project.
    token
        A token does not belong in a file. Set the environment variable HF_TOKEN, or run hf auth login once; a
        real token in a file is refused.
    save_total_limit
        Maximum number of checkpoints.
    log
        Tracker in addition to the console and the files.
    tag_names
        Tag names by number, if the data does not name them (AutoTrain has no such parameter).

    Raises
    ------
    ConfigError
        If a value is not allowed.
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
        if "data_path" not in route(self.given()).read:
            raise ConfigError("params.data_path", f"is {self.data_path!r}", "a file, a folder or a data set")

    def given(self) -> Iterator[Given]:
        """Yield the parameters with their rows, and the default for None; the token is left out."""
        for name, default in _defaults().items():
            item = Given(PARAMETERS[name], getattr(self, name), f"params.{name}")
            yield replace(item, value=default) if item.absent and default is not MISSING else item

    def to_config(self) -> Migrated:
        """Return the configuration that these parameters become."""
        migrated = _migrated(self.given(), "parameters of AutoTrain")
        if self.token:
            migrated.notes.append(f"the token is not read: {TOKEN}")
        return migrated


def _defaults() -> dict[str, Any]:
    return {item.name: item.default for item in fields(TokenClassificationParams) if item.name != "token"}


def from_document(document: Document) -> Migrated:
    """Return the configuration of a YAML file of AutoTrain.

    Raises
    ------
    ConfigError
        If the file is for another task, or a key or value is wrong.
    """
    task = str(document.data.get("task", TASKS[0])).replace("_", "-")
    if task not in TASKS:
        raise ConfigError(document.where("task"), f"is {document.data['task']!r}", TASKS[0])
    given = [item for item in _given(document) if not item.absent]
    set_names = {item.name.name for item in given}
    if "data_path" not in set_names:
        expected = "a file, a folder or a data set"
        raise ConfigError(document.where("data"), "has no path", expected, "Add path to data")
    given += [
        Given(PARAMETERS[name], default, f"{document.path} ({name}, by default)")
        for name, default in _defaults().items()
        if name not in set_names
    ]
    return _migrated(given, str(document.path))


def _given(document: Document, path: tuple[str, ...] = ()) -> Iterator[Given]:
    """Yield the values of a section and of the sections in it."""
    names = _KEYS[path]
    sections = [section[-1] for section in _KEYS if section and section[:-1] == path]
    known = [*(() if path else _OTHER_KEYS), *names, *sections]
    for key, value, where in document.items(*path, allowed=", ".join(known)):
        if key in names:
            value = value if names[key] == "token" else _with_environment(value, where)
            yield Given(PARAMETERS[names[key]], value, where)
        elif key in sections:
            yield from _given(document, (*path, key))
        elif key not in known:
            raise unknown(key, where, known, ", ".join(known))


def _with_environment(value: Any, where: str) -> Any:
    """Return a value with ``${NAME}`` replaced by the environment variable."""
    if not isinstance(value, str):
        return value
    for name in _ENVIRONMENT.findall(value):
        if name not in os.environ:
            raise ConfigError(
                where, f"names the environment variable {name}, which is not set", do=f"Set {name}"
            )
    return _ENVIRONMENT.sub(lambda match: os.environ[match.group(1)], value)


def _migrated(given: Iterable[Given], source: str) -> Migrated:
    routed = route(given)
    notes = routed.notes
    train = routed.options()
    train["output_path"] = str(train["output_path"])
    _add_data(train, routed)
    if "validation_interval" in train:
        train["checkpoint_interval"] = train["validation_interval"]
    _set_hub_model_id(train, routed)
    names = {"ner": "gliner_pipe.ner_exact", "seqeval": "gliner_pipe.seqeval"}
    scorers = {key: {"@scorers": name, "span_getter": "gliner"} for key, name in names.items()}
    name, window = str(routed.read["model"]), int(routed.read["max_seq_length"])
    if _is_gliner(name):
        notes.append("max_seq_length is not used: the GLiNER model has its own windows")
        train["task_lr"] = TASK_LR_RATIO * train["transformer_lr"]
        notes.append(
            f"task_lr = {train['task_lr']:g}: new layers learn {TASK_LR_RATIO} times as fast as the encoder"
        )
        component: dict[str, Any] = {"labels": [], "label_sampling": {"all_labels": True}, "model": name}
        return Migrated(assemble(component, scorers, train), source, notes)
    train["task_lr"] = train["transformer_lr"]  # AutoTrain has one rate for all weights
    train["transformers_path"] = train["output_path"]
    tags = _tags_of(train["train_data"]["reader"])
    component = {"labels": [] if tags is None else list(tags.labels), **_blocks(name, window, notes)}
    if tags is not None and "decoder" in component and tags.scheme == "bio" and not tags.is_ordered:
        component["decoder"]["tag_names"] = list(tags.names)  # exported with the ids of the data
    if tags is not None and tags.scheme == "word":
        notes.append('target = "tag_": the tags have no O, so each word has a label')
        component["target"] = "tag_"
        component["decoder" if "decoder" in component else "model"]["scheme"] = "word"
        for section in ("train_data", "val_data"):
            if section in train:
                train[section]["reader"]["scheme"] = "plain"
        scorers = {"tags": {"@scorers": "gliner_pipe.token_tags", "target": "tag_"}}
        if "best_metric" in train:
            train["best_metric"] = "tags.micro.f"
    return Migrated(assemble(component, scorers, train, "token_classifier"), source, notes)


def _add_data(train: dict[str, Any], routed: Routed) -> None:
    """Add the sections of data to training options, and remove options that need validation data if there is none."""
    reader = routed.within(TRAIN_READER)
    train["train_data"] = {"randomize": True, "reader": {"@readers": "bio", **reader}}
    if "valid_split" in routed.read:
        if glob.has_magic(reader["path"]) or Path(reader["path"]).expanduser().is_file():
            raise ConfigError(
                routed.place(f"{VAL_READER}.split"),
                "is set, but data_path has no splits",
                "a folder with train.csv and validation.csv, or a data set",
                "Leave valid_split out: a fifth of the data is held out then",
            )
        validation = {**reader, "split": routed.read["valid_split"]}
        if "max_samples" in reader:
            validation["max_samples"] = max(1, reader["max_samples"] // 5)
        train["val_data"] = {"reader": {"@readers": "bio", **validation}}
    elif _is_local(reader["path"]):
        train["validation_split"] = VALIDATION_SPLIT
        routed.notes.append(
            "validation_split = 0.2: there is no valid_split, so a fifth of the data is held out"
        )
    else:
        dropped = [name for name in ("patience", "patience_threshold") if train.pop(name, None)]
        routed.notes.append(f"{', '.join(dropped)}: not set, because there is no valid_split")
        return
    train["best_metric"] = "ner.micro.f"
    train["load_best_model_at_end"] = True


def _is_local(path: str) -> bool:
    """Return whether the data are on this machine."""
    return glob.has_magic(path) or Path(path).expanduser().exists()


def _tags_of(reader: Mapping[str, Any]) -> TagNames | None:
    """Return the tags of data: those that it names, or if none of the rows of local data has an O, those of all rows.

    None for tags without names whose ids say nothing, and for data that cannot be read, as the training reports.
    """
    column, where = reader["tags_column"], (reader["path"], reader["split"])
    try:
        tables = open_tables(*where) if _is_local(reader["path"]) else []
        names = tables[0].tag_names if tables else partial(hub_tag_names, *where)
        named = tags_by_id(reader.get("tag_names") or names(column))
        if named is not None:
            by_id = {key: tag for key, tag in named.items() if isinstance(key, int)}
            return (
                read_tags([by_id[number] for number in sorted(by_id)]) if len(by_id) == len(named) else None
            )
        if not tables:
            return None
        found: set[str] = set()
        rows = (row for table in tables for row in table.rows((reader["tokens_column"], column)))
        for place, cells in rows:
            if cells is BLANK_ROW:
                continue
            cell = cell_of(cells, column)
            cell = [cell] if is_one_word(cell) else list_cell(place, column, cell)
            if not isinstance(cell, list) or not all(isinstance(tag, str) for tag in cell):
                return None
            found.update(cell)
            if OUTSIDE in found:
                return None
        tags = read_tags(sorted(found))
        return tags if tags.scheme == "word" else None
    except (GlinerPipeError, ValueError, OSError):
        return None


def _set_hub_model_id(train: dict[str, Any], routed: Routed) -> None:
    if not train.get("push_to_hub"):
        return
    if "username" not in routed.read:
        place = routed.place("train.push_to_hub")
        raise ConfigError(place, "is set, but username is not", do="Give username, the owner of the model")
    train["hub_model_id"] = f"{routed.read['username']}/{Path(train['output_path']).name}"


def _is_gliner(name: str) -> bool:
    from gliner_pipe.checkpoints.gliner_read import CONFIG
    from gliner_pipe.modeling.backbones.hf import locate

    folder = locate(name, CONFIG)
    return folder is not None and (folder / CONFIG).is_file()


def _blocks(name: str, window: int, notes: list[str]) -> dict[str, Any]:
    """Return the blocks of a tagger: over an encoder, or of the token classification model whose training continues."""
    from gliner_pipe.modeling.backbones.hf import max_positions, special_pieces
    from gliner_pipe.modeling.backbones.windows import default_stride

    encoder, tokenizer = pretrained_config(name, notes)
    limit = None if encoder is None else max_positions(encoder, tokenizer)
    if limit is not None:
        most = limit - sum(map(len, special_pieces(tokenizer)))
        if window > most:
            notes.append(f"window = {most}, the maximum of {name}; longer texts are read in several windows")
            window = most
    size = {"window": window, "stride": default_stride(window)}
    architectures = getattr(encoder, "architectures", None) or ()
    if any(str(one).endswith("ForTokenClassification") for one in architectures):
        notes.append(f"{name} is a token classifier: tags that the data has too keep their weights")
        model = {"@architectures": "gliner_pipe.PretrainedTokenClassifier.v1", "name": name, "labels": "data"}
        return {"model": {**model, "scheme": "bio", "all_pieces": True, **size}}
    embedding: dict[str, Any] = {"@backbones": "transformer", "model": name, **size}
    if encoder is not None and encoder.model_type in DENSE:  # before the classifier, as in transformers
        embedding = {"@backbones": "dense", "embedding": embedding}
    return {"embedding": embedding, "decoder": {"@decoders": "softmax", "scheme": "bio", "all_pieces": True}}
