"""The model card: what the pipeline finds, how well, how it was trained and how to use it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gliner_pipe.packaging.card_facts import front_matter, training_facts
from gliner_pipe.packaging.tables import table
from gliner_pipe.secrets import redacted_config, redacted_text


def model_card(
    meta: Mapping[str, Any],
    config: Mapping[str, Any],
    training_config: str | None,
    artifacts: str,
    repo_id: str | None = None,
) -> str:
    """Write the card in Markdown.

    Parameters
    ----------
    meta
        The package's ``meta.json``.
    config
        The pipeline's config, for the descriptions of the labels.
    training_config
        Text of the config that the pipeline was trained with; secrets in it are redacted.
    artifacts
        Name of the pipeline's folder inside the package.
    repo_id
        Where on a model hub the pipeline is; without it, the card is that of a package.

    Returns
    -------
    str
        A front matter that model hubs read, then the sections.
    """
    title = repo_id.rpartition("/")[2] if repo_id else meta["name"]
    training_config = None if training_config is None else redacted_config(training_config)
    sections = [
        front_matter(meta, config, training_config, str(title), bool(repo_id)),
        f"# {title}",
        meta["description"] or f"A spaCy pipeline for {meta['lang']!r}.",
        _facts(meta),
        "## What it finds",
        *_labels(meta, config),
        "## Scores",
        *_scores(meta["performance"]),
        "## Use",
        _usage(meta["name"], meta["version"]) if repo_id is None else _hub_usage(meta, repo_id),
        "## Training",
        *_training(training_config, artifacts),
        "## Licence",
        meta["license"] or "None is stated. Ask the author before you use or share it.",
    ]
    if meta.get("notes"):
        sections += ["## Notes", str(meta["notes"])]
    return redacted_text("\n\n".join(sections) + "\n")


def _facts(meta: Mapping[str, Any]) -> str:
    author = " ".join(part for part in (meta["author"], meta["email"] and f"<{meta['email']}>") if part)
    rows = {
        "Version": meta["version"],
        "Language": meta["lang"],
        "Components": ", ".join(f"`{name}`" for name in meta.get("components") or meta.get("pipeline", [])),
        "spaCy": f"`{meta['spacy_version']}`",
        "Also needs": ", ".join(f"`{item}`" for item in meta["requirements"]),
        "Author": author,
        "Home": meta["url"],
        "Sources": ", ".join(_source(item) for item in meta["sources"]),
    }
    return table(("", ""), [(f"**{key}**", value) for key, value in rows.items() if value])


def _source(source: Any) -> str:
    if not isinstance(source, Mapping):
        return str(source)
    name = str(source.get("name") or source.get("url"))
    text = f"[{name}]({source['url']})" if source.get("url") else name
    details = [str(source[key]) for key in ("license", "author") if source.get(key)]
    return f"{text} ({'; '.join(details)})" if details else text


def _labels(meta: Mapping[str, Any], config: Mapping[str, Any]) -> Iterator[str]:
    labels = {name: list(found) for name, found in meta.get("labels", {}).items() if found}
    if not labels:
        yield "Its components have no labels of their own."
    for component, names in labels.items():
        described = _descriptions(config.get("components", {}).get(component, {}).get("labels"))
        yield f"Component `{component}`, {len(names)} label{'s' if len(names) > 1 else ''}:"
        if described:
            rows = [(f"`{name}`", described.get(str(name), "")) for name in names]
            yield table(("Label", "Description"), rows)
        else:
            yield ", ".join(f"`{name}`" for name in names)


def _descriptions(labels: Any) -> dict[str, str]:
    items = [item for item in labels if isinstance(item, Mapping)] if isinstance(labels, list) else []
    return {str(item.get("label")): str(item["description"]) for item in items if item.get("description")}


def _scores(performance: Mapping[str, Any]) -> Iterator[str]:
    singles = list(_numbers(performance))
    tables = list(_tables(performance))
    for name, rows_of in tables:
        columns = list(dict.fromkeys(key for row in rows_of.values() for key in row))
        rows = [(f"`{label}`", *(_number(row.get(key)) for key in columns)) for label, row in rows_of.items()]
        yield f"By label and on average, `{name}`:"
        yield table(("", *columns), rows)
    if singles:
        yield table(("Figure", "Value"), [(f"`{name}`", _number(value)) for name, value in singles])
    if not singles and not tables:
        yield "None are stated."


def _numbers(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in scores.items():
        if _is_number(value):
            yield prefix + name, value
        elif isinstance(value, Mapping) and not _is_table(value):
            yield from _numbers(value, f"{prefix}{name}.")


def _tables(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, value in scores.items():
        if isinstance(value, Mapping) and _is_table(value):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _tables(value, f"{prefix}{name}.")


def _is_table(value: Mapping[str, Any]) -> bool:
    """Tell whether every value is a row of numbers, as in ``{"person": {"p": 0.9, "r": 0.8, "f": 0.85}}``."""
    return bool(value) and all(
        isinstance(row, Mapping) and row and all(_is_number(cell) or cell is None for cell in row.values())
        for row in value.values()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def _usage(name: str, version: str) -> str:
    return f"""```bash
pip install {name}-{version}-py3-none-any.whl
```

```python
import spacy

nlp = spacy.load("{name}")  # or: import {name}; nlp = {name}.load()
doc = nlp("Some text.")
for key, spans in [("ents", doc.ents), *doc.spans.items()]:
    for span in spans:
        print(key, span.text, span.label_)
```"""


def _hub_usage(meta: Mapping[str, Any], repo_id: str) -> str:
    needed = " ".join(f'"{item}"' for item in [f"spacy{meta['spacy_version']}", *meta["requirements"]])
    first, load = "import gliner_pipe", f'gliner_pipe.load("{repo_id}")'
    if not any(item.startswith("gliner_pipe") for item in meta["requirements"]):
        needed += " huggingface_hub"
        first = "import spacy\nfrom huggingface_hub import snapshot_download"
        load = f'spacy.load(snapshot_download("{repo_id}"))'
    return f"""```bash
pip install {needed}
```

```python
{first}

nlp = {load}
doc = nlp("Some text.")
for key, spans in [("ents", doc.ents), *doc.spans.items()]:
    for span in spans:
        print(key, span.text, span.label_)
```

It is a spaCy pipeline: `spacy.load` loads the folder that `huggingface_hub.snapshot_download("{repo_id}")` returns."""


def _training(config: str | None, artifacts: str) -> Iterator[str]:
    if config is None:
        place = (Path(artifacts) / "config.cfg").as_posix()
        yield f"The pipeline's own config is `{place}`. How it was trained is not stated."
        return
    if facts := training_facts(config):
        yield table(("", ""), [(f"**{name}**", f"`{value}`") for name, value in facts.items()])
    yield f"Trained with this config, data and settings included:\n\n```ini\n{config.strip()}\n```"
