"""The settings of a component at run time: a mapping that refuses unknown names and values that are not allowed."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.precision import check_precision
from gliner_pipe.pipeline.config_errors import check_settings, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self


class CheckedSettings(UserDict[str, Any]):
    """Settings of a component by name; each assignment is checked.

    Parameters
    ----------
    settings
        All settings.
    kind
        Their types, ranges and defaults.
    where
        Section of the component, for errors.

    Raises
    ------
    ConfigError
        For an unknown setting, or a value that is not allowed, now and at each assignment.
    """

    def __init__(self, settings: Mapping[str, Any], kind: type[BaseModel], where: str) -> None:
        super().__init__()
        self._kind, self._where = kind, where
        self.data = self._checked(settings)

    def __setitem__(self, name: str, value: Any) -> None:
        self.data = self._checked({**self.data, name: value})

    def __ior__(self, other: Any) -> Self:  # type: ignore[misc, override]
        self.data = self._checked({**self.data, **other})
        return self

    def __delitem__(self, name: str) -> NoReturn:
        raise ConfigError(f"{self._where}.{name}", "cannot be removed", do="Set it to another value")

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"[{self._where}.{name}] is not a setting. {did_you_mean(name, self.data)}".strip())

    def _checked(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        checked = check_settings(self._kind, settings, self._where)
        check_precision(checked, self._where)
        return checked
