# ruff: noqa: F811 (fixtures)
"""The labels of the data and those of the components are compared before the first step."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import confit
import pytest
import spacy
from confit import Config
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.evaluate import evaluate
from gliner_pipe.registry import registry
from gliner_pipe.train import train
from tests.conftest import SAMPLE
from tests.tagging_pipeline import config as tagger_config
from tests.training.conftest import config_path, records, still_backbone, write  # noqa: F401 (fixtures)

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def renamed(rows: list[dict[str, Any]], **names: str) -> list[dict[str, Any]]:
    """Records whose entities have other labels."""
    return [{**row, "ner": [[a, b, names.get(label, label)] for a, b, label in row["ner"]]} for row in rows]


@pytest.fixture
def options(config_path: Path, tmp_path: Path) -> Any:
    """Makes the options of a training of one step: on other data, with other settings of the component."""

    def make(train_rows: Any = None, dev_rows: Any = None, /, **changes: Any) -> dict[str, Any]:
        raw = confit.Config.from_disk(config_path)
        for name in ("labels", "label_sampling", "threshold"):
            if name in changes:
                raw["components"]["gliner"][name] = changes.pop(name)
        if train_rows is not None:
            raw["vars"]["train"] = str(write(tmp_path / "other.jsonl", train_rows))
        if dev_rows is not None:
            raw["vars"]["dev"] = str(write(tmp_path / "other_dev.jsonl", dev_rows))
        given = raw.resolve(registry=registry)["train"]
        return {**given, "loggers": [], "max_steps": 1, "validation_interval": 1, **changes}

    return make


def warnings_of(capsys: pytest.CaptureFixture[str]) -> str:
    return "\n".join(line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: "))


def test_labels_that_look_like_tags(options, capsys):
    """As transformers' pipelines return entities that are not aggregated."""
    train(**options(renamed(records(12), person="B-PER"), labels=[]))
    assert "[train.train_data] has labels that look like tags: B-PER (" in warnings_of(capsys)


DRUGS = renamed(records(12), person="drug", city="dose")


def test_no_label_in_common_is_refused(options, tmp_path):
    with pytest.raises(ConfigError) as caught:
        train(**options(DRUGS, DRUGS))
    assert caught.value.where == "components.gliner.labels"
    assert "person, city" in caught.value.found and "drug (" in caught.value.found
    assert "labels = []" in caught.value.do and "--components.gliner.labels '[]'" in caught.value.do
    assert not (tmp_path / "out").exists()


def test_a_model_that_reads_labels_may_be_measured_on_others(options):
    reads = {"label_sampling": {}}
    train(**options(DRUGS, None, **reads))  # the validation data have the labels of the component
    with pytest.raises(ConfigError) as caught:
        train(**options(DRUGS, DRUGS, **reads))
    assert caught.value.where == "components.gliner.labels"


def test_labels_that_are_missing_on_a_side_are_counted(options, capsys):
    rows = renamed(records(20), city="town")
    towns = sum(label == "town" for row in rows for _, _, label in row["ner"])
    train(**options(rows, labels=["person", "city", "ship"]))
    told = warnings_of(capsys)
    assert f"town ({towns})" in told
    assert "city, ship" in told  # never in the training data; the first stands in the validation data
    cities = sum(label == "city" for row in records(20, seed=1) for _, _, label in row["ner"])
    assert f"city ({cities})" in told


def test_labels_of_a_model_that_reads_them_need_not_be_in_the_data(options, capsys):
    train(**options(labels=["person", "city", "ship"], label_sampling={}))
    assert "ship" not in warnings_of(capsys)


def test_nothing_is_said_where_the_labels_agree(options, capsys):
    train(**options())
    assert "labels]" not in warnings_of(capsys)


def test_labels_of_the_validation_data_alone_count_as_missed(options, capsys):
    rows = records(20, seed=1)
    more = renamed(records(10, seed=2), city="ship")
    train(**options(None, rows + more, labels=[]))
    ships = sum(label == "ship" for row in more for _, _, label in row["ner"])
    assert f"ship ({ships})" in warnings_of(capsys)


