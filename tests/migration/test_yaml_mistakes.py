from __future__ import annotations

import pytest

from gliner_pipe.errors import ConfigError
from gliner_pipe.migration import to_config
from tests.migration.migration_files import UNIFIED, written

GOOD = """model:
  model_name: some/encoder
  span_mode: markerV0
data:
  train_data: train.json
training:
  learning_rate: 1e-5
"""


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


CASES = {
    "unknown key": (
        changed("  learning_rate", "  learning_rat"),
        r"old.yaml:7 \(training.learning_rat\)\] is unknown. Did you mean 'learning_rate'",
    ),
    "unknown model key": (changed("span_mode", "spam_mode"), r"old.yaml:3 \(model.spam_mode\).*'span_mode'"),
    "unknown data key": (changed("train_data", "train_dat"), r"old.yaml:5 \(data.train_dat\).*'train_data'"),
    "unknown section": (changed("training:", "trainings:"), r"old.yaml:6 \(trainings\).*Did you mean 'training'"),
    "unknown flat key": ("model_name: x\nnum_stpes: 3\n", r"old.yaml:2 \(num_stpes\).*Did you mean 'num_steps'"),
    "nothing known": ("colour: red\n", r"old.yaml:1 \(colour\)\] is unknown"),
    "wrong type": (changed("1e-5", "[1]"), r"old.yaml:7 \(training.learning_rate\)\] is \[1\] \(list\); allowed: a number"),
    "negative": (changed("1e-5", "-1e-5"), r"is '-1e-5'; allowed: a number from 0"),
    "flag": (changed("learning_rate: 1e-5", "bf16: maybe"), r"old.yaml:7 \(training.bf16\)\] is 'maybe'; allowed: true"),
    "section that is none": (changed("  learning_rate: 1e-5\n", "").replace("training:", "training: 3"),
                             r"old.yaml:6 \(training\)\] is 3; allowed: a section"),
    "section that is a list": (changed("  learning_rate", "  - learning_rate"), r"old.yaml:6 \(training\)\] is \[.*section"),
    "both numbers of steps": (
        GOOD + "  num_steps: 5\n  max_steps: 6\n",
        r"old.yaml:9 \(training.max_steps\)\] says what num_steps says already \(.*old.yaml:8",
    ),
    "both names of a strategy": (
        GOOD + "  eval_strategy: epoch\n  evaluation_strategy: steps\n", r"old.yaml:9.*says what eval_strategy says already"
    ),
    "key twice": (GOOD + "  learning_rate: 2e-5\n", r"old.yaml:8 \(training.learning_rate\)\] stands in line 7 already"),
    "span mode": (changed("markerV0", "markerV9"), r"old.yaml:3 \(model.span_mode\)\] is 'markerV9'.*Did you mean marker"),
    "relation layer": (changed("span_mode: markerV0", "relations_layer: concat"), r"\(model.relations_layer\).*biaffine"),
    "triples": (changed("span_mode: markerV0", "triples_layer: distmul"), r"Did you mean distmult"),
    "fusion": (changed("span_mode: markerV0", "post_fusion_schema: l2t+t2l"), r"is 'l2t\+t2l'; allowed: l2l"),
    "splitter": (changed("span_mode: markerV0", "words_splitter_type: moses"), r"allowed: whitespace, spacy"),
    "streaming": (
        changed("span_mode: markerV0", "model_type: gliner_streaming_span"), r"\(model.model_type\).*any other"
    ),
    "encoder config": (changed("span_mode: markerV0", "encoder_config: {a: 1}"), r"cannot be taken over.*prev_path"),
    "no training data": (changed("train_data: train.json", "format: json"), r"old.yaml\] has no train_data"),
    "no model": (changed("  model_name: some/encoder\n", ""), r"old.yaml\] names no model; allowed: model_name, or prev_path"),
    "token": (GOOD + "  hub_token: hf_abcdef\n", r"old.yaml:8 \(training.hub_token\)\] holds a token.*HF_TOKEN"),
    "worst loss": (GOOD + "  metric_for_best_model: eval_loss\n", r"old.yaml:8.*ner\.micro\.f"),
    "format": (changed("train_data:", "format: xlsx\n  train_data:"), r"old.yaml:5 \(data.format\)\] is 'xlsx'"),
    "role of a field": (changed("train.json", "train.json\n  fields: {token: t}"), r"old.yaml:6 \(data.fields\).*'tokens'"),
    "name of a field": (changed("train.json", "train.json\n  fields: {tokens: 3}"), r"has tokens: 3; allowed: the name"),
    "chunk": (
        changed("train.json", "train.json\n  long_doc_chunking: {enabled: true, max_words: 50, stride: 50}"),
        r"old.yaml:6 \(data.long_doc_chunking\)\] has a stride of 50; allowed: less than max_words",
    ),
    "option of chunks": (
        changed("train.json", "train.json\n  long_doc_chunking: {max_word: 50}"), r"Did you mean 'max_words'"
    ),
    "adapter": (GOOD + "peft: {enabled: true, rank: 8}\n", r"old.yaml:8 \(peft.rank\)\] is unknown; allowed: enabled"),
    "rank": (GOOD + "peft: {enabled: true, r: 0}\n", r"old.yaml:8 \(peft.r\)\] is 0 \(int\); allowed: a whole number"),
    "tab": (GOOD.replace("  learning_rate", "\tlearning_rate"), r"old.yaml:7:1\] is no YAML: .*Indent with blanks"),
    "colon": (changed("learning_rate: 1e-5", "learning_rate: : 1"), r"old.yaml:7:\d+\] is no YAML"),
    "bracket": (changed("1e-5", "[1e-5"), r"old.yaml:\d+:\d+\] is no YAML"),
    "indent": (changed("  span_mode", "   span_mode"), r"old.yaml:3:\d+\] is no YAML"),
    "two documents": (GOOD + "---\n" + GOOD, r"old.yaml:8:1\] is no YAML"),
    "object": (changed("1e-5", "!!python/object:os.system x"), r"old.yaml:7:\d+\] is no YAML"),
    "empty": ("# nothing\n", r"old.yaml\] is empty; allowed: a mapping"),
    "list": ("- a\n- b\n", r"old.yaml\] holds a list; allowed: a mapping"),
    "number as a key": ("3: a\n", r"old.yaml:1\] has the key 3"),
    "another task": ("task: text-classification\nbase_model: x\n", r"old.yaml:1 \(task\).*token-classification"),
    "control character": ("model: \x07\n", r"is no YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_mistakes(name, tmp_path):
    text, message = CASES[name]
    with pytest.raises(ConfigError, match=message) as raised:
        to_config(written(tmp_path, text))
    assert "\n" not in str(raised.value) and "hf_abcdef" not in str(raised.value)


def test_the_good_file_is_good(tmp_path):
    assert to_config(written(tmp_path, GOOD)).config["train"]["transformer_lr"] == 1e-5


def test_other_encodings(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_bytes("model: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="is no UTF-8"):
        to_config(path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert to_config(path).config["train"]["max_steps"] == 10_000


@pytest.mark.parametrize(
    "key", [line.split(":")[0].strip() for line in UNIFIED.splitlines() if line.startswith("  ")]
)
def test_no_key_takes_any_value(key, tmp_path, backbone):
    """A mapping of numbers is a mistake under every key, or changes nothing at all."""
    free = {"model_type", "modules_to_save"}
    lines = [
        f"{line[: len(line) - len(line.lstrip())]}{key}: {{5: 6}}"
        if line.strip().startswith(f"{key}:")
        else line
        for line in UNIFIED.splitlines()
        if not (key in ("fields", "long_doc_chunking") and line.startswith("    "))
    ]
    with pytest.raises(ConfigError, match=r"old.yaml"):
        assert key in free or to_config(written(tmp_path, "\n".join(lines), backbone))
