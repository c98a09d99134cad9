from __future__ import annotations

import json

import pytest
import spacy
from confit import Config
from datasets import Dataset, DatasetDict, Features, Sequence, Value
from spacy.tokens import DocBin

from gliner_pipe.data.annotations import gold_spans
from gliner_pipe.data.splitting import Chunk
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry
from gliner_pipe.training.data_sections import TrainData, ValidationData, make_section
from gliner_pipe.training.datasets import read_training, read_validation

RECORDS = [
    {"tokenized_text": ["Ann", "lives", "in", "Oslo", "."], "ner": [[0, 0, "person"], [3, 3, "city"]]},
    {"tokenized_text": ["Bob", "left", "."], "ner": [[0, 0, "person"]]},
    {"tokenized_text": ["Nobody", "left", "."], "ner": []},
]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, RECORDS)), encoding="utf8")
    return file


@pytest.fixture
def blank():
    return spacy.blank("en")


def texts(value, blank, kind=TrainData):
    return [
        e.reference.text for section in kind.validate(value) for e in section.read(blank, "train.train_data")
    ]


def test_all_forms_give_the_same_examples(path, blank):
    reader = {"@readers": "gliner_json", "path": str(path)}
    expected = ["Ann lives in Oslo . ", "Bob left . ", "Nobody left . "]
    section = TrainData.validate({"reader": reader})[0]
    assert texts({"reader": reader}, blank) == expected
    assert texts({"reader": section.reader}, blank) == expected
    assert texts({"reader": str(path)}, blank) == expected
    assert texts(str(path), blank) == expected
    assert texts(path, blank) == expected
    assert texts(section.reader, blank) == expected
    assert texts(list(section.reader(blank)), blank) == expected
    assert texts([path, {"reader": reader, "limit": 1}], blank) == [*expected, expected[0]]
    assert TrainData.validate(None) is None


def test_records_and_data_sets_in_memory(blank):
    expected = ["Ann lives in Oslo . ", "Bob left . ", "Nobody left . "]
    tagged = [
        {"tokens": record["tokenized_text"], "tags": ["O"] * len(record["tokenized_text"])}
        for record in RECORDS
    ]
    data = Dataset.from_list(tagged)
    assert texts(RECORDS, blank) == expected
    assert texts(tuple(RECORDS), blank) == expected
    assert texts({"reader": RECORDS, "limit": 2}, blank) == expected[:2]
    assert texts(tagged, blank) == expected
    assert texts([{"text": "Ann left", "entities": []}], blank) == ["Ann left"]
    assert texts(data, blank) == expected
    assert texts({"reader": data}, blank) == expected
    assert texts([RECORDS, data], blank) == expected * 2
    splits = DatasetDict(train=data, validation=data.select([1]))
    assert texts(splits, blank) == expected
    assert texts(splits, blank, ValidationData) == expected[1:2]
    assert texts({"reader": splits}, blank, ValidationData) == expected[1:2]


def test_tables_in_memory_with_texts_and_entities(blank):
    """Objects of lists are how ``Sequence`` of the package datasets stores a list of objects."""
    entities = [{"start": 0, "end": 3, "label": "person"}, {"start": 13, "end": 17, "label": "city"}]
    rows = [{"text": "Ann lives in Oslo.", "entities": entities}, {"text": "It rained.", "entities": []}]
    columns = {name: [[entity[name] for entity in row["entities"]] for row in rows] for name in entities[0]}
    kinds = {"start": Value("int64"), "end": Value("int64"), "label": Value("string")}
    of_lists = Dataset.from_list(
        [
            {"text": row["text"], "entities": {name: columns[name][i] for name in columns}}
            for i, row in enumerate(rows)
        ],
        features=Features({"text": Value("string"), "entities": Sequence(kinds)}),
    )
    data = Dataset.from_list(rows)
    for form in (data, of_lists, data.to_iterable_dataset(), data.to_pandas(), data.data.table, [data]):
        (section,) = TrainData.validate(form)
        first, second = section.read(blank, "x")
        assert [(s.text, s.label_) for s in gold_spans(first.reference)] == [
            ("Ann", "person"),
            ("Oslo", "city"),
        ]
        assert second.reference.text == "It rained." and not gold_spans(second.reference)


def test_sentences_of_words_and_tags(blank):
    words = [["Ann", "lives", "in", "Oslo"], ["Bob", "left"]]
    tags = [["B-person", "O", "O", "B-city"], ["B-person", "O"]]
    tuples = list(zip(words, tags, strict=True))
    pairs = [list(zip(*one, strict=True)) for one in tuples]
    for form in (tuples, [list(one) for one in tuples], pairs, {"reader": pairs}, pairs[1:] * 2):
        (section,) = TrainData.validate(form)
        examples = section.read(blank, "x")
        assert [s.text.strip() for s in gold_spans(examples[-1].reference)] == ["Bob"]
    assert texts([tuples, pairs], blank) == ["Ann lives in Oslo ", "Bob left "] * 2


def test_a_block_stands_for_its_section(path, blank):
    assert texts({"@readers": "gliner_json", "path": str(path), "limit": 1}, blank) == [
        "Ann lives in Oslo . "
    ]


def test_a_folder_gives_each_purpose_its_split(tmp_path, blank):
    for name in ("train", "valid"):
        row = {"tokens": [name], "ner_tags": ["O"]}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row), encoding="utf8")
    assert texts(tmp_path, blank) == ["train "]
    assert texts(str(tmp_path), blank, ValidationData) == ["valid "]


