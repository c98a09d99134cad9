"""Reads JSON files from outside, and checks their content against a schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gliner_pipe.errors import CheckpointError, shortened

Schema = TypeVar("Schema", bound=BaseModel)

#: Largest size of a JSON file with settings, in bytes.
MOST_BYTES = 64 << 20


def read_object(path: Path, do: str = "Download or save it again") -> dict[str, Any]:
    """Return the content of a file that holds one JSON object.

    Parameters
    ----------
    path
        The file.
    do
        What to do about a file that does not.

    Raises
    ------
    CheckpointError
        If it is missing or too large, is no JSON, or holds no object.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise CheckpointError(
                f"{path}: has {size >> 20} MiB; allowed: settings of up to {MOST_BYTES >> 20} MiB. {do}."
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {do}.") from None
    except (ValueError, RecursionError) as error:
        reason = (
            "its values are nested too deeply" if isinstance(error, RecursionError) else shortened(str(error))
        )
        raise CheckpointError(f"{path}: no valid JSON ({reason}). {do}.") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: found {type(content).__name__}; allowed: a JSON object. {do}.")
    return content


def check(kind: type[Schema], content: Mapping[str, Any], where: object) -> Schema:
    """Return the content of a file as an object of a schema.

    Parameters
    ----------
    kind
        The schema: keys with types and ranges.
    content
        The values.
    where
        The file, for errors.

    Raises
    ------
    CheckpointError
        For the first key with a value that is not allowed.
    """
    try:
        return kind.model_validate(dict(content))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    # a value of one of several types has a problem for each: their names follow that of the key
    first = next((one for one in problems if one["type"] == "missing"), problems[0])
    key = ".".join(str(part) for part in first["loc"][: _depth(first["loc"], content)])
    if first["type"] == "missing":
        raise CheckpointError(f"{where}: has no {key}; allowed: a value. Download or save the files again.")
    allowed = dict.fromkeys(
        one["msg"].removeprefix("Input should be ").removeprefix("Value error, ").partition(", unable")[0]
        for one in problems
        if one["loc"][0] == first["loc"][0]
    )
    found = shortened(json.dumps(first["input"], default=str), 80)
    raise CheckpointError(
        f"{where}: has {key} = {found}; allowed: {', or '.join(allowed)}. Correct it, or download it again."
    )


def _depth(loc: tuple[Any, ...], content: Any) -> int:
    """Return how many parts of the place of a problem are keys of the content."""
    for depth, part in enumerate(loc):
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return max(depth, 1) if depth else 1
    return len(loc)
