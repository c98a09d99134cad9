"""Data whose words are not those of the pipeline on running text: reported before the training, and measured."""

from __future__ import annotations

import spacy

from gliner_pipe.check import check
from gliner_pipe.evaluate import evaluate
from gliner_pipe.train import train
from tests.conftest import gliner_config

HALF = {"tokenized_text": ["Add", "1", "\u2044", "2", "cup", "."], "ner": [[1, 3, "quantity"]]}
PART = {"tokenized_text": ["Add", "1", "\u2044", "2", "cup", "."], "ner": [[3, 3, "quantity"]]}
SALT = {"tokenized_text": ["Add", "salt", "."], "ner": [[1, 1, "food"]]}


def trained(backbone, folder, rows, **settings):
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=[], **settings))
    return train(nlp, rows, max_steps=1, loggers=[], cpu=True, output_path=folder / "model-last")


def test_entities_that_are_no_words_on_running_text(backbone, tmp_path, capsys):
    trained(backbone, tmp_path, [PART, SALT, SALT, SALT])
    [line] = [line for line in capsys.readouterr().out.splitlines() if "running text" in line]
    assert line.startswith("warning: [components.gliner]")
    assert "25.0% of the entities begin or end inside a word" in line and "quantity 100.0%" in line
    assert '[components.gliner.word_splitter] @word_splitters = "whitespace"' in line
    trained(backbone, tmp_path / "b", [PART, SALT], word_splitter={"@word_splitters": "whitespace"})
    trained(backbone, tmp_path / "c", [SALT, SALT])
    assert "running text" not in capsys.readouterr().out


def test_entities_of_other_words_are_reported_though_they_can_be_found(backbone, tmp_path, capsys):
    trained(backbone, tmp_path, [HALF, SALT])
    [line] = [line for line in capsys.readouterr().out.splitlines() if "running text" in line]
    assert line.startswith("warning: [components.gliner] 33.3% of the words and 50.0% of the entities")
    assert "quantity 100.0%" in line and "cannot be found" not in line
    assert '@word_splitters = "whitespace" (0.0% of the entities)' in line


def test_other_words_without_entities_are_a_note(backbone, tmp_path, capsys):
    rows = [{**HALF, "ner": [[4, 4, "unit"]]}, SALT]
    trained(backbone, tmp_path, rows)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "running text" in line]
    assert line.startswith("note: ") and "33.3% of the words and 0.0% of the entities" in line


def test_the_check_counts_the_same(backbone, tmp_path, capsys):
    rows = [HALF, PART, SALT]
    trained(backbone, tmp_path, rows)
    [line] = [line for line in capsys.readouterr().out.splitlines() if "running text" in line]
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=gliner_config(backbone, labels=[]))
    report = check(nlp, rows, rows, show=False)
    part = report["components"]["components.gliner"]["train"]
    assert (part["words"], part["unaligned_words"], part["unaligned_entities"]) == (15, 6, 1)
    assert part["other_entities"] == {"quantity": 2}
    sentence, advice = line.removeprefix("warning: [components.gliner] ").split(". Set ")
    assert sentence in report["warnings"] and f"Set {advice}" in report["warnings"]
    assert sentence.replace("training", "validation") in report["warnings"]


def test_evaluation_on_both_kinds_of_words(backbone, tmp_path, capsys):
    rows = [PART, SALT]
    nlp = trained(backbone, tmp_path, rows)
    capsys.readouterr()
    from tests.training.conftest import write

    component = nlp.get_pipe("gliner")
    component.threshold, component.cfg = (
        0.0,
        {**component.cfg, "flat_ner": False, "multi_label": True, "threshold": 0.0},
    )
    scores = evaluate(
        pipeline=nlp, data=str(write(tmp_path / "rows.jsonl", rows)), tokens="both", metrics="exact"
    )
    # every span is predicted, except one that is no word of the pipeline
    assert (scores["tokens"], scores["exact"]["quantity"]["r"]) == ("data", 1.0)
    assert (scores["on_text"]["tokens"], scores["on_text"]["exact"]["quantity"]["r"]) == ("pipeline", 0.0)
    assert scores["on_text"]["exact"]["food"]["r"] == 1.0
    printed = capsys.readouterr().out
    assert printed.index("the words of the data") < printed.index("the pipeline's own words")
