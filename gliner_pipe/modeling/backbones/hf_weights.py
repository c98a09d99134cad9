"""Loading Hugging Face models with their weights: shards, prefixes of wrappers, missing and unused tensors."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.version import Version

from gliner_pipe.errors import CheckpointError
from gliner_pipe.util.atomic import inside

logger = logging.getLogger(__name__)

#: What `transformers` and its libraries raise for a model that cannot be loaded: errors of all kinds.
FAILURES = (Exception,)
#: Names that wrappers put before the names of tensors: torch.compile, DataParallel, `peft`, training loops.
WRAPPERS = frozenset({"_orig_mod", "module", "model", "base_model"})
#: Largest number of names in a message.
SHOWN = 4


def listed(names: Iterable[str], shown: int = SHOWN) -> str:
    """Return the first names and the number of the others: ``a, b and 3 more``."""
    names = list(names)
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "") if names else "none"


def check_index(folder: Path) -> None:
    """Check the indices of sharded weights in a folder.

    Raises
    ------
    CheckpointError
        If an index cannot be read, or a file that it lists is missing or outside the folder.
    """
    for file in sorted(folder.glob("*.index*.json")):
        shards(file)


def shards(index: Path) -> list[Path]:
    """Return the files of sharded weights, in order.

    Parameters
    ----------
    index
        ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``, with a ``weight_map``.

    Raises
    ------
    CheckpointError
        If the index cannot be read, or a file that it lists is missing or outside the folder.
    """
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not an index of weight files ({error}).") from None
    files = [_inside(index.parent, name, index) for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise CheckpointError(
            f"{index}: lists {len(files)} weight files, of which {len(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing: {listed(missing)}. Download the model again."
        )
    return files


def _inside(folder: Path, name: object, index: Path) -> Path:
    """Return the path of a shard; in the hub's cache it is a link to the folder ``blobs`` of the same repository."""
    blobs = folder.parent.parent / "blobs"
    if folder.parent.name == "snapshots" and isinstance(name, str) and (folder / name).is_symlink():
        target = (folder / name).resolve()
        if target.parent == blobs.resolve():
            return inside(blobs, target.name, index) and folder / name
    return inside(folder, name, index)


def prefixes(missing: Collection[str], present: Collection[str]) -> list[str]:
    """Return the prefixes with which all `missing` names are among those `present`."""
    found: set[str] | None = None
    for name in missing:
        here = {other[: -len(name)] for other in present if other.endswith(f".{name}")}
        found = here if found is None else found & here
        if not found:
            break
    return sorted(found or ())


def is_wrapper(prefix: str, allowed: Collection[str] = ()) -> bool:
    """Return whether a prefix such as ``module.`` consists of names of wrappers and those `allowed` only."""
    return all(part in WRAPPERS or part in allowed for part in prefix.rstrip(".").split("."))


def load(
    kind: Any, source: str, name: str, refuse: Callable[[str], Exception] | None = None, **options: Any
) -> Any:
    """Load a model with ``from_pretrained``, and check that all its weights were read.

    Tensors under the prefix of a wrapper (``module.``) are recognized. Embeddings with more or fewer rows than the
    configuration says are read as they are. Both need version 5 of `transformers` and are refused with version 4.
    Tensors that the model does not have are counted in one warning.

    Parameters
    ----------
    kind
        ``AutoModel`` or another class of `transformers`.
    source
        Folder or hub id.
    name
        What the user called it, for messages.
    refuse
        Makes the error for missing weights from a sentence without a subject; a ``CheckpointError`` when None.
    options
        Arguments of ``from_pretrained``.

    Raises
    ------
    CheckpointError
        If weights are missing or have another shape.
    """
    model, report = _read(kind, source, options)
    found = prefixes(_needed(model, report), report["unexpected_keys"])
    if len(found) == 1 and is_wrapper(found[0], (model.base_model_prefix,)) and _is_version_5():
        options["key_mapping"] = {f"^{re.escape(found[0])}": ""}
        model, report = _read(kind, source, options)
        logger.info("%s: its tensors have the prefix %r, which is left out.", name, found[0])
    if (rows := _rows(model, report)) is not None:
        options = _resized(options, rows)
        model, report = _read(kind, source, options)
    missing = _needed(model, report)
    if wrong := sorted(_mismatched(report).items()):
        shown = [f"{key} {shapes[0]} instead of {shapes[1]}" if shapes else key for key, shapes in wrong]
        raise CheckpointError(
            f"{name}: {len(wrong)} tensors have another shape than its configuration says: {listed(shown, 2)}."
        )
    left = sorted(key for key in report["unexpected_keys"] if not key.endswith("position_ids"))
    if missing:
        why = reason(type(model).__name__, missing, left, found)
        raise CheckpointError(f"{name}: {why}") if refuse is None else refuse(why.rstrip("."))
    if left:
        logger.warning(
            "%s: %d tensors are not used by %s: %s.", name, len(left), type(model).__name__, listed(left)
        )
    return model