def test_validation_data_without_a_predicted_label_fail(options):
    with pytest.raises(ConfigError) as caught:
        train(**options(None, DRUGS, labels=[]))
    assert caught.value.where == "train.val_data"
    assert "drug (" in caught.value.found and "city, person" in caught.value.found


@pytest.mark.parametrize(
    ("person", "city"), [("PER", "City"), ("Person", "cities"), ("B-PER", "CITY"), ("persons", "_city_")]
)
def test_other_spellings_are_pointed_out(options, person, city):
    rows = renamed(records(12), person=person, city=city)
    with pytest.raises(ConfigError) as caught:
        train(**options(rows, rows))
    assert f'label_map = {{"{person}": "person", "{city}": "city"}}' in caught.value.do or (
        f'label_map = {{"{city}": "city", "{person}": "person"}}' in caught.value.do
    )


def examples(nlp: Any, place: str) -> list[Example]:
    made = []
    for row in records(12):
        doc = Doc(nlp.vocab, words=row["tokenized_text"])
        spans = [Span(doc, start, end + 1, label) for start, end, label in row["ner"]]
        doc.spans["gliner"] = []  # and nothing in it, unless it is the place
        if place == "ents":
            doc.set_ents(spans)
        else:
            doc.spans[place] = spans
        made.append(Example(Doc(nlp.vocab, words=row["tokenized_text"]), doc))
    return made


@pytest.mark.parametrize("place", ["ents", "sc"])
def test_entities_that_stand_elsewhere_are_pointed_out(options, place):
    number = sum(len(row["ner"]) for row in records(12))
    for name in ("train_data", "val_data"):
        given = options()
        given[name] = {"reader": examples(spacy.blank("en"), place)}
        with pytest.raises(DataError) as caught:
            train(**given)
        assert str(number) in caught.value.found and place in caught.value.found
        assert f'"{place}"' in caught.value.do


def test_a_training_without_correct_predictions_warns(options, capsys):
    train(**options(threshold=1.0))
    assert "ner.micro.f was 0 in every validation" in warnings_of(capsys)


def test_validation_data_without_entities(options, capsys):
    rows = [{**row, "ner": []} for row in records(5)]
    train(**options(None, rows))
    assert "[train.val_data] has no gold annotations" in warnings_of(capsys)


def test_a_trained_pipeline_on_new_labels(options, tmp_path):
    train(**options())
    again = {**options(DRUGS, DRUGS), "nlp": spacy.load(tmp_path / "out" / "model-last")}
    with pytest.raises(ConfigError) as caught:
        train(**again)
    assert caught.value.where == "components.gliner.labels"
    assert "nlp.get_pipe('gliner').labels = []" in caught.value.do
    again["nlp"].get_pipe("gliner").labels = []
    assert train(**again).get_pipe("gliner").labels == ("dose", "drug")


@pytest.mark.parametrize("target", ["spans", "_.kind"])
def test_a_tagger(backbone, options, capsys, target):
    def made(*labels: str) -> Any:
        nlp = spacy.blank("en")
        nlp.add_pipe(
            "token_classifier", name="tagger", config=tagger_config(backbone, target=target, labels=labels)
        )
        return {**options(), "nlp": nlp, "scorer": None, "best_metric": None}

    with pytest.raises(ConfigError) as caught:
        train(**made("drug", "dose"))
    assert caught.value.where == "components.tagger.labels" and "city (" in caught.value.found
    train(**made("person", "ship"))
    told = warnings_of(capsys)
    assert "city (" in told and "they are not learned" in told and "ship" in told


def test_relations(backbone, options, capsys):
    from tests.relation_pipeline import DATA, config, example

    def made(**changes: Any) -> Any:
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=config(backbone, **changes))
        gold = [example(nlp, *row) for row in DATA]
        return {
            **options(),
            "nlp": nlp,
            "train_data": gold,
            "val_data": gold,
            "scorer": None,
            "best_metric": None,
        }

    with pytest.raises(ConfigError) as caught:
        train(**made(relations=["knows"]))
    assert caught.value.where == "components.gliner.relations" and "works for (1)" in caught.value.found
    train(**made(relations=["works for", {"label": "founded", "head": ["human"]}]))
    told = warnings_of(capsys)
    assert "located in (1)" in told and "human" in told


