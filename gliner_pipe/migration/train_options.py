"""Options of ``train()`` that are given under the names of other systems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration.names import Name, unknown
from gliner_pipe.migration.routing import Given, route
from gliner_pipe.migration.tables import OPTIONS
from gliner_pipe.pipeline.gliner.settings import DEFAULT_CONFIG as GLINER
from gliner_pipe.pipeline.token_classifier.settings import DEFAULT_CONFIG as TOKEN_CLASSIFIER

#: Settings of the components, which are no options of a training.
SETTINGS = {"gliner": GLINER, "token_classifier": TOKEN_CLASSIFIER}


def translate(
    options: Mapping[str, Any], known: Sequence[str], note: Callable[[str], None]
) -> dict[str, Any]:
    """Return training options under our names.

    Parameters
    ----------
    options
        Options that ``train()`` does not have, by their foreign names.
    known
        Options that it has.
    note
        Takes a line for the user.

    Raises
    ------
    ConfigError
        For an unknown option, a value that is not allowed, or an option of another section, which is named.
    """
    routed = route(_given(options, known))
    for line in routed.notes:
        note(f"note: {line}")
    sources: dict[str, list[str]] = {}
    for item in routed.places.values():
        sources.setdefault(item.name.target, []).append(item.name.name)
    for target, value in routed.settings.items():
        option = target.removeprefix("train.")
        names = sources.get(target, [option])
        if names != [option]:
            verb = "is" if len(names) == 1 else "are"
            note(f"note: {' and '.join(names)} {verb} read as {option} = {value}")
    return routed.options()


def _given(options: Mapping[str, Any], known: Sequence[str]) -> list[Given]:
    given = []
    for option, value in options.items():
        where = f"train.{option}"
        if option not in OPTIONS:
            components = [name for name, settings in SETTINGS.items() if option in settings]
            if components:
                do = f"Set {option} in the section of the component, as --components.NAME.{option} VALUE"
                found = f"is a setting of a component ({' or '.join(components)}) and no option of train"
                raise ConfigError(where, found, do=do)
            do = unknown(option, where, [*known, *OPTIONS]).do
            raise ConfigError(where, "is no option of train", "" if do else ", ".join(known), do)
        given.append(Given(OPTIONS[option], value, where))
        _check_section(OPTIONS[option], where)
    return given


def _check_section(name: Name, where: str) -> None:
    """Refuse an option that belongs to another section than ``[train]``."""
    section, _, key = name.target.rpartition(".")
    if name.fate == "option" and section != "train":
        found = f"is no option of train but of another section ({name.clause})"
        raise ConfigError(where, found, do=f"Set {key} in the section [{section}]")
