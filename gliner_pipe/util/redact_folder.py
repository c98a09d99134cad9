"""Redacts the secrets in the text files of a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from gliner_pipe.util.secrets import (
    MARK,
    is_secret,
    redact_entry,
    redacted,
    redacted_config,
    redacted_forms,
    tell_redacted,
)

#: Maximum size in bytes; larger files are data.
_LIMIT = 16 * 1024**2
#: Files of vocabularies, in which no word may change.
VOCABULARIES = frozenset(
    (
        *("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json", "strings.json"),
        *("special_tokens_map.json", "labels.json"),
    )
)


def redact_folder(folder: Path, names: Iterable[str] | None = None) -> None:
    """Redact the secrets in the text files of a folder and its subfolders, and log which settings they were.

    Vocabularies of tokenizers and binary files are not changed. A changed file is replaced: other hard links keep the
    old content.

    Parameters
    ----------
    folder
        The folder.
    names
        Restricts the redaction to files with these names.
    """
    wanted = None if names is None else set(names)
    for path in sorted(folder.rglob("*")):
        if path.name in VOCABULARIES or (wanted is not None and path.name not in wanted):
            continue
        how = _forms_file if path.name == "tokenizer_config.json" else _FILES.get(path.suffix)
        if how is None or not path.is_file() or path.stat().st_size > _LIMIT:
            continue
        try:
            text = path.read_bytes().decode("utf8")
        except UnicodeDecodeError:
            continue
        found: list[str] = []
        new = how(text, found)
        if new != text:
            path.unlink()  # it may be a hard link to the user's file
            path.write_bytes(new.encode("utf8"))
            tell_redacted(path.relative_to(folder).as_posix(), found)


def _json_file(text: str, found: list[str]) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return redact_entry(text, "", found)
    new = redacted("", value, found)
    return json.dumps(new, ensure_ascii=False, indent=2) + "\n" if found else text


def _forms_file(text: str, found: list[str]) -> str:
    """Redact by form only: in data and code, names do not identify secrets."""
    return redact_entry(text, "", found, redacted_forms)


def _yaml_file(text: str, found: list[str]) -> str:
    """Redact the scalars of a YAML file in place; comments and layout are unchanged."""
    new = text
    for match in reversed(list(_YAML.finditer(text))):
        value = match[3].strip()
        plain = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'" else value
        if plain and is_secret([match[1].strip("'\" ")], plain):
            found.append(match[1])
            new = new[: match.start(3)] + f'"{MARK}"' + new[match.end(3) :]
    return redact_entry(new, "", found)


def _card_file(text: str, found: list[str]) -> str:
    """Redact a Markdown text, its front matter and its code blocks with configs."""
    return re.sub(
        r"(?s)(\A---\n)(.*?)(\n---)|(```(?:ini|cfg|toml)\n)(.*?)(```)",
        lambda match: (
            match[1] + _yaml_file(match[2], found) + match[3]
            if match[1]
            else match[4] + redacted_config(match[5], found) + match[6]
        ),
        redact_entry(text, "", found),
    )


_YAML = re.compile(r"(?m)^[ \t-]*([\w.\"'-]+)[ \t]*:([ \t]+)([^\n#|>&*{\[][^\n]*?)(?=[ \t]*(?:#.*)?$)")
_FILES: dict[str, Callable[[str, list[str]], str]] = {
    ".json": _json_file,
    ".md": _card_file,
    **dict.fromkeys((".yml", ".yaml"), _yaml_file),
    **dict.fromkeys((".cfg", ".ini", ".toml", ".env"), redacted_config),
    **dict.fromkeys((".txt", ".log", ".jsonl", ".csv", ".tsv", ".py", ".rst"), _forms_file),
}
