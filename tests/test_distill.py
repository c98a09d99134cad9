"""A student learns the predictions of a teacher, by the command and from Python."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
from confit import Config
from tagging_pipeline import CITIES, DATA, PERSONS, config, found

from gliner_pipe import distill as command
from gliner_pipe.data.annotations import supervision
from gliner_pipe.distill import distill
from gliner_pipe.distillation import annotate as annotating
from gliner_pipe.distillation.annotate import annotate
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.prediction.texts import TextItem

ROOT = Path(__file__).parent.parent
TEXTS = [" ".join(words) for words, _ in DATA]


@pytest.fixture(scope="module")
def ruler() -> Any:
    """A teacher without a model that knows all persons and cities."""
    nlp = spacy.blank("en")
    rules = [{"label": "person", "pattern": f"{name} Smith"} for name in PERSONS]
    rules += [{"label": "city", "pattern": name} for name in CITIES]
    nlp.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(rules)
    return nlp


def student(backbone: Path, **changes: Any) -> Any:
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=config(backbone, "softmax", **changes))
    return nlp


def options(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    made = {
        "max_steps": 30,
        "batch_size": "20 samples",
        "transformer_lr": 3e-3,
        "task_lr": 3e-3,
        "loggers": [],
    }
    return {**made, "output_path": tmp_path, "overwrite": True, "cpu": True, **changes}


@pytest.fixture
def written(tmp_path: Path, ruler: Any) -> tuple[Path, Path]:
    """The teacher on disk, and a file of texts."""
    ruler.to_disk(tmp_path / "teacher")
    (tmp_path / "texts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0]]) + "\n", encoding="utf8")
    return tmp_path / "teacher", tmp_path / "texts.txt"


def argv(backbone: Path, tmp_path: Path, written: tuple[Path, Path], *more: Any) -> list[str]:
    given = [
        *("--config", ROOT / "configs" / "distill.cfg", "--teacher", written[0], "--texts", written[1]),
        *("--vars.model", backbone, "--max_steps", 30, "--batch_size", "20 samples"),
        *("--transformer_lr", 3e-3, "--task_lr", 3e-3, "--cpu", "true"),
        *("--output_path", tmp_path / "out" / "model-last", *more),
    ]
    return [str(item) for item in given]


def test_the_command(
    backbone: Path, tmp_path: Path, written: tuple[Path, Path], monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["distill", *argv(backbone, tmp_path, written, "--held-out", 0.2)])
    command.main()
    printed = capsys.readouterr().out
    assert "annotated by the teacher: 20 texts, 116 words, 36 entities of 2 labels" in printed
    assert "dropped, texts without words: 1" in printed and "dropped, duplicate texts: 1" in printed
    assert "warm start with the teacher's weights: no, because the teacher does not have" in printed
    report = json.loads((tmp_path / "out" / "distillation.json").read_text())
    assert report["held_out"] == 4 and report["entities"] == {"city": 20, "person": 16}
    assert report["agreement"]["micro"]["support"] > 4 and report["agreement"]["micro"]["f"] > 0.7
    assert min(report["speed"].values()) > 0
    again = Config.from_disk(tmp_path / "out" / "train_config.cfg")
    # the interval of the file follows the steps of the command line
    assert again["train"]["max_steps"] == 30 and again["distill"]["held_out"] == 0.2
    lines = (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "scores" in line]
    assert steps[:2] == [0, 5]
    nlp = spacy.load(tmp_path / "out" / "model-best")
    assert found(nlp("Ada Smith lives in Rome .")) == [("Ada Smith", "person"), ("Rome", "city")]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--max_stepps", "3"], r"\[train.max_stepps\] is no option of train"),
        (["--held_out", "1.5"], r"\[distill.held_out\] .*1.5"),
        (["--labels", "person"], r"\[labels\] is set, but the pipeline has no gliner component"),
        (["--warm_start", "true"], r"\[distill.warm_start\]"),
        (["--texts", "gone.txt"], "gone.txt"),
        (["--validation_split", "0.1"], r"\[train.validation_split\]"),
        (["--components.tagger.target", "tag_"], r"\[components.tagger.target\] .*'tag_'"),
    ],
)
def test_mistakes_end_in_one_line(
    backbone: Path,
    tmp_path: Path,
    written: tuple[Path, Path],
    monkeypatch: Any,
    capsys: Any,
    more: Any,
    message: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["distill", *argv(backbone, tmp_path, written, *more)])
    with pytest.raises(SystemExit) as stop:
        command.main()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and re.search(message, line)


def test_help(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    shown = capsys.readouterr().out
    assert "--held_out" in shown and "--max_steps" in shown


def test_from_python_with_a_warm_start(nlp: Any, backbone: Path, tmp_path: Path) -> None:
    component = nlp.get_pipe("gliner")
    seen: list[dict[str, Any]] = []
    made = distill(
        student(backbone),
        nlp,
        TEXTS,
        labels=["city"],
        threshold=0.3,
        **options(tmp_path, max_steps=1, transformer_lr=0, task_lr=0, validate_at_start=True),
        on_validation_callback=seen.append,
    )
    assert made.warm_start == "" and set(made.entities) == {"city"}
    assert made.nlp.get_pipe("token_classifier").labels == ("city",)
    assert component.labels == ("person", "city") and component.threshold == 0.5
    # with rates of 0 the first weights stay, and what they find is what is measured
    assert seen[0]["scores"]["ner"]["micro"] == pytest.approx(made.agreement["micro"])
    assert made.report()["texts"] == 20 and "nlp" not in made.report()


def test_no_warm_start(nlp: Any, backbone: Path, tmp_path: Path) -> None:
    made = distill(
        student(backbone),
        nlp,
        TEXTS,
        threshold=0.3,
        warm_start=False,
        held_out=0,
        **options(tmp_path, max_steps=1),
    )
    assert made.warm_start == "warm_start is false" and not made.agreement and not made.speed
    assert "warm start with the teacher's weights: no, because warm_start is false" in made.lines()


def test_gold_data(ruler: Any, backbone: Path, tmp_path: Path) -> None:
    gold = [{"tokenized_text": words, "ner": [list(one) for one in spans]} for words, spans in DATA[:6]]
    gold[0]["ner"].append([2, 2, "verb"])
    made = distill(student(backbone), ruler, TEXTS, dev=gold, **options(tmp_path))
    assert made.gold["teacher"]["micro"]["r"] == pytest.approx(12 / 13)
    assert made.gold["student"]["verb"]["support"] == 1
    assert any(line.startswith("student on the gold data: P ") for line in made.lines())


def test_section_of_the_training_data(ruler: Any, backbone: Path, tmp_path: Path, capsys: Any) -> None:
    train_data = {"max_length": 3, "multi_sentence": True, "reader": "nowhere.jsonl"}
    distill(
        student(backbone), ruler, TEXTS, held_out=0, train_data=train_data, **options(tmp_path, max_steps=1)
    )
    assert "59 examples (23 without entities), 116 words (the longest has 3)" in capsys.readouterr().out


def test_a_gliner_can_be_the_student(ruler: Any, nlp: Any, tmp_path: Path) -> None:
    made = distill(nlp, ruler, TEXTS, **options(tmp_path, max_steps=1))
    assert made.warm_start == "the student is not one token_classifier" and made.agreement


def test_annotations(ruler: Any, backbone: Path) -> None:
    nlp = student(backbone, target_span_getter={"people": ["person"], "places": ["city"]})
    items = [
        TextItem(text, f"line {n}", "x") for n, text in enumerate([TEXTS[0], "  ", TEXTS[0], "OsloRome x"])
    ]
    silver = annotate(ruler, nlp, items, {"people": ["person"], "places": ["city"]}, ["person", "city"])
    reference = silver.examples[0].reference
    assert [span.text for span in reference.spans["people"]] == ["Ada Smith"]
    assert [span.text for span in reference.spans["places"]] == ["Paris"]
    assert supervision(reference)["ner_labels"] == ["person", "city"]
    assert not silver.examples[0].predicted.spans
    assert silver.dropped == Counter({annotating.EMPTY: 1, annotating.TWICE: 1})


def test_entities_that_do_not_align_with_the_students_tokens_are_dropped(backbone: Path) -> None:
    teacher = spacy.blank("en")
    teacher.add_pipe("span_ruler", config={"spans_key": "found"}).add_patterns(
        [{"label": "x", "pattern": "do"}]
    )
    nlp = student(backbone)
    nlp.tokenizer = spacy.blank("xx").tokenizer  # leaves "don't" whole, which English cuts
    nlp.tokenizer.rules = {}
    items = [TextItem(text, "here", "x") for text in ("They don't", "They do")]
    silver = annotate(teacher, nlp, items, "gliner")
    assert silver.dropped == {annotating.UNALIGNED: 1} and silver.labels == {"x": 1}


def test_texts_without_words_or_entities_fail(ruler: Any, backbone: Path, tmp_path: Path) -> None:
    for texts in (["Nobody is here"], ["", " "]):
        with pytest.raises(DataError) as caught:
            distill(student(backbone), ruler, texts, **options(tmp_path))
        assert caught.value.where == "distill.texts"
    teacher = spacy.blank("en")
    teacher.add_pipe("gliner", config={"labels": []})
    with pytest.raises(ConfigError, match=r"\[distill.labels\]"):
        distill(student(backbone), teacher, TEXTS, **options(tmp_path))


@pytest.mark.parametrize("option", ["output_path", "output_dir"])
def test_another_training_is_kept(ruler: Any, backbone: Path, tmp_path: Path, option: str) -> None:
    """It is refused before the teacher annotates: no text is read."""
    (tmp_path / "run").mkdir()
    ruler.to_disk(tmp_path / "run" / "model-best")
    given = options(tmp_path, overwrite=False)
    del given["output_path"]
    with pytest.raises(ConfigError) as caught:
        distill(student(backbone), ruler, tmp_path / "missing.txt", **given, **{option: tmp_path / "run"})
    assert caught.value.where == "train.overwrite"


def test_texts_in_files(ruler: Any, backbone: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, text in enumerate(TEXTS[:3]):
        (tmp_path / "in" / f"{number}.txt").write_text(f"{text}\n{TEXTS[4]}\n", encoding="utf8")
    lines = tmp_path / "texts.jsonl"
    lines.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf8")

    def read(texts: Any, **changes: Any) -> int:
        made = distill(
            student(backbone), ruler, texts, held_out=0, **changes, **options(tmp_path, max_steps=1)
        )
        return made.texts

    assert read(tmp_path / "in") == 3
    assert read(tmp_path / "in", lines=True) == 4
    assert read(lines, limit=7) == 7