def test_errors_in_records_name_the_record(blank):
    broken = {"tokenized_text": ["a"], "ner": [[0, 0, "x"], [0, 3, "x"]]}
    with pytest.raises(DataError, match=r"^record 3 \(ner\[1\]\[1\]\) is 3"):
        texts([*RECORDS, broken], blank)
    with pytest.raises(ConfigError) as caught:
        TrainData.validate([{"foo": 1}])
    assert caught.value.where == "train.train_data.foo" and "reader, randomize" in caught.value.allowed
    with pytest.raises(DataError, match=r"^record 0 has the fields foo"):
        TrainData.validate({"reader": [{"foo": 1}]})


def test_paths_find_their_reader(tmp_path, path, blank):
    conll = tmp_path / "a.conll"
    conll.write_text("Ann B-person\nleft O\n", encoding="utf8")
    assert texts(conll, blank) == ["Ann left "]
    text = tmp_path / "b.jsonl"
    text.write_text(json.dumps({"text": "Ann left", "entities": [[0, 3, "person"]]}), encoding="utf8")
    assert texts(text, blank) == ["Ann left"]
    folder = tmp_path / "brat"
    folder.mkdir()
    (folder / "one.txt").write_text("Ann left", encoding="utf8")
    (folder / "one.ann").write_text("T1\tperson 0 3\tAnn\n", encoding="utf8")
    assert texts(folder, blank) == ["Ann left"]
    binary = tmp_path / "c.spacy"
    doc = blank("Ann left")
    doc.spans["gliner"] = [doc[:1]]
    DocBin(docs=[doc], store_user_data=True).to_disk(binary)
    assert texts(binary, blank) == ["Ann left"]
    (tmp_path / "d.pdf").write_text("", encoding="utf8")
    with pytest.raises(DataError, match="has no known format"):
        TrainData.validate(tmp_path / "d.pdf")
    with pytest.raises(DataError, match=r"nowhere.jsonl.*does not exist"):
        TrainData.validate(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    "options",
    [{"max_len": 3}, {"max_length": "long"}, {"limit": -1}, {"randomize": 1}, {"limit": True}, {"reader": 3}],
)
def test_invalid_options_fail(path, options):
    with pytest.raises(ConfigError) as caught:
        make_section({"reader": str(path), **options}, "train.val_data")
    [name] = options
    assert caught.value.where == f"train.val_data.{name}" and caught.value.allowed


def test_a_section_without_reader_and_an_empty_list():
    for form, value, where in ((ValidationData, {"limit": 3}, "val_data"), (TrainData, [], "train_data")):
        with pytest.raises(ConfigError) as caught:
            form.validate(value)
        assert caught.value.where == f"train.{where}"


def test_data_without_words_are_refused(blank):
    with pytest.raises(DataError) as caught:
        read_validation(blank, ValidationData.validate({"reader": lambda nlp: iter(())}))
    assert caught.value.where == "[train.val_data]"


def test_batches_cover_each_pass_and_follow_the_seed(path, blank):
    import random
    from itertools import islice

    datasets = read_training(blank, TrainData.validate(str(path)), "1 sample")
    drawn = [b[0].reference.text for b in islice(datasets[0].batches(random.Random(1)), 9)]
    assert all(sorted(drawn[i : i + 3]) == sorted({*drawn}) for i in (0, 3, 6))
    assert drawn == [b[0].reference.text for b in islice(datasets[0].batches(random.Random(1)), 9)]
    assert any(
        drawn != [b[0].reference.text for b in islice(datasets[0].batches(random.Random(seed)), 9)]
        for seed in range(2, 5)
    )
    plain = read_training(blank, TrainData.validate({"reader": str(path), "randomize": False}), 2)
    sizes = [len(batch) for batch in islice(plain[0].batches(random.Random(1)), 4)]
    assert sizes == [2, 1, 2, 1]


def test_long_documents_are_cut(path, blank):
    section = {"reader": str(path), "max_length": 4, "randomize": False}
    dataset = read_training(blank, TrainData.validate(section), "10 words")[0]
    assert max(len(example.reference) for example in dataset.parts()) <= 4
    assert sum(len(example.reference.spans["gliner"]) for example in dataset.parts()) == 3


def test_labels_belong_to_validation(path, blank):
    section = {"reader": str(path), "labels": ["person"]}
    assert read_validation(blank, ValidationData.validate(section))[1] == ["person"]
    with pytest.raises(ConfigError, match=r"train.train_data.labels"):
        read_training(blank, TrainData.validate(section), 1)


@pytest.mark.parametrize(
    "chunk", ['chunk = {"max_words": 4, "stride": 1}', "[data.chunk]\nmax_words = 4\nstride = 1"]
)
def test_sections_of_a_config(tmp_path, blank, chunk):
    row = {"words": [f"w{i}" for i in range(9)], "labels": ["O"] * 9}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf8")
    text = f"""
[data]
weight = 2.5
{chunk}

[data.reader]
@readers = "bio"
path = "{tmp_path / "a.jsonl"}"
tokens_column = "words"
tags_column = "labels"
"""
    (section,) = TrainData.validate(Config.from_str(text).resolve(registry=registry)["data"])
    assert (section.chunk, section.weight) == (Chunk(4, 1), 2.5)
    (dataset,) = read_training(blank, [section], "1 sample")
    assert [len(part.reference) for part in dataset.parts()] == [4, 4, 3]
