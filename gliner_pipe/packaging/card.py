"""The model card: labels, scores, usage, training data and settings, with a front matter for model hubs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confit import Config
from confit.utils.xjson import Reference

from gliner_pipe.evaluation.report import score_text
from gliner_pipe.util.secrets import redacted_config, redacted_text

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


#: Licences that the hub knows, by their SPDX identifier in lower case.
LICENSES = frozenset(
    (
        *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "isc", "zlib", "unlicense"),
        *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
        *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0", "cc-by-nd-4.0", "odbl", "pddl", "ofl-1.1"),
        *("agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "mpl-2.0", "osl-3.0"),
        *("artistic-2.0", "ecl-2.0", "epl-2.0", "eupl-1.1", "ms-pl", "postgresql", "wtfpl"),
    )
)
#: Settings of the training that the card shows in a table.
SETTINGS = (
    *("max_steps", "max_epochs", "batch_size", "gradient_accumulation_steps", "transformer_lr", "task_lr"),
    *("weight_decay", "optimizer", "schedule", "warmup_rate", "warmup_steps", "max_grad_norm"),
    *("mixed_precision", "ema_decay", "seed", "data_seed", "patience", "best_metric"),
)
#: Names of precision, recall and F1 in scores, and on a hub.
METRICS = {
    "p": "precision",
    "r": "recall",
    "f": "f1",
    **{name: name for name in ("precision", "recall", "f1")},
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_card(
    meta: Mapping[str, Any],
    config: Mapping[str, Any],
    training_config: str | None,
    artifacts: str,
    repo_id: str | None = None,
    transformers: str | None = None,
    has_own_wheel: bool = False,
) -> str:
    """Return the card in Markdown.

    Parameters
    ----------
    meta
        The package's ``meta.json``.
    config
        The pipeline's config, for the descriptions of the labels.
    training_config
        Text of the training config; secrets in it are redacted.
    artifacts
        Path of the pipeline's folder inside the package.
    repo_id
        Repository on a model hub; None for the card of a package.
    transformers
        Name under which `transformers` loads the model, too: a repository, or a folder that holds pipelines.
    has_own_wheel
        Whether the wheel of gliner_pipe lies beside that of the package.

    Returns
    -------
    str
        The front matter, then the sections.
    """
    title = repo_id.rpartition("/")[2] if repo_id else meta["name"]
    use = _package_usage(meta, has_own_wheel) if repo_id is None else _hub_usage(meta, repo_id)
    if transformers is not None:
        use = _transformers_usage(transformers, use if repo_id else "")
    training_config = None if training_config is None else redacted_config(training_config)
    sections = [
        front_matter(
            meta, config, training_config, str(title), bool(repo_id or transformers), bool(transformers)
        ),
        f"# {title}",
        meta["description"] or f"A spaCy pipeline for {meta['lang']!r}.",
        _facts(meta),
        "## What it finds",
        *_labels(meta, config),
        "## Scores",
        *_scores(meta["performance"]),
        "## Use",
        use,
        "## Training",
        *_training(training_config, artifacts),
        "## Licence",
        meta["license"] or "Not stated. Ask the author before you use or share the pipeline.",
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
        yield "Its components have no labels."
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
    found = dict(_figures(performance))
    singles = [(f"`{name}`", score_text(name, value)) for name, value in found.items() if _is_number(value)]
    if found:
        yield "Precision, recall, F1 and accuracy are in percent."
    for name, rows_of in found.items():
        if _is_number(rows_of):
            continue
        columns = list(dict.fromkeys(key for row in rows_of.values() for key in row))
        rows = [
            (f"`{label}`", *("" if row.get(key) is None else score_text(key, row[key]) for key in columns))
            for label, row in rows_of.items()
        ]
        yield f"Per label and on average, `{name}`:"
        yield table(("", *columns), rows)
    if singles:
        yield table(("Figure", "Value"), singles)
    if not found:
        yield "Not stated."


def _figures(scores: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers and the tables of nested scores, by their names joined with dots."""
    for name, value in scores.items():
        if _is_number(value) or _is_table(value):
            yield prefix + name, value
        elif isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{name}.")


