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


def in_model(line: str) -> str:
    return changed("span_mode: markerV0", line)


def in_data(line: str) -> str:
    return changed("train.json", f"train.json\n  {line}")


#: Text, place of the mistake in the file, and names that the message mentions.
CASES = {
    "unknown key": (changed("  learning_rate", "  learning_rat"), ":7 (training.learning_rat)", "'learning_rate'"),
    "unknown model key": (changed("span_mode", "spam_mode"), ":3 (model.spam_mode)", "'span_mode'"),
    "unknown data key": (changed("train_data", "train_dat"), ":5 (data.train_dat)", "'train_data'"),
    "unknown section": (changed("training:", "trainings:"), ":6 (trainings)", "'training'"),
    "unknown flat key": ("model_name: x\nnum_stpes: 3\n", ":2 (num_stpes)", "'num_steps'"),
    "no known key": ("colour: red\n", ":1 (colour)", "model, peft, data, training"),
    "list for a number": (changed("1e-5", "[1]"), ":7 (training.learning_rate)", "[1] (list)", "a number"),
    "negative": (changed("1e-5", "-1e-5"), ":7 (training.learning_rate)", "'-1e-5'", "a number from 0"),
    "alpha": (GOOD + "  focal_loss_alpha: 1.5\n", ":8 (training.focal_loss_alpha)", "1.5", "a number to 1"),
    "flag": (changed("learning_rate: 1e-5", "bf16: maybe"), ":7 (training.bf16)", "'maybe'", "true or false"),
    "number for a section": (
        changed("  learning_rate: 1e-5\n", "").replace("training:", "training: 3"), ":6 (training)", "3", "section"
    ),
    "list for a section": (changed("  learning_rate", "  - learning_rate"), ":6 (training)", "section"),
    "two numbers of steps": (
        GOOD + "  num_steps: 5\n  max_steps: 6\n", ":9 (training.max_steps)", "num_steps", "old.yaml:8"
    ),
    "two names of a strategy": (
        GOOD + "  eval_strategy: epoch\n  evaluation_strategy: steps\n",
        ":9 (training.evaluation_strategy)", "eval_strategy", "train.validation_interval",
    ),
    "a key twice": (GOOD + "  learning_rate: 2e-5\n", ":8 (training.learning_rate)", "line 7"),
    "span mode": (changed("markerV0", "markerV9"), ":3 (model.span_mode)", "'markerV9'", "Did you mean marker"),
    "relation layer": (in_model("relations_layer: concat"), ":3 (model.relations_layer)", "biaffine"),
    "triples layer": (in_model("triples_layer: distmul"), ":3 (model.triples_layer)", "distmult"),
    "fusion": (in_model("post_fusion_schema: l2t+t2l"), ":3 (model.post_fusion_schema)", "'l2t+t2l'", "l2t-t2l"),
    "splitter": (in_model("words_splitter_type: moses"), ":3 (model.words_splitter_type)", "whitespace, spacy"),
    "streaming": (in_model("model_type: gliner_streaming_span"), ":3 (model.model_type)", "'gliner_streaming_span'"),
    "encoder config": (
        in_model("encoder_config: {model_type: nope}"), ":3 (model.encoder_config)", "'nope'"
    ),
    "no training data": (changed("train_data: train.json", "format: json"), "", "train_data"),
    "no model": (changed("  model_name: some/encoder\n", ""), "", "model_name", "prev_path"),
    "token": (GOOD + "  hub_token: hf_abcdef\n", ":8 (training.hub_token)", "HF_TOKEN"),
    "speed as metric": (
        GOOD + "  metric_for_best_model: eval_runtime\n", ":8 (training.metric_for_best_model)", "ner.micro.f"
    ),
    "format": (changed("train_data:", "format: xlsx\n  train_data:"), ":5 (data.format)", "'xlsx'", "parquet"),
    "unknown field": (in_data("fields: {token: t}"), ":6 (data.fields.token)", "'tokens'"),
    "name of a field": (in_data("fields: {tokens: 3}"), ":6 (data.fields.tokens)", "is 3"),
    "fields of a format without fields": (
        in_data("fields: {tokens: t}\n  format: conll"), ":6 (data.fields)", "conll"
    ),
    "chunk": (
        in_data("long_doc_chunking: {enabled: true, max_words: 50, stride: 50}"),
        ":6 (data.long_doc_chunking.stride)", "stride of 50", "max_words = 50",
    ),
    "chunk shorter than the default stride": (
        in_data("long_doc_chunking: {max_words: 50}"), ":6 (data.long_doc_chunking.max_words)", "stride of 50"
    ),
    "unknown chunk option": (
        in_data("long_doc_chunking: {max_word: 50}"), ":6 (data.long_doc_chunking.max_word)", "'max_words'"
    ),
    "unknown adapter option": (GOOD + "peft: {enabled: true, rank: 8}\n", ":8 (peft.rank)", "enabled, method, r"),
    "rank": (GOOD + "peft: {enabled: true, r: 0}\n", ":8 (peft.r)", "0 (int)", "a whole number from 1"),
    "tab": (GOOD.replace("  learning_rate", "\tlearning_rate"), ":7:1", "YAML", "Indent with spaces"),
    "colon": (changed("learning_rate: 1e-5", "learning_rate: : 1"), ":7:18", "YAML"),
    "bracket": (changed("1e-5", "[1e-5"), ":8:1", "YAML"),
    "indent": (changed("  span_mode", "   span_mode"), ":3:13", "YAML"),
    "two documents": (GOOD + "---\n" + GOOD, ":8:1", "YAML"),
    "object": (changed("1e-5", "!!python/object:os.system x"), ":7:18", "YAML"),
    "control character": ("model: \x07\n", "", "YAML"),
    "empty": ("# nothing\n", "", "empty", "a mapping"),
    "list": ("- a\n- b\n", "", "list", "a mapping"),
    "number as a key": ("3: a\n", ":1", "the key 3"),
    "another task": ("task: text-classification\nbase_model: x\n", ":1 (task)", "token-classification"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_mistake(name, tmp_path):
    text, place, *mentioned = CASES[name]
    source = written(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        to_config(source)
    message = str(raised.value)
    assert raised.value.where == f"{source}{place}"
    assert [word for word in mentioned if word not in message] == []
    assert "\n" not in message and "hf_abcdef" not in message


def test_correct_file(tmp_path):
    assert to_config(written(tmp_path, GOOD)).config["train"]["transformer_lr"] == 1e-5


def test_encodings(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_bytes("model: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8") as raised:
        to_config(path)
    assert raised.value.where == str(path)
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert to_config(path).config["train"]["max_steps"] == 10_000


@pytest.mark.parametrize(
    "key", [line.split(":")[0].strip() for line in UNIFIED.splitlines() if line.startswith("  ")]
)
def test_every_key_refuses_a_mapping_of_numbers(key, tmp_path, backbone):
    """It is a mistake under every key that does not take any value."""
    lines = [
        f"{line[: len(line) - len(line.lstrip())]}{key}: {{5: 6}}"
        if line.strip().startswith(f"{key}:")
        else line
        for line in UNIFIED.splitlines()
        if not (key in ("fields", "long_doc_chunking") and line.startswith("    "))
    ]
    source = written(tmp_path, "\n".join(lines), backbone)
    with pytest.raises(ConfigError) as raised:
        to_config(source)
    assert raised.value.where.startswith(f"{source}:") and key in raised.value.where
