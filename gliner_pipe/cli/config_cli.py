"""The command line of commands that read a whole config: what they do not read is an error."""

from __future__ import annotations

import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from confit import Config
from confit.utils.xjson import Reference
from pydantic import TypeAdapter, ValidationError

from gliner_pipe.cli.application import Cli
from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.source import TRAIN_CONFIG
from gliner_pipe.pipeline.config_errors import allowed_values, did_you_mean
from gliner_pipe.pipeline.config_files import read_configs
from gliner_pipe.pipeline.expressions import paths_in
from gliner_pipe.training.arguments import TrainOptions
from gliner_pipe.util.console import console_note

#: Sections with the options of commands; each reads its own.
COMMANDS = ("train", "distill", "evaluate", "predict", "package", "convert", "export", "push")
#: Sections of the pipeline; not read where the pipeline is a saved one.
PIPELINE = ("nlp", "components")
#: Sections of spaCy's own training, and the keys of those that only hold values.
SPACY = ("corpora", "initialize", "paths", "pretraining", "system", "training")
SPACY_KEYS = ("train", "dev", "raw", "vectors", "init_tok2vec", "gpu_allocator", "seed")

Path_ = tuple[str, ...]


class ConfigCli(Cli):
    """A command line on which every section and variable of the config must be read by something."""

    def check(self, configs: Sequence[Config], paths: Sequence[Path]) -> None:
        """Check sections, variables and numbers.

        Raises
        ------
        ConfigError
            If nothing reads a section or a variable of the file or of the command line.
        """
        check_read(configs, _written(paths))
        _check_numbers(configs[-1])


def check_read(configs: Sequence[Mapping[str, Any]], written: Mapping[str, Any] = {}) -> None:
    """Check that something reads each section and variable of the last config.

    A variable counts as read if an earlier config reads it: options that replace it leave it in the file. Sections of
    spaCy that are not read are reported.

    Parameters
    ----------
    configs
        The config as the files add up, and at the end with the options of the command line.
    written
        What an earlier training wrote, which may hold variables that its command line had replaced.

    Raises
    ------
    ConfigError
        If nothing reads one.
    """
    config = configs[-1]
    read = {path[:2] for one in configs for path in _read(one)}
    sections = {path[0] for path in read}
    unread: list[str] = []
    for section, value in config.items():
        if section in COMMANDS:
            continue
        kept = written.get(section)
        old = list(kept) if isinstance(kept, Mapping) else []
        if section not in sections and section in (*PIPELINE, *SPACY):
            variables = value if section in ("paths", "system") and isinstance(value, Mapping) else ()
            if set(variables) <= {*SPACY_KEYS, *old}:
                unread.append(section)
                continue
        if section not in sections and section not in ("vars", *written):
            known = [*COMMANDS[:2], *PIPELINE, "scorer", "vars", *sections]
            raise ConfigError(
                section,
                "is a section that nothing reads",
                ", ".join(dict.fromkeys(known)),
                did_you_mean(section, known) or f"Refer to it, as ${{{section}}}, or remove it",
            )
        _check_keys(section, value, read, old)
    if unread and os.environ.get("RANK", "0") == "0":
        console_note(
            f"note: nothing reads the sections {', '.join(f'[{name}]' for name in unread)} of this config"
        )


def _check_keys(section: str, value: Any, read: set[Path_], old: Sequence[str]) -> None:
    """Check that something reads each key of a section."""
    if (section,) in read or not isinstance(value, Mapping):
        return
    used = sorted({path[1] for path in read if path[0] == section})
    for key in value:
        if key in used or key in old or (section in SPACY and key in SPACY_KEYS):
            continue
        raise ConfigError(
            f"{section}.{key}",
            "is a variable that nothing reads",
            ", ".join(used),
            did_you_mean(str(key), used) or f"Refer to it, as ${{{section}.{key}}}, or remove it",
        )


def _read(config: Mapping[str, Any]) -> Iterator[Path_]:
    """Yield the paths that the sections of commands hold and refer to, directly and indirectly."""
    seen = set()
    todo: list[tuple[Path_, Any]] = [((name,), config[name]) for name in COMMANDS if name in config]
    while todo:
        path, value = todo.pop()
        if path in seen:
            continue
        seen.add(path)
        yield path
        if isinstance(value, Reference):
            todo += [(parts, _at(config, parts)) for parts in paths_in(value)]
        elif isinstance(value, Mapping):
            todo += [((*path, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, (list, tuple)):
            todo += [((*path, str(number)), inner) for number, inner in enumerate(value)]


def _at(config: Mapping[str, Any], path: Path_) -> Any:
    found: Any = config
    for part in path:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _written(paths: Sequence[Path]) -> Config:
    """Return the sections that trainings wrote among the configs."""
    files = [path for path in paths if path.name == TRAIN_CONFIG]
    return read_configs(files)[-1] if files else Config()


def _check_numbers(config: Mapping[str, Any]) -> None:
    """Check what confit uses before it validates the options: the seed, and numbers in expressions."""
    section = config.get("train")
    plain = typing.get_type_hints(TrainOptions)
    hints = typing.get_type_hints(TrainOptions, include_extras=True)
    for name, value in section.items() if isinstance(section, Mapping) else ():
        kinds = {*(typing.get_args(plain.get(name)) or [plain.get(name)])} - {NoneType}
        if not kinds <= {int, float} or isinstance(value, Reference):
            continue
        if name != "seed" and not isinstance(value, (str, bool)):
            continue
        try:
            TypeAdapter(hints[name]).validate_python(value)
        except ValidationError:
            raise ConfigError(f"train.{name}", f"is {value!r}", allowed_values(hints[name])) from None
