"""Examples on disk are those that a list would hold, with the same counts, reports and errors."""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter

import pytest
import spacy
from spacy.training import Example

from gliner_pipe.data import on_disk as module
from gliner_pipe.data.annotations import supervision
from gliner_pipe.data.checks import (
    CountRules,
    check_examples,
    count_labels,
    count_places,
    count_relations,
)
from gliner_pipe.data.lazy import Changed, Joined, Subset, joined
from gliner_pipe.data.on_disk import Storage, is_large, on_disk
from gliner_pipe.data.readers.conll import ConllReader
from gliner_pipe.data.readers.gliner2_json import gliner2_json
from gliner_pipe.data.readers.json import gliner_json, jsonl
from gliner_pipe.errors import DataError
from gliner_pipe.training.resuming import describe_data
from gliner_pipe.util import processes

RULES = CountRules("gliner", 2)


@pytest.fixture(scope="module")
def nlp():
    return spacy.blank("en")


@pytest.fixture(autouse=True)
def several_processes(monkeypatch):
    """Small blocks, so that several processes read a small file."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 200)
    monkeypatch.setattr(module, "BLOCK", 3)
    monkeypatch.setattr("gliner_pipe.data.lazy.BLOCK", 3)
    if sys.platform == "linux":
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def words(number):
    rng = random.Random(number)
    made = []
    for i in range(number):
        text = [rng.choice(["Ann", "Bo", "é", "\u2028", "of", "x\u00a0y"]) for _ in range(rng.randint(1, 9))]
        ner = [[0, rng.randrange(len(text)), rng.choice(["person", " city ", "a b"])]]
        record = {"tokenized_text": text, "ner": ner, "id": i}
        if i % 3 == 0:
            record |= {"relations": [[0, 0, "self"]], "ner_negatives": ["zebra"]}
        made.append(record | ({"odd": 1} if i > 20 else {}))
    return made


def texts(number):
    return [
        {"text": f"Ann met Bo {i}.", "entities": [[0, 3, "person"], [8, 9, "person"]], "answer": "accept"}
        if i % 4
        else {"text": "no", "spans": [], "answer": "reject"}
        for i in range(number)
    ]


def write(path, records, end="\n"):
    path.write_text(
        end.join(json.dumps(one, ensure_ascii=False) for one in records) + end, "utf8", newline=""
    )
    return path


def stored(reader, nlp, folder, limit=None, rules=RULES):
    return on_disk(reader, nlp, Storage(folder, "train", rules), limit)


def same(one: Example, other: Example) -> bool:
    pairs = (one.reference, other.reference), (one.predicted, other.predicted)
    return all(a.to_bytes() == b.to_bytes() for a, b in pairs) and supervision(one.reference) == supervision(
        other.reference
    )


def in_memory(reader, nlp):
    return [example for example in reader(nlp) if module.has_words(example.reference)]


def emoji(number):
    """UTF-16 offsets: the whole file tells."""
    plain = [{"text": "Ann is here.", "entities": [[0, 3, "p"]]}] * 5
    return (
        plain
        + [{"text": "😀 Ann is", "entities": [{"start": 3, "end": 6, "label": "p", "text": "Ann"}]}] * number
    )


def doubtful(number):
    """Code points, for which only the whole file speaks."""
    some = [{"text": "é, Ann-Mary is", "entities": [[3, 6, "p"]]}] * number
    return [*some, {"text": "Ann", "entities": [{"start": 0, "end": 3, "label": "p", "text": "Ann"}]}]


def utf16(path, **options):
    return jsonl(path, offsets="utf16", **options)


def tags(number):
    return [{"tokenized_text": ["Ann", "in", "Oslo"], "ner": ["B-p", "O", "B-c"]} for _ in range(number)]


def tasks(number):
    """Entities, classes, records and relations of GLiNER2, some of which are not there."""
    classes = [{"task": "tone", "labels": ["good", "bad"], "true_label": ["good"]}]
    output = {
        "entities": {"person": ["Ann", "Eve"]},
        "classifications": classes,
        "json_structures": [
            {"home": {"who": "Ann", "kind": {"value": "a", "choices": ["a", "b"]}, "places": ["Oslo"]}}
        ],
        "relations": [{"in": {"head": "Ann", "tail": "Oslo"}}],
    }
    return [
        {"input": f"Ann in Oslo {i}.", "output": output if i % 3 else {"classifications": classes}}
        for i in range(number)
    ]


@pytest.mark.parametrize(
    ("reader", "records"),
    [
        (gliner_json, words(40)),
        (jsonl, texts(30)),
        (jsonl, emoji(20)),
        (jsonl, doubtful(20)),
        (utf16, emoji(20)),
        (gliner_json, tags(30)),
        (gliner2_json, tasks(30)),
        (gliner_json, [{"tokenized_text": [" "], "ner": []}, *words(30)]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n \n", ",\n"])
def test_examples_counts_and_reports_are_the_same(nlp, tmp_path, reader, records, end, caplog):
    path = tmp_path / "train.jsonl"
    if end == ",\n":  # one array
        path.write_text(json.dumps(records, indent=1), "utf8")
    else:
        write(path, records, end)
    plain, disk = reader(str(path)), reader(str(path))
    expected = in_memory(plain, nlp)
    logged = [record.getMessage() for record in caplog.records]
    caplog.clear()
    for _ in range(2):  # the second one is found on disk
        found = stored(disk, nlp, tmp_path / "cache")
        assert len(found) == len(expected)
        assert all(same(one, other) for one, other in zip(expected, found, strict=True))
        assert check_examples(expected, max_width=2, flat_ner=False) == found.gold_counts().report
        assert list(count_labels(found, "gliner").items()) == list(count_labels(expected, "gliner").items())
        assert count_relations(found) == count_relations(expected)
        assert count_places(found) == count_places(expected)
        assert describe_data(found, "gliner") == describe_data(expected, "gliner")
        read = Counter(
            {reason: n for reason, n in disk.report.items() if reason != "text without words (skipped)"}
        )
        assert read == plain.report
        assert disk.report.examples == plain.report.examples
        if "text without words (skipped)" not in disk.report:
            assert disk.report.first == plain.report.first
            assert [record.getMessage() for record in caplog.records] == logged
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "bad", ['{"tokenized_text": ["a"], "ner": [[0, 7, "x"]]}', "{", '{"tokenized_text": []}']
)
@pytest.mark.parametrize("several", [False, True])
def test_a_damaged_record_is_the_same_error(nlp, tmp_path, bad, several):
    lines = [json.dumps(record) for record in words(40)]
    lines[30] = bad
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join(lines), "utf8")
    with pytest.raises(DataError) as expected:
        list(gliner_json(str(path))(nlp))
    with pytest.raises(DataError) as found:
        stored(gliner_json(str(path), limit=None if several else 99), nlp, tmp_path / "cache")
    assert str(found.value) == str(expected.value)
    assert "train.jsonl:31" in str(found.value)
    assert not list((tmp_path / "cache").glob("*.records"))


def test_the_file_is_found_again_only_for_the_same_data_and_options(nlp, tmp_path):
    path = write(tmp_path / "train.jsonl", words(20))
    folder = tmp_path / "cache"

    def name(**options):
        stored(gliner_json(str(path), **options), nlp, folder)
        (file,) = folder.iterdir()
        return file.name

    first = name()
    assert name() == first
    assert name(label_map={"person": "human"}) != first
    assert name(limit=3) != first
    path.write_text(path.read_text("utf8").replace("Ann", "Eva"), "utf8")
    os.utime(path, (1, 1))
    assert name() != first
    assert "Eva" in " ".join(one.reference.text for one in stored(gliner_json(str(path)), nlp, folder))


def test_other_readers(nlp, tmp_path):
    path = tmp_path / "train.conll"
    path.write_text("".join(f"Ann{i} B-person\nleft O\n\n" for i in range(20)), "utf8")
    expected = in_memory(ConllReader(str(path)), nlp)
    found = stored(ConllReader(str(path)), nlp, tmp_path / "cache", limit=7)
    assert len(found) == 7 and all(map(same, expected, found))
    for one in expected:
        one.reference[0].tag_ = "NNP"
    found = stored(lambda nlp: iter(expected), nlp, tmp_path / "cache")
    assert len(found) == 20 and all(map(same, expected, found))
    assert found[3].reference[0].tag_ == "NNP"
    records = gliner_json(words(30))
    assert all(map(same, in_memory(records, nlp), stored(records, nlp, tmp_path / "cache")))
    assert len(list((tmp_path / "cache").iterdir())) == 1  # only files with a path of their own remain


def test_sequences(nlp, tmp_path):
    reader = gliner_json(str(write(tmp_path / "train.jsonl", words(20))))
    expected = in_memory(reader, nlp)
    found = stored(reader, nlp, tmp_path / "cache")
    part = found[15:3:-4]
    assert isinstance(part, Subset)
    assert all(map(same, expected[15:3:-4], part)) and same(part[-1], expected[7])
    assert count_labels(part, "gliner") == count_labels(expected[15:3:-4], "gliner")
    both = joined([part, expected[:2]])
    assert isinstance(both, Joined)
    plain = [*expected[15:3:-4], *expected[:2]]
    assert all(map(same, plain, both)) and all(same(both[i], plain[i]) for i in range(-5, 5))
    assert all(map(same, plain[1:4], both[1:4]))
    assert count_labels(both, "gliner") == count_labels(plain, "gliner")
    assert describe_data(part, "gliner") == describe_data(expected[15:3:-4], "gliner")
    assert joined([expected[:2], expected[2:]]) == expected
    changed = Changed(found, lambda example: Example(example.predicted, example.predicted))
    assert not count_labels(changed, "gliner")
    with pytest.raises(IndexError):
        found[20]


def test_large_data_are_recognized_by_their_files(tmp_path, monkeypatch):
    path = write(tmp_path / "train.jsonl", words(20))
    assert not is_large(gliner_json(str(path)))
    monkeypatch.setattr(module, "LARGE", path.stat().st_size - 1)
    assert is_large(gliner_json(str(path))) and is_large(gliner_json(str(tmp_path / "*.jsonl")))
    assert is_large(gliner_json(str(tmp_path)))
    assert not is_large(lambda nlp: []) and not is_large(gliner_json(words(20)))
    assert not is_large(gliner_json(str(tmp_path / "missing.jsonl")))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_calls_in_several_processes_are_in_order():
    def called(number):
        return number, os.getpid()

    found = list(processes.in_order(called, range(50), "testing", 50))
    assert [number for number, _ in found] == list(range(50))
    assert os.getpid() not in {process for _, process in found}
    with pytest.raises(ZeroDivisionError):
        list(processes.in_order(lambda number: 1 / (number - 20), range(50), "testing", 50))
