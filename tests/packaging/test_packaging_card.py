from __future__ import annotations

from typing import Any

from gliner_pipe.packaging.card import model_card

META: dict[str, Any] = {
    "lang": "en",
    "name": "my_ner_model",
    "version": "0.1.0",
    "spacy_version": ">=3.8.7,<3.9.0",
    "description": "",
    "author": "Jane Doe",
    "email": "jane@example.org",
    "url": "",
    "license": "",
    "components": ["gliner"],
    "labels": {"gliner": ["person", "date: full"], "sentencizer": []},
    "performance": {},
    "requirements": ["gliner_pipe>=0.1.0"],
    "sources": [],
}


def card(config: dict[str, Any] | None = None, training: str | None = None, **changes: Any) -> str:
    return model_card({**META, **changes}, config or {}, training, "my_ner_model/artifacts")


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0].strip()


def test_the_card_names_what_is_missing() -> None:
    text = card(labels={})
    assert text.startswith("---\ntags:")
    assert section(text, "What it finds") == "Its components have no labels."
    assert section(text, "Scores") == "Not stated."
    assert "my_ner_model/artifacts/config.cfg" in section(text, "Training")
    assert section(text, "Licence").startswith("Not stated.")
    assert "| **Author** | Jane Doe <jane@example.org> |" in text
    assert "**Home**" not in text


def test_labels_with_their_descriptions() -> None:
    labels = ["person", {"label": "date: full", "description": "day | month,\nyear"}]
    text = section(card({"components": {"gliner": {"labels": labels}}}), "What it finds")
    assert text.splitlines() == [
        "Component `gliner`, 2 labels:",
        "",
        "| Label | Description |",
        "| --- | --- |",
        "| `person` |  |",
        "| `date: full` | day \\| month, year |",
    ]


def test_labels_without_descriptions() -> None:
    assert "`person`, `date: full`" in section(card(), "What it finds")


def test_scores_of_any_depth() -> None:
    performance = {
        "ents_f": 0.5,
        "ents_p": None,
        "strict": {"micro": {"f": 1.0, "support": 3}, "per_label": {"person": {"p": 1.0, "r": None}}},
        "threshold": 0.45,
        "cpu_seconds": 0.25,
        "ents_loss": 0.125,
    }
    assert section(card(performance=performance), "Scores").splitlines() == [
        "Precision, recall, F1 and accuracy are in percent.",
        "",
        "Per label and on average, `strict.per_label`:",
        "",
        "|  | p | r |",
        "| --- | --- | --- |",
        "| `person` | 100.0 |  |",
        "",
        "| Figure | Value |",
        "| --- | --- |",
        "| `ents_f` | 50.0 |",
        "| `strict.micro.f` | 100.0 |",
        "| `strict.micro.support` | 3 |",
        "| `threshold` | 0.45 |",
        "| `cpu_seconds` | 0.25 |",
        "| `ents_loss` | 0.125 |",
    ]


def test_training_licence_sources_and_notes() -> None:
    sources = [{"name": "Corpus", "url": "https://example.org", "license": "CC0-1.0"}, "Texts of our own"]
    text = card(training="[train]\nseed = 1\n", license="MIT", sources=sources, notes="Not for headlines.")
    assert "```ini\n[train]\nseed = 1\n```" in section(text, "Training")
    assert section(text, "Licence") == "MIT"
    assert "| **Sources** | [Corpus](https://example.org) (CC0-1.0), Texts of our own |" in text
    assert section(text, "Notes") == "Not for headlines."


def test_the_usage_names_the_package() -> None:
    text = section(card(), "Use")
    assert "pip install my_ner_model-0.1.0-py3-none-any.whl" in text
    assert 'spacy.load("my_ner_model")' in text


def test_the_card_says_how_this_project_is_installed() -> None:
    """From the same folder, where no package index has it; a package that does not need it says nothing."""
    local = "pip install --find-links . my_ner_model==0.1.0"
    assert "--vendor true" in section(card(), "Use") and local in section(card(), "Use")
    assert "--find-links" not in section(card(requirements=[]), "Use")
    text = model_card(META, {}, None, "my_ner_model/artifacts", has_own_wheel=True)
    assert local in section(text, "Use") and "--vendor" not in text
