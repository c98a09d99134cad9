"""The modules of an encoder to adapt, as one regular expression for their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from torch import nn

from gliner_pipe.errors import ConfigError

#: The index of a layer in the name of a module.
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def target_pattern(
    encoder: Any,
    targets: Sequence[str] | str | None,
    layers: Sequence[int] | None,
    where: str,
    kind: Literal["linear", "norm"] = "linear",
) -> str:
    """Return a regular expression that matches the names of the modules to adapt, and no others.

    Suffixes alone would also match the ``dense`` module of the pooler, which is not trained.

    Parameters
    ----------
    encoder
        A Hugging Face model.
    targets
        Suffixes of names, a regular expression for whole names, or None for all modules of this `kind` in the layers.
    layers
        Indices of the layers to adapt; None for all.
    where
        Section, for errors.
    kind
        Modules to adapt without `targets`.

    Raises
    ------
    ConfigError
        If the encoder has no such module or layer.
    """
    known = [name for name, module in encoder.named_modules() if _is(module, kind)]
    chosen = _inside(known) if targets is None else _chosen(encoder, targets, known, where)
    if layers is not None:
        numbers = sorted({int(found.group()) for name in chosen if (found := _NUMBER.search(name))})
        missing = [layer for layer in layers if layer not in numbers]
        if missing or not layers:
            there = (
                f"{numbers[0]} to {numbers[-1]}" if numbers else "none: the modules are outside of the layers"
            )
            raise ConfigError(f"{where}.layers", f"found {missing[0] if missing else 'no layer'}", there)
    number = r"\d+" if layers is None else f"(?:{'|'.join(map(str, sorted(set(layers))))})"
    pattern = "|".join(dict.fromkeys(_pattern(name, number) for name in chosen))
    if layers is None:  # the short pattern must not match other modules
        matched = {name for name, _ in encoder.named_modules() if re.fullmatch(pattern, name)}
        if matched != set(chosen):
            return "|".join(map(re.escape, chosen))
    return pattern


def _pattern(name: str, number: str) -> str:
    found = _NUMBER.search(name)
    if found is None:
        return re.escape(name)
    return f"{re.escape(name[: found.start()])}{number}{re.escape(name[found.end() :])}"


def _is(module: nn.Module, kind: str) -> bool:
    name = type(module).__name__
    return "norm" in name.lower() if kind == "norm" else isinstance(module, nn.Linear) or name == "Conv1D"


def _inside(names: list[str]) -> list[str]:
    return [name for name in names if _NUMBER.search(name)] or names


def _chosen(encoder: Any, targets: Sequence[str] | str, known: list[str], where: str) -> list[str]:
    names = [name for name, _ in encoder.named_modules() if name]
    if targets == "all-linear":
        return _inside(known)
    if isinstance(targets, str):
        try:
            found = [name for name in names if re.fullmatch(targets, name)]
        except re.error as error:
            raise ConfigError(
                f"{where}.target_modules", f"found {targets!r}, not a regular expression ({error})"
            ) from None
        if not found:
            raise _unmatched(f"the regular expression {targets!r}", known, where)
        return found
    for target in targets:
        if not any(_ends(name, target) for name in names):
            raise _unmatched(repr(target), known, where)
    if not targets:
        raise _unmatched("an empty list", known, where)
    chosen = [name for name in names if any(_ends(name, target) for target in targets)]
    return _inside(chosen)


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _unmatched(found: str, known: Iterable[str], where: str) -> ConfigError:
    ends = dict.fromkeys(_NUMBER.split(name, maxsplit=1)[-1].lstrip(".") for name in known)
    return ConfigError(
        f"{where}.target_modules",
        f"found {found}, which matches no module of the encoder",
        ", ".join(ends),
        "Omit it for all linear modules",
    )
