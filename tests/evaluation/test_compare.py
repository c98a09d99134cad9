from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import relation_pipeline
import spacy
import tagging_pipeline
from spacy.tokens import Doc
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluate import main
from gliner_pipe.evaluation.compare import _differences, compare_precision

TEXT = "Ada met Grace in Paris ."


def untrained(nlp: Any) -> list[Example]:
    """Gold documents for a pipeline that predicts every span."""
    component = nlp.get_pipe("gliner")
    component.threshold = 0.0
    examples = []
    for text in (TEXT, "Rome is old ."):
        doc = Doc(nlp.vocab, words=text.split())
        doc.spans["gliner"] = [doc.char_span(0, len(text.split()[0]), "person")]
        examples.append(Example(Doc(nlp.vocab, words=text.split()), doc))
    return examples


def test_both_precisions_are_scored_and_settings_are_restored(nlp: Any) -> None:
    component = nlp.get_pipe("gliner")
    component.dtype = "bf16"
    before = dict(component.cfg)
    examples = untrained(nlp)
    before["threshold"] = 0.0
    found = compare_precision(nlp, examples, "int8", metrics=["exact"], rounds=2)
    assert component.cfg == before
    comparison = found["comparison"]
    assert (comparison["precision"], comparison["reference"]) == ("bf16", "int8")
    assert set(comparison["scores"]) == {"exact"}
    row = comparison["scores"]["exact"]["micro"]
    assert row["f"][0] == found["exact"]["micro"]["f"]
    assert row["p"][2] == pytest.approx(row["p"][0] - row["p"][1])
    entities = comparison["entities"]
    assert entities["found"] - entities["added"] == entities["reference"] - entities["lost"]
    assert entities["changed"] == entities["added"] + entities["lost"]
    assert 0 < entities["mean_score_difference"] <= entities["largest_score_difference"] < 0.1
    cpu = comparison["cpu"]
    assert (cpu["rounds"], cpu["docs"]) == (2, 2)
    assert cpu["seconds"] > 0 and cpu["reference_seconds"] > 0 and cpu["speedup"] > 0
    json.dumps(found)


def test_differences_by_hand() -> None:
    mine = [{("a", 0, 1): 0.5, ("b", 1, 2): 0.9}, {}]
    others = [{("a", 0, 1): 0.25, ("c", 1, 2): 0.9}, {("a", 4, 5): 1.0}]
    assert _differences(mine, others) == {
        "found": 2,
        "reference": 3,
        "added": 1,
        "lost": 2,
        "changed": 3,
        "largest_score_difference": 0.25,
        "mean_score_difference": 0.25,
    }
    assert _differences([{}], [{}])["mean_score_difference"] is None


def test_token_tags_are_compared(backbone: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe(
        "token_classifier",
        config=tagging_pipeline.config(backbone, "softmax", target="tag_"),
    )
    doc = Doc(nlp.vocab, words=TEXT.split(), tags=["N", "V", "N", "P", "N", "."])
    gold = [Example(Doc(nlp.vocab, words=TEXT.split()), doc)]
    nlp.initialize(lambda: gold)
    found = compare_precision(nlp, gold, "int8", rounds=1)["comparison"]
    assert found["entities"]["found"] == 6
    assert found["entities"]["mean_score_difference"] is None
    assert "micro" in found["scores"]["tags"]


def test_relations_are_compared(backbone: Path) -> None:
    nlp = relation_pipeline.trained(relation_pipeline.config(backbone))
    gold = [relation_pipeline.example(nlp, *one) for one in relation_pipeline.DATA]
    found = compare_precision(nlp, gold, "bf16", rounds=1, metrics=["exact"])["comparison"]
    assert found["scores"]["relations.strict"]["micro"]["f"] == [1.0, 1.0, 0.0]
    assert (found["relations"]["found"], found["relations"]["changed"]) == (3, 0)


@pytest.mark.parametrize(
    ("reference", "own_pipeline"),
    [("fp32", True), ("half", True), ("bf16", False)],
    ids=["equal precisions", "unknown precision", "no gliner component"],
)
def test_invalid_comparisons(nlp: Any, reference: str, own_pipeline: bool) -> None:
    other = spacy.blank("en")
    other.add_pipe("entity_ruler")
    with pytest.raises(ConfigError) as error:
        compare_precision(nlp if own_pipeline else other, untrained(nlp), reference)
    assert error.value.where == "compare"


def test_command_line(nlp: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    untrained(nlp)
    nlp.to_disk(tmp_path / "model")
    record = {"tokenized_text": TEXT.split(), "ner": [[0, 0, "person"]]}
    (tmp_path / "dev.jsonl").write_text(json.dumps(record) + "\n", encoding="utf8")
    output = tmp_path / "scores.json"
    argv = ["--pipeline", tmp_path / "model", "--data", tmp_path / "dev.jsonl", "--output", output]
    main([*map(str, argv), "--dtype", "bf16", "--quantize", "int8", "--compare", "fp32"])
    comparison = json.loads(output.read_text(encoding="utf8"))["comparison"]
    assert (comparison["precision"], comparison["reference"]) == ("bf16+int8", "fp32")
    assert comparison["entities"]["mean_score_difference"] > 0
    printed = capsys.readouterr().out
    assert "exact: bf16+int8 and fp32" in printed and "+/-" in printed
    assert "times as fast (median of 3 alternating rounds)" in printed
    with pytest.raises(SystemExit):
        main([*map(str, argv), "--dtype", "fp8", "--compare", "fp32"])
    assert "[components.gliner.dtype] found 'fp8'" in capsys.readouterr().err