def _read(kind: Any, source: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    with quiet():
        model, report = kind.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    return model, report


def _needed(model: Any, report: Mapping[str, Any]) -> list[str]:
    """Return the missing weights, without those of parts that are not used: poolers, and decoders of encoders."""
    unused = r"(^|\.)pooler\."
    if getattr(model.config, "is_encoder_decoder", False):
        unused += r"|^decoder\.|^lm_head\."
    return sorted(name for name in report["missing_keys"] if not re.search(unused, name))


def _is_version_5() -> bool:
    """Whether `transformers` renames tensors correctly; version 4 leaves renamed weights uninitialized."""
    import transformers

    return Version(transformers.__version__) >= Version("5")


def _mismatched(report: Mapping[str, Any]) -> dict[str, tuple[Any, Any] | None]:
    """Return tensors whose shapes differ, with those in file and model, or None with version 4 of `transformers`."""
    return {
        one if isinstance(one, str) else one[0]: None
        if isinstance(one, str)
        else (tuple(one[1]), tuple(one[2]))
        for one in report["mismatched_keys"]
    }


def _rows(model: Any, report: Mapping[str, Any]) -> int | None:
    """Return the number of rows of the input embeddings in the file, if it is not that of the configuration."""
    table = model.get_input_embeddings()
    own = {name for name, weight in model.named_parameters() if table is not None and weight is table.weight}
    for name, shapes in _mismatched(report).items():
        if name in own and shapes is not None and shapes[0][1:] == shapes[1][1:]:
            return int(shapes[0][0])
    return None


def _resized(options: Mapping[str, Any], rows: int) -> dict[str, Any]:
    if (config := options.get("config")) is None:
        return {**options, "vocab_size": rows}
    config.vocab_size = rows
    return dict(options)


def reason(kind: str, missing: Collection[str], left: Collection[str], found: Collection[str]) -> str:
    """Return in one sentence why the weights of a model are incomplete.

    Parameters
    ----------
    kind
        The model.
    missing
        Weights without a tensor.
    left
        Tensors without a weight.
    found
        Prefixes with which the missing names are among the other ones.
    """
    if found:
        return (
            f"has tensors under the prefix {' or '.join(map(repr, found))}, which {kind} does not know "
            f"and none for {len(missing)} weights without it. Remove the prefix from the names."
        )
    if any(".lora_" in name or ".base_layer." in name for name in left):
        return (
            f"holds an adapter beside the weights that it changes ({listed(sorted(left), 1)}). Merge it first, with "
            "merge_and_unload of the package peft."
        )
    return (
        f"has no tensors for {len(missing)} weights of {kind}: {listed(missing)}. Tensors without a weight: "
        f"{listed(sorted(left))}."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars and loading reports of `transformers` inside the context."""
    from transformers.utils import logging as theirs

    shown, level = theirs.is_progress_bar_enabled(), theirs.get_verbosity()
    theirs.disable_progress_bar()
    theirs.set_verbosity(max(level, theirs.ERROR))
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if shown:
            theirs.enable_progress_bar()
