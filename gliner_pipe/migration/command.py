"""Converts configuration files of other systems, of any kind, and accepts them on command lines."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import autotrain, gliner
from gliner_pipe.migration.migrated import Migrated
from gliner_pipe.migration.yaml_files import SUFFIXES, Document, read_yaml
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.console import console_note
from gliner_pipe.util.secrets import redacted_config, tell_redacted

#: Options on the command line that replace the number of epochs, or of steps, of a file.
_STEPS, _EPOCHS = {"max_steps", "num_steps"}, {"max_epochs", "num_train_epochs", "epochs"}


def to_config(source: Document | str | os.PathLike[str]) -> Migrated:
    """Convert the configuration of another system into one of this package.

    Parameters
    ----------
    source
        The file, or what :func:`~gliner_pipe.migration.yaml_files.read_yaml` returned for it.

    Raises
    ------
    ConfigError
        For the first mistake, with file, line and name.
    """
    document = source if isinstance(source, Document) else read_yaml(os.fspath(source))
    if document.shape == "own":
        found = "is a configuration of this package already"
        raise ConfigError(document.where(), found, do="Train from it without converting it")
    convert = autotrain.from_document if document.shape == "autotrain" else gliner.from_document
    return convert(document)


def convert_file(source: str | Path, target: str | Path) -> Migrated:
    """Save the configuration of another system as a cfg file, atomically, with notes as comments at the top.

    The source is a YAML or JSON file. Secrets in it are redacted.

    Raises
    ------
    ConfigError
        If `source` has a mistake (nothing is written then), or `target` is not a cfg file.
    """
    if Path(target).suffix != ".cfg":
        found = f"is {str(target)!r}, but the source is a configuration"
        raise ConfigError("target", found, "a file that ends in .cfg")
    migrated = to_config(source)
    redacted: list[str] = []
    text = redacted_config(migrated.to_cfg(), redacted)
    with replace_file(target) as path:
        path.write_text(text, encoding="utf-8")
    if redacted:
        tell_redacted(str(target), redacted)
    return migrated


def configured(argv: Sequence[str]) -> list[str]:
    """Replace configuration files of other systems on a command line by temporary cfg files.

    The notes of the conversion are printed. Other options on the command line keep their meaning; a number of steps
    replaces the number of epochs of the file, and the other way round.

    Returns
    -------
    list of str
        The arguments of ``python -m gliner_pipe.train``, with the new paths after ``--config``.

    Raises
    ------
    ConfigError
        For a mistake in such a file.
    """
    result: list[str] = []
    rest = list(argv)
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        if option != "--config" or not (joined or rest):
            result.append(option + joined + value)
            continue
        result += ["--config", _cfg_of(value if joined else rest.pop(0), argv)]
    return result


def _cfg_of(name: str, argv: Sequence[str]) -> str:
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        return name
    document = read_yaml(path)
    if document.shape == "own":
        return name
    migrated = to_config(document)
    options = {
        part.partition("=")[0].removeprefix("--").replace("-", "_").removeprefix("train.")
        for part in argv
        if part.startswith("--")
    }
    for given, replaced in ((_STEPS, "max_epochs"), (_EPOCHS, "max_steps")):
        if given & options:
            migrated.config["train"].pop(replaced, None)
    if os.environ.get("RANK", "0") == "0":
        for note in migrated.notes:
            console_note(f"note: {note}", stderr=True)
    handle, cfg = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".cfg")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(migrated.to_cfg())
    atexit.register(Path(cfg).unlink, missing_ok=True)
    return cfg
