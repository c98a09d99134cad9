"""The application of a command: a function that is also called from Python."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import confit
from confit import Config
from confit.errors import ConfitValidationError, patch_errors
from confit.utils.random import set_seed
from confit.utils.xjson import Reference, loads

from gliner_pipe.errors import ConfigError
from gliner_pipe.pipeline.config_errors import did_you_mean
from gliner_pipe.pipeline.config_files import read_configs
from gliner_pipe.pipeline.expressions import computed
from gliner_pipe.util.arguments import own_errors
from gliner_pipe.util.ranges import MOST_SEED

#: Commands whose options are a section of the config with their name.
SECTIONS = ("train", "package")


class Cli(confit.Cli):  # type: ignore[misc]
    """A command line of confit, without the pages that typer makes of errors.

    Config files and expressions are read by this package, which limits them.
    """

    def __init__(self) -> None:
        super().__init__(pretty_exceptions_enable=False)

    def command(
        self, name: str, *, where: str | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Return a decorator for the function of a command: in Python, wrong arguments raise our errors.

        Parameters
        ----------
        name
            Section of the config with the options.
        where
            What the errors put before the name of an argument, by default the section if a config is the usual place.
        options
            As for ``confit.Cli.command``.
        """
        decorate = super().command(name, **options)
        where = where if where is not None else name if name in SECTIONS else ""
        return lambda function: own_errors(decorate(function), where, stated=True)

    def run_command(
        self, name: str, command: dict[str, Any], config_path: Sequence[Path] | None, overrides: Sequence[str]
    ) -> Any:
        """Read the config and the options of the command line, and run the command.

        Raises
        ------
        ConfigError
            If a file or an option cannot be read, or an expression cannot be computed.
        """
        configs = self.configs(name, command, config_path or (), overrides)
        config = configs[-1]
        self.check(configs, config_path or ())
        plain = computed(config, config, "")
        if not isinstance(plain.get(name), Mapping):
            found = ", ".join(config) or "none"
            raise ConfigError(name, f"is no section of the config; found: {found}", "a section with options")
        model = command["validated"].model
        if "seed" in model.model_fields:
            self._set_seed(name, plain, model.model_fields["seed"].get_default(), command["registry"])
        try:
            options = Config(plain[name]).resolve(registry=command["registry"], root=plain)
            if "config_meta" in inspect.signature(command["fn"]).parameters:
                meta = {"config_path": config_path, "resolved_config": options, "unresolved_config": config}
                options = {**options, "config_meta": meta}
            return command["validated"](**options)
        except ConfitValidationError as error:
            error.raw_errors = patch_errors(error.raw_errors, (name,))
            raise

    def configs(
        self, name: str, command: Mapping[str, Any], paths: Sequence[Path], overrides: Sequence[str]
    ) -> list[Config]:
        """Return the configs as the files add up, and the last one with the options of the command line."""
        default = command["default_config"]
        configs = read_configs(paths)
        if default is not None and command["merge_with_default_config"]:
            configs = [Config(default).merge(config) for config in configs]
        last = configs[-1].copy() if configs else Config(default or {name: {}}).copy()
        apply_options(last, name, [*inspect.signature(command["fn"]).parameters], overrides)
        return [*configs, last]

    def check(self, configs: Sequence[Config], paths: Sequence[Path]) -> None:
        """Check what `configs` returned; nothing here."""

    def _set_seed(self, name: str, config: Config, default: Any, registry: Any) -> None:
        seed = config[name].get("seed", default)
        if isinstance(seed, Reference):
            seed = Config({"seed": seed}).resolve(registry=registry, root=config)["seed"]
        if seed is None:
            return
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
            allowed = f"a whole number from 0 to {MOST_SEED}"
            raise ConfigError(f"{name}.seed" if name in SECTIONS else "seed", f"is {seed!r}", allowed)
        set_seed(seed)


def parsed_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values of options by name, as confit reads them; an option without a value is true.

    Raises
    ------
    ConfigError
        If an argument is no option, and no value of one.
    """
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        option, joined, value = rest.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or not name or not all(name.split(".")):
            raise ConfigError(option or "=", "is no option", "--OPTION VALUE", "Options begin with --")
        if not joined:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        found[name] = loads(value)
    return found


def apply_options(config: Config, command: str, options: Sequence[str], overrides: Sequence[str]) -> None:
    """Set the options of a command line in a config.

    Parameters
    ----------
    config
        The config, which is changed.
    command
        Section of the options without a section.
    options
        Names of the command's options.
    overrides
        Arguments of the command line, without ``--config``.

    Raises
    ------
    ConfigError
        If an option belongs to no section.
    """
    for key, value in parsed_options(overrides).items():
        parts = key.split(".")
        if len(parts) == 1 or (parts[0] in options and parts[0] not in config):
            parts = [command, *parts]
        found: Any = config
        if parts[0] not in found:
            known = list(config)
            raise ConfigError(
                key, "is an option of no section", ", ".join(known), did_you_mean(parts[0], known)
            )
        for depth, part in enumerate(parts[:-1], 1):
            found = found.setdefault(part, Config())
            if not isinstance(found, Mapping):
                where, do = ".".join(parts[:depth]), ""
                if isinstance(found, Reference):
                    do = f"Set the option in the section that {found} refers to"
                raise ConfigError(key, f"is below [{where}], which is {found} and no section", do=do)
        found[parts[-1]] = value