def test_initialize_compares_labels_too(backbone, caplog):
    from tests.conftest import gliner_config

    def initialized(place: str = "gliner", **changes: Any) -> None:
        nlp = spacy.blank("en")
        nlp.add_pipe("gliner", config=gliner_config(backbone, **changes))
        nlp.initialize(lambda: examples(nlp, place))

    closed = {"label_sampling": {"all_labels": True}}
    with pytest.raises(ConfigError, match=r"\[components.gliner.labels\]"):
        initialized(labels=["ship"], **closed)
    with pytest.raises(DataError, match="sc"):
        initialized("sc", labels=[])
    with caplog.at_level(logging.WARNING, "gliner_pipe"):
        initialized(labels=["person"], **closed)
    assert "city (" in caplog.text


def test_an_evaluation_on_other_labels_warns(nlp, tmp_path, caplog):
    drugs = write(tmp_path / "drugs.jsonl", DRUGS)
    with caplog.at_level(logging.WARNING, "gliner_pipe"):
        evaluate(pipeline=nlp, data=drugs, threshold=1.0, show=False)
    assert "drug (" in caplog.text and "person, city" in caplog.text
    with pytest.raises(DataError, match="sc"):
        evaluate(pipeline=nlp, data=examples(nlp, "sc"), show=False)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.cfg")), ids=lambda path: path.stem)
def test_shipped_configs_take_their_labels_from_the_data(path):
    config = Config.from_disk(path)
    for component in config["components"].values():
        # the config of a named corpus says which labels its annotators looked for
        assert path.stem == "wnut17" or component.get("labels", []) == []


def test_other_names_do_not_become_labels(options, capsys):
    names = [{**row, "adds_labels": False} for row in renamed(records(12), person="name", city="place")]
    nlp = train(**options([*records(12), *names], labels=[]))
    assert nlp.get_pipe("gliner").labels == ("city", "person")
    assert "[components.gliner.labels]" not in warnings_of(capsys)
    with pytest.raises(DataError) as caught:
        train(**options([{**names[0], "adds_labels": "no"}], labels=[]))
    assert "adds_labels" in str(caught.value)


def test_the_shipped_config_trains_on_other_data(backbone, tmp_path, monkeypatch):
    from gliner_pipe.train import app

    monkeypatch.chdir(CONFIGS.parent)
    for name, rows in {"sample": None, "drugs": DRUGS}.items():
        data = SAMPLE / "dev.jsonl" if rows is None else write(tmp_path / "drugs.jsonl", rows)
        app([
            "--config", "configs/config.cfg", "--vars.train", str(data), "--vars.dev", str(data), "--max_steps", "1",
            "--components.gliner.model.encoder.backbone.model", str(backbone),
            "--sample_texts", "[]", "--output_path", str(tmp_path / name / "model-last"),
        ])  # fmt: skip
        labels = spacy.load(tmp_path / name / "model-last").get_pipe("gliner").labels
        assert labels == ("dose", "drug") if rows else len(labels) == 12


def test_sets_of_training_data_that_share_no_label(options, capsys, tmp_path):
    drugs = write(tmp_path / "drugs.jsonl", DRUGS)
    people = write(tmp_path / "people.jsonl", records(12))
    train(**options(labels=[], train_data=[str(people), str(drugs)]))
    assert "have no label in common" in warnings_of(capsys)
    train(**options(labels=[], train_data=[str(people), str(drugs)], label_sampling={}))
    assert "have no label in common" not in warnings_of(capsys)


def test_entities_of_some_documents_that_stand_elsewhere_are_counted(options, capsys):
    nlp = spacy.blank("en")
    given = {**options(labels=[]), "train_data": [examples(nlp, "gliner"), examples(nlp, "sc")[:1]]}
    with pytest.raises(DataError) as caught:
        train(**given)
    assert caught.value.where == "train.train_data[1]"
    train(**{**given, "train_data": {"reader": [*examples(nlp, "gliner"), *examples(nlp, "sc")[:1]]}})
    assert f"{len(records(1)[0]['ner'])} in doc.spans['sc']" in capsys.readouterr().out
