"""The application of a command: a function that is also called from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import confit

from gliner_pipe.util.arguments import own_errors

#: Commands whose options are a section of the config with their name.
SECTIONS = ("train", "package")


class Cli(confit.Cli):  # type: ignore[misc]
    """A command line of confit, without the pages that typer makes of errors."""

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