def _is_table(value: Any) -> bool:
    """Return whether every value is a row of numbers, as in ``{"person": {"p": 0.9, "r": 0.8, "f": 0.85}}``."""
    rows = list(value.values()) if isinstance(value, Mapping) else []
    return bool(rows) and all(
        isinstance(row, Mapping) and row and all(_is_number(cell) or cell is None for cell in row.values())
        for row in rows
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _usage(needed: str, first: str, load: str) -> str:
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
```"""


def _package_usage(meta: Mapping[str, Any], has_own_wheel: bool) -> str:
    name, version = meta["name"], meta["version"]
    load = f'spacy.load("{name}")  # or: import {name}; nlp = {name}.load()'
    local = f"--find-links . {name}=={version}"
    if has_own_wheel:
        return f"In the folder with the wheels:\n\n{_usage(local, 'import spacy', load)}"
    use = _usage(f"{name}-{version}-py3-none-any.whl", "import spacy", load)
    if any(item.startswith("gliner_pipe") for item in meta["requirements"]):
        use += (
            "\n\nIf pip finds no `gliner_pipe`, put its wheel into the same folder "
            f"(`python -m gliner_pipe.package --vendor true` does so), and install with `pip install {local}`."
        )
    return use


def _hub_usage(meta: Mapping[str, Any], repo_id: str) -> str:
    needed = " ".join(f'"{item}"' for item in [f"spacy{meta['spacy_version']}", *meta["requirements"]])
    first, load = "import gliner_pipe", f'gliner_pipe.load("{repo_id}")'
    if not any(item.startswith("gliner_pipe") for item in meta["requirements"]):
        needed += " huggingface_hub"
        first = "import spacy\nfrom huggingface_hub import snapshot_download"
        load = f'spacy.load(snapshot_download("{repo_id}"))'
    return f"""{_usage(needed, first, load)}

It is a spaCy pipeline: `spacy.load` loads the folder that `huggingface_hub.snapshot_download("{repo_id}")` returns."""


def _transformers_usage(name: str, pipeline: str) -> str:
    local = f'The folders in it are spaCy pipelines: `spacy.load("{name}/model-best")`.'
    return f"""With `transformers`:

```python
from transformers import pipeline

tagger = pipeline("token-classification", model="{name}", aggregation_strategy="simple")
print(tagger("Some text."))
```

{"With spaCy:" if pipeline else local}

{pipeline}""".rstrip()


def _training(config: str | None, artifacts: str) -> Iterator[str]:
    if config is None:
        place = (Path(artifacts) / "config.cfg").as_posix()
        yield f"The pipeline's config is `{place}`. The training is not documented."
        return
    if facts := training_facts(config):
        yield table(("", ""), [(f"**{name}**", f"`{value}`") for name, value in facts.items()])
    yield f"Config of the training:\n\n```ini\n{config.strip()}\n```"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


# -- front matter -----------------------------------------------------------------------------------------------


def front_matter(
    meta: Mapping[str, Any],
    config: Mapping[str, Any],
    training_config: str | None,
    title: str,
    on_hub: bool,
    transformers: bool = False,
) -> str:
    """Return the front matter of a model card, which model hubs read.

    Parameters
    ----------
    meta
        As in `model_card`.
    config
        The pipeline's config: its backbones are the base models.
    training_config
        Text of the training config, for the name of the validation data.
    title
        Name of the model.
    on_hub
        Whether the card is for a hub: then it names the loader of gliner_pipe, and has the scores as ``model-index``.
    transformers
        Whether it names `transformers` as the loader.
    """
    from huggingface_hub import ModelCardData

    license_id, license_name = _license(str(meta.get("license") or ""))
    results = _results(meta.get("performance") or {}, _validation_name(training_config)) if on_hub else []
    data = ModelCardData(
        tags=["spacy", "token-classification", *(["gliner", "named-entity-recognition"] if on_hub else [])],
        language=["multilingual" if meta["lang"] == "xx" else meta["lang"]],
        library_name="transformers" if transformers else "gliner_pipe" if on_hub else "spacy",
        pipeline_tag="token-classification" if on_hub else None,
        license=license_id if on_hub else None,
        license_name=license_name if on_hub else None,
        base_model=(base_models(config) or None) if on_hub else None,
        metrics=list(dict.fromkeys(item.metric_type for item in results)) or None,
        model_name=title if results else None,
        eval_results=results or None,
    )
    order = ["tags", "language", "library_name", "pipeline_tag", "license", "license_name", "base_model"]
    return f"---\n{data.to_yaml(original_order=order)}\n---"


def _license(name: str) -> tuple[str | None, str | None]:
    short = name.lower().removesuffix("-only").removesuffix("-or-later")
    if not name:
        return None, None
    return (short, None) if short in LICENSES else ("other", name)


def _results(performance: Mapping[str, Any], data_name: str) -> list[EvalResult]:
    """Return micro-averaged precision, recall and F1 of each scorer."""
    from huggingface_hub import EvalResult

    slug = re.sub(r"[^A-Za-z0-9]+", "-", data_name).strip("-") or "validation"
    return [
        EvalResult(
            task_type="token-classification",
            task_name="Named entity recognition",
            dataset_type=slug,
            dataset_name=data_name,
            metric_type=METRICS[kind],
            metric_name=f"{name}.{kind}" if name else kind,
            metric_value=round(float(value), 6),
        )
        for name, row in _averages(performance, "")
        for kind, value in row.items()
    ]


def _averages(scores: Mapping[str, Any], name: str) -> Iterator[tuple[str, dict[str, float]]]:
    row = {key: scores[key] for key in METRICS if isinstance(scores.get(key), float)}
    if row and (name.rpartition(".")[2] == "micro" or not name):
        yield name, row
    flat = {kind: scores[f"ents_{kind}"] for kind in "prf" if isinstance(scores.get(f"ents_{kind}"), float)}
    if flat:
        yield "ents", flat
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _averages(value, f"{name}.{key}" if name else str(key))


def base_models(config: Mapping[str, Any]) -> list[str]:
    """Return the hub ids that the components of a pipeline name as their models."""
    return list(dict.fromkeys(_base_models(config.get("components", {}))))


def _base_models(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        named = [value.get("model")]
        if str(value.get("@architectures")).startswith("gliner_pipe.Pretrained"):
            named.append(value.get("name"))
        for item in named:
            if isinstance(item, str) and _HUB_ID.fullmatch(item) and not Path(item).exists():
                yield item
        for item in value.values():
            yield from _base_models(item)


# -- the config of the training ---------------------------------------------------------------------------------


def training_facts(text: str) -> dict[str, str]:
    """Return the data and the settings of a training, from the text of its config."""
    config = _parsed(text)
    train = config.get("train")
    if not isinstance(train, Mapping):
        return {}
    facts = {}
    for title, key in (("Training data", "train_data"), ("Validation data", "val_data")):
        if names := list(dict.fromkeys(_data_names(train.get(key), config))):
            facts[title] = ", ".join(names)
    for key in SETTINGS:
        value = _value(train.get(key), config)
        if isinstance(value, Mapping):
            value = next((item for name, item in value.items() if str(name).startswith("@")), None)
        if value is not None and not isinstance(value, (list, Reference)):
            facts[key] = str(value)
    return facts


def _validation_name(text: str | None) -> str:
    config = _parsed(text) if text else Config()
    train = config.get("train")
    names = _data_names(train.get("val_data"), config) if isinstance(train, Mapping) else ()
    return ", ".join(dict.fromkeys(names)) or "validation data"


def _data_names(value: Any, config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of files and folders, without their parents, and the hub ids in a section for data."""
    value = _value(value, config)
    if isinstance(value, str):
        yield value if _HUB_ID.fullmatch(value) and not Path(value).suffix else Path(value).name
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _data_names(item, config)
    elif isinstance(value, Mapping):
        for key in ("reader", "path", "paths", "dataset", "data"):
            if key in value:
                yield from _data_names(value[key], config)


def _value(value: Any, config: Mapping[str, Any]) -> Any:
    """Return the value of a reference ``${section.name}``, or the reference itself if it is an expression."""
    for _ in range(10):
        if not isinstance(value, Reference):
            return value
        found: Any = config
        for part in str(value.value).split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        if found is None:
            return value
        value = found
    return value


def _parsed(text: str) -> Config:
    try:
        return Config.from_str(text, resolve=False)
    except Exception:  # a config of another program, which the card shows unchanged
        return Config()
