"""Readers chosen by files, columns and records."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset, DatasetDict

from gliner_pipe.data.annotations import gold_spans
from gliner_pipe.data.detect import reader_of_dataset, reader_of_path, reader_of_records
from gliner_pipe.data.files import Place
from gliner_pipe.data.readers import Reader, Record
from gliner_pipe.data.readers.base import reader
from gliner_pipe.errors import ConfigError, DataError

WORDS = ["Ann", "Lee", "left"]
TAGS = ["B-person", "I-person", "O"]
TEXT = {"text": "Ann Lee left", "entities": [[0, 7, "person"]]}
GLINER = {"tokenized_text": WORDS, "ner": [[0, 1, "person"]]}
CSV = "id,{},{},lang\n1,\"['Ann', 'Lee', 'left']\",\"['B-person', 'I-person', 'O']\",en\n"


def found(reader, nlp):
    return [[(span.text.strip(), span.label_) for span in gold_spans(e.reference)] for e in reader(nlp)]


ONE = [[("Ann Lee", "person")]]


@pytest.mark.parametrize(
    "record",
    [
        TEXT,
        GLINER,
        {"tokens": WORDS, "tags": TAGS},
        {"words": WORDS, "ner_tags": TAGS, "pos_tags": ["N", "N", "V"]},
        {"tokens": WORDS, "labels": ["person", "person", "O"]},
        {"tokens": WORDS, "ner": TAGS},
        {"tokens": WORDS, "ner": [[0, 1, "person"]]},
        {"tokenized_text": WORDS, "ner": TAGS},
        {"tokenized_text": WORDS, "tags": TAGS},
    ],
)
def test_records(write, nlp, record):
    assert found(reader_of_path(write("a.jsonl", [record, record])), nlp) == ONE * 2
    assert found(reader_of_path(write("a.json", json.dumps([record]))), nlp) == ONE
    assert found(reader_of_records([record, record]), nlp) == ONE * 2


@pytest.mark.parametrize("columns", [("tokens", "tags"), ("words", "ner_tags"), ("tokens", "labels")])
def test_tables(write, nlp, tmp_path, columns):
    text = CSV.format(*columns)
    assert found(reader_of_path(write("a.csv", text)), nlp) == ONE
    assert found(reader_of_path(write("a.tsv", text.replace(",\"", "\t\"").replace("\",", "\"\t").replace(",", "\t", 3).replace("1,", "1\t"))), nlp) == ONE  # fmt: skip
    data = Dataset.from_list([{columns[0]: WORDS, columns[1]: TAGS, "id": "1"}])
    data.to_parquet(str(tmp_path / "a.parquet"))
    data.save_to_disk(tmp_path / "saved")
    assert found(reader_of_path(tmp_path / "a.parquet"), nlp) == ONE
    assert found(reader_of_path(tmp_path / "saved"), nlp) == ONE
    assert found(reader_of_dataset(data), nlp) == ONE


def test_a_tsv_file_of_words_is_a_column_file(write, nlp):
    assert found(reader_of_path(write("a.tsv", "Ann\tB-person\nLee\tI-person\nleft\tO\n")), nlp) == ONE
    assert found(reader_of_path(write("b.tsv", "token\tNN\tO\nAnn\tNN\tB-person\n")), nlp) == [
        [("Ann", "person")]
    ]


def test_words_in_rows_and_in_objects(write, nlp, tmp_path):
    words = [{"sentence_id": 1, "word": word, "tag": tag} for word, tag in zip(WORDS, TAGS, strict=True)]
    objects = [{"id": 1, "data": {"tokens": WORDS, "tags": TAGS}}]
    for name, records in (("words", words), ("objects", objects)):
        assert found(reader_of_records(records), nlp) == ONE
        assert found(reader_of_path(write(f"{name}.jsonl", records)), nlp) == ONE
        data = Dataset.from_list(records)
        assert found(reader_of_dataset(data), nlp) == ONE
        assert found(reader_of_dataset(data.to_iterable_dataset()), nlp) == ONE
        assert found(reader_of_dataset(data.to_pandas()), nlp) == ONE
        assert found(reader_of_dataset({"train": data.data.table}), nlp) == ONE
        data.to_parquet(str(tmp_path / f"{name}.parquet"))
        data.save_to_disk(tmp_path / name)
        assert found(reader_of_path(tmp_path / f"{name}.parquet"), nlp) == ONE
        assert found(reader_of_path(tmp_path / name), nlp) == ONE
    text = "Sentence #,Word,POS,Tag\nSentence: 1,Ann,X,B-person\n,Lee,X,I-person\n,left,X,O\n"
    assert found(reader_of_path(write("a.csv", text)), nlp) == ONE
    assert found(reader_of_path(write("a.tsv", text.replace(",", "\t"))), nlp) == ONE
    assert (
        found(reader_of_path(write("b.tsv", 'word\ttag\n"\tO\nAnn\tB-person\nLee\tI-person\n')), nlp) == ONE
    )


def test_training_and_validation_read_their_splits(write, nlp, tmp_path, fails):
    rows = {name: [{"tokens": [name], "tags": ["B-x"]}] for name in ("train", "dev", "test")}
    for name, records in rows.items():
        write(f"folder/{name}.jsonl", records)
        Dataset.from_list(records).to_parquet(str(tmp_path / "folder2" / f"{name}.parquet"))
    splits = DatasetDict({name: Dataset.from_list(records) for name, records in rows.items()})
    splits.save_to_disk(tmp_path / "saved")
    for made in (
        lambda **options: reader_of_path(tmp_path / "folder", **options),
        lambda **options: reader_of_path(tmp_path / "folder2", **options),
        lambda **options: reader_of_path(tmp_path / "saved", **options),
        lambda **options: reader_of_dataset(splits, **options),
    ):
        assert found(made(), nlp) == [[("train", "x")]]
        assert found(made(validation=True), nlp) == [[("dev", "x")]]
    del splits["dev"]
    splits.save_to_disk(tmp_path / "rest")
    for make in (
        lambda: reader_of_dataset(splits, validation=True),
        lambda: reader_of_path(tmp_path / "rest", validation=True),
    ):
        with fails(ConfigError, "train.val_data"):
            make()
    del splits["train"]
    with fails(ConfigError, "train.train_data"):
        reader_of_dataset(splits)


@pytest.mark.parametrize("columns", ["id,words,tokens,tags", "id,text", "tokens,tags,ner_tags"])
def test_unclear_columns(write, columns, fails):
    with fails(DataError, "a.csv"):
        reader_of_path(write("a.csv", f"{columns}\n1,2\n"))


def test_errors_name_the_record(nlp, fails):
    broken = {"tokenized_text": ["Ann"], "ner": [[0, 5, "person"]]}
    reader = reader_of_records([GLINER, GLINER, GLINER, broken])
    with fails(DataError, "record 3 (ner[0][1])"):
        list(reader(nlp))
    with fails(DataError, "record 1 (tags)"):
        list(reader_of_records([{"tokens": WORDS, "tags": TAGS}, {"tokens": WORDS, "tags": ["O"]}])(nlp))
    with fails(DataError, "record 0"):
        reader_of_records([{"a": 1, "b": 2}])


def test_messages_do_not_contain_the_records(nlp, caplog):
    reader = reader_of_records([{**GLINER, "lang": "en"}])
    assert found(reader, nlp) == ONE
    assert "the records: 1 x unknown field 'lang' (ignored)" in caplog.text


def test_a_missing_path(tmp_path, fails):
    with fails(DataError, "conll2003"):
        reader_of_path(tmp_path / "conll2003")


def test_folders_and_patterns(write, nlp, tmp_path):
    """Hidden files are skipped, and .txt files decide only if there is nothing else."""
    write("mixed/README.txt", "About this data.")
    write("mixed/.cache/old.csv", "a,b\n1,2\n")
    write("mixed/sub/a.jsonl", [TEXT])
    write("columns/a.txt", "Ann\tB-person\nLee\tI-person\nleft\tO\n")
    for path in (tmp_path / "mixed", f"{tmp_path}/**/*.jsonl", tmp_path / "columns", f"{tmp_path}/columns/*"):
        assert found(reader_of_path(path), nlp) == ONE


def test_a_named_reader_is_not_detected_except_for_its_columns(write, nlp):
    path = write("a.csv", CSV.format("words", "labels"))
    assert found(reader_of_path(path, name="bio"), nlp) == ONE
    assert found(reader_of_path(write("a.data", "Ann Lee B-person\n"), name="conll"), nlp) == [
        [("Ann", "person")]
    ]


def test_an_unknown_record_or_ending(write, fails):
    for name, content, where in (
        ("a.jsonl", [{"a": 1}], "a.jsonl:1"),
        ("a.json", "[7]", "a.json:1"),
        ("a.doc", "x", "a.doc"),
    ):
        path = write(name, content)
        with fails(DataError, where):
            reader_of_path(path)


def test_a_further_reader_is_found_by_its_own_ending(write, nlp):
    @reader("capitals_of_tests")
    class Capitals(Reader):
        """Words with a capital are persons; endings of built-in readers stay theirs."""

        suffixes = (".capitals", ".conll")

        def records(self, file, report):
            words = file.read_text("utf8").split()
            entities = [(i, i + 1, "person") for i, word in enumerate(words) if word.istitle()]
            yield Record(Place(str(file)), words=words, entities=entities)

    path = write("folder/a.capitals", "Ann left")
    for given in (path, path.parent, f"{path.parent}/*.capitals"):
        assert found(reader_of_path(given), nlp) == [[("Ann", "person")]]
    assert found(reader_of_path(write("a.conll", "Ann B-city\n")), nlp) == [[("Ann", "city")]]
