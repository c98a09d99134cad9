"""Command lines that are given the configuration of another system."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.gliner import Migrated, to_config
from gliner_pipe.migration.yaml_files import SUFFIXES, read_yaml
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.secrets import redacted_config, redacted_text, tell_redacted


def convert_file(source: str | Path, target: str | Path) -> Migrated:
    """Write the configuration of another system as a cfg file, all at once, with notes at its head.

    Secrets in it are redacted.

    Parameters
    ----------
    source
        A YAML or JSON file.
    target
        The cfg file.

    Raises
    ------
    ConfigError
        If `source` holds a mistake (nothing is written then), or `target` is no cfg file.
    """
    if Path(target).suffix != ".cfg":
        raise ConfigError(
            "target", f"is {str(target)!r}", "a file that ends in .cfg, as its source is a config"
        )
    migrated = to_config(source)
    found: list[str] = []
    text = redacted_config(migrated.to_cfg(), found)
    with replace_file(target) as path:
        path.write_text(text, encoding="utf-8")
    if found:
        tell_redacted(str(target), found)
    return migrated


def configured(argv: Sequence[str]) -> list[str]:
    """Replace configuration files of other systems on a command line by cfg files made of them.

    The cfg files are temporary. Notes on what was read as what are printed. Options on the command line hold as ever;
    a number of steps there takes the place of the epochs of the file, and the other way round.

    Parameters
    ----------
    argv
        Arguments of ``python -m gliner_pipe.train``.

    Returns
    -------
    list of str
        The arguments, with other paths behind ``--config``.

    Raises
    ------
    ConfigError
        About a mistake in such a file.
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
        part.partition("=")[0].removeprefix("--").replace("-", "_") for part in argv if part.startswith("--")
    }
    for given, replaced in (
        ("max_steps", "max_epochs"),
        ("num_steps", "max_epochs"),
        ("max_epochs", "max_steps"),
        ("num_train_epochs", "max_steps"),
        ("epochs", "max_steps"),
    ):
        if {given, f"train.{given}"} & options:
            migrated.config["train"].pop(replaced, None)
    if os.environ.get("RANK", "0") == "0":
        for note in migrated.notes:
            print(f"note: {redacted_text(note)}", file=sys.stderr)  # noqa: T201
    handle, cfg = tempfile.mkstemp(prefix=f"{path.stem}-", suffix=".cfg")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(migrated.to_cfg())
    atexit.register(Path(cfg).unlink, missing_ok=True)
    return cfg
