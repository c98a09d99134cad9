"""Tables with words and tags: files, folders, saved data sets and data sets in memory."""

from __future__ import annotations

import json
import sys

import pytest
from confit import Config
from confit.errors import ConfitValidationError
from datasets import ClassLabel, Dataset, DatasetDict, Features, IterableDatasetDict, Sequence, Value

from gliner_pipe.data.annotations import gold_spans, supervision
from gliner_pipe.data.readers import bio
from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.registry import registry

NAMES = ["O", "B-PER", "I-PER", "B-LOC"]
ROWS = [
    {"tokens": ["Ann", "Lee", "left", "Paris"], "tags": ["B-PER", "I-PER", "O", "B-LOC"]},
    {"tokens": ["Nobody", "left"], "tags": ["O", "O"]},
]
EXPECTED = [("Ann Lee left Paris", [(0, 2, "PER"), (3, 4, "LOC")]), ("Nobody left", [])]


def ids(rows=ROWS):
    return [{"tokens": row["tokens"], "tags": [NAMES.index(tag) for tag in row["tags"]]} for row in rows]


def classes(rows=ROWS):
    features = Features(
        {"tokens": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=NAMES)), "n": Value("int32")}
    )
    return Dataset.from_list([{**row, "n": i} for i, row in enumerate(ids(rows))], features=features)


def read(nlp, path, **options):
    return [
        (
            " ".join(token.text for token in example.reference),
            [(span.start, span.end, span.label_) for span in gold_spans(example.reference)],
        )
        for example in bio(path, **options)(nlp)
    ]


def csv(delimiter=",", dump=repr, rows=ROWS):
    lines = [delimiter.join(("tokens", "tags"))]
    lines += [
        delimiter.join(f'"{dump(row[name])}"'.replace("\\", "") for name in ("tokens", "tags"))
        for row in rows
    ]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json(write, nlp, name):
    assert read(nlp, write(name, ROWS)) == EXPECTED
    assert read(nlp, write(f"array-{name}", json.dumps(ROWS))) == EXPECTED


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", csv()),
        ("a.csv", csv(dump=lambda value: json.dumps(value).replace('"', '""'))),
        ("a.csv", "\ufeff" + csv().replace("\n", "\r\n")),
        ("a.csv", csv(";")),
        ("a.tsv", csv("\t")),
        ("a.csv", csv().replace("tokens,tags", "id,tokens,tags").replace('"[\'A', "1,\"['A").replace('"[\'No', "2,\"['No")),
    ],
)  # fmt: skip
def test_csv(write, nlp, name, content):
    assert read(nlp, write(name, content)) == EXPECTED


def test_csv_with_ids(write, nlp, fails):
    path = write("a.csv", csv(rows=ids()))
    assert read(nlp, path, tag_names=NAMES) == EXPECTED
    assert read(nlp, path, tag_names=dict(enumerate(NAMES))) == EXPECTED
    with fails(DataError, "a.csv:2 (tags[0])"):
        read(nlp, path)


def test_cells_over_several_lines_keep_the_line_of_their_row(write, nlp, fails):
    path = write("a.csv", "tokens,tags\n\"['Ann',\n 'left']\",\"['B-PER', 'O']\"\n\nnone,\"['O']\"\n")
    with fails(DataError, "a.csv:5 (tokens)"):
        read(nlp, path)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ('tokens,tags\nAnn left,"[\'O\']"\n', "a.csv:2 (tokens)"),
        ("tokens,tags\n\"['Ann' 'left'\",\"['O' 'O']\"\n", "a.csv:2 (tokens)"),
        ('tokens,tags\n"[\'Ann\', \'left\']",[1 0]\n', "a.csv:2 (tags[0])"),
        ("tokens,tags\n\"__import__('os').getcwd()\",\"['O']\"\n", "a.csv:2 (tokens)"),
        ("tokens,tags\n['Ann', 'left'],['O', 'O']\n", "a.csv:2"),
        ("tokens,ner_tags\n\"['Ann']\",\"['O']\"\n", "a.csv:2 (tags)"),
        ("words,tags\n\"['Ann']\",\"['O']\"\n", "a.csv:2 (tokens)"),
        ("tokens,tokens\n[],[]\n", "a.csv:1"),
        ('tokens,tags\n"[\'Ann\']"x,[]\n', "a.csv:2"),
        ("tokens,tags\n\"['Ann', 'left']\",\"['O']\"\n", "a.csv:2 (tags)"),
        ("tokens,tags\n[1],[0]\n", "a.csv:2 (tags[0])"),
        ("tokens,tags\n", "a.csv"),
        ("", "a.csv"),
    ],
)  # fmt: skip
def test_errors_in_csv(write, nlp, content, where, fails):
    path = write("a.csv", content)
    with fails(DataError, where):
        read(nlp, path)


def test_csv_with_long_texts(write, nlp):
    rows = [{"tokens": ["word"] * 40_000, "tags": ["O"] * 40_000}]
    ((text, found),) = read(nlp, write("a.csv", csv(rows=rows)))
    assert (len(text.split()), found) == (40_000, [])


def test_parquet(nlp, tmp_path, write, fails):
    path = str(tmp_path / "a.parquet")
    classes().to_parquet(path)
    assert read(nlp, path) == EXPECTED  # the file knows its classes
    Dataset.from_list(ids()).to_parquet(path)
    assert read(nlp, path, tag_names=NAMES) == EXPECTED
    with fails(DataError, "a.parquet:1 (tags[0])"):
        read(nlp, path)
    with fails(DataError, "a.parquet:1 (labels)"):
        read(nlp, path, tags_column="labels")
    with fails(DataError, "b.parquet"):
        read(nlp, write("b.parquet", "no"))


def test_pandas_writes_what_is_read(nlp, tmp_path):
    pandas = pytest.importorskip("pandas")
    pandas.DataFrame(ROWS).to_csv(tmp_path / "a.csv", index=False)
    assert read(nlp, tmp_path / "a.csv") == EXPECTED


def test_saved_data_sets(nlp, tmp_path, fails):
    classes().save_to_disk(tmp_path / "one")
    assert read(nlp, tmp_path / "one") == EXPECTED
    assert read(nlp, tmp_path / "one", tag_names=["O", "B-a", "I-a", "B-b"])[0][1] == [
        (0, 2, "a"),
        (3, 4, "b"),
    ]
    DatasetDict(train=classes(), test=classes(ROWS[1:])).save_to_disk(tmp_path / "two")
    assert read(nlp, str(tmp_path / "two")) == EXPECTED
    assert read(nlp, tmp_path / "two", split="test") == EXPECTED[1:]
    with fails(DataError, "two"):
        read(nlp, tmp_path / "two", split="dev")
    (example, *_) = bio(tmp_path / "two")(nlp)
    assert supervision(example.reference)["source"] == "train:1"


def test_data_sets_in_memory(nlp, fails):
    assert read(nlp, classes()) == EXPECTED
    assert read(nlp, Dataset.from_list(ROWS)) == EXPECTED
    assert read(nlp, classes().with_format("numpy")) == EXPECTED
    assert read(nlp, DatasetDict(dev=classes()), split="dev") == EXPECTED
    with fails(DataError, "the data set"):
        read(nlp, DatasetDict(dev=classes()))
    with fails(DataError, "record 1 (tags)"):
        read(nlp, Dataset.from_list([ROWS[0], {"tokens": ["a", "b"], "tags": ["O"]}]))
    with fails(DataError, "record 0 (tags[0])"):
        read(nlp, Dataset.from_list(ids()))


def test_folders_have_splits(write, nlp, tmp_path, fails):
    for name, rows in (("train", ROWS), ("validation", ROWS[1:])):
        write(f"csv/{name}.csv", csv(rows=rows))
        write(f"parts/{name}-00000-of-00002.jsonl", rows)
        write(f"parts/{name}-00001-of-00002.jsonl", rows)
        write(f"folders/{name}/a.jsonl", rows)
    write("whole/a.jsonl", ROWS)
    write("whole/b.csv", csv())
    assert read(nlp, tmp_path / "csv") == EXPECTED
    assert read(nlp, tmp_path / "csv", split="validation") == EXPECTED[1:]
    assert read(nlp, tmp_path / "parts") == EXPECTED * 2
    assert read(nlp, tmp_path / "folders", split="validation") == EXPECTED[1:]
    assert read(nlp, tmp_path / "whole") == EXPECTED * 2
    assert read(nlp, [str(tmp_path / "whole" / "a.jsonl"), str(tmp_path / "csv" / "*.csv")]) == [
        *EXPECTED,
        *EXPECTED,
        EXPECTED[1],
    ]
    assert read(nlp, tmp_path / "csv" / "validation.csv") == EXPECTED[1:]  # a file has no splits
    with fails(DataError, "csv"):
        read(nlp, tmp_path / "csv", split="gold")


def test_ids_repeated_over_an_entity(nlp):
    """The same class at each word of an entity: two entities in BIO, one with plain labels."""
    rows = Dataset.from_list(
        [{"tokens": ["John", "Smith", "works", "at", "Google"], "tags": [1, 1, 0, 0, 3]}]
    )
    names = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG"]
    reader = bio(rows, tag_names=names)
    (example,) = reader(nlp)
    assert [span.text.strip() for span in gold_spans(example.reference)] == ["John", "Smith", "Google"]
    assert reader.report.total() == 1
    assert read(nlp, rows, tag_names=["O", "person", "place", "company"]) == [
        ("John Smith works at Google", [(0, 2, "person"), (4, 5, "company")])
    ]


def test_the_scheme_is_inferred_from_all_rows_and_files(write, nlp, tmp_path):
    write("train/a.jsonl", [{"tokens": ["Ann", "Lee"], "tags": ["I-PER", "I-PER"]}])
    write("train/b.jsonl", [{"tokens": ["Bo", "Cy"], "tags": ["I-PER", "B-PER"]}])
    reader = bio(tmp_path)
    found = [[span.text.strip() for span in gold_spans(e.reference)] for e in reader(nlp)]
    assert found == [["Ann Lee"], ["Bo", "Cy"]]
    assert list(reader.report.values()) == [4]  # the scheme IOB1 is said, and nothing repaired
    assert read(nlp, tmp_path, scheme="plain")[0][1] == [(0, 2, "I-PER")]


def test_what_is_dropped_is_counted(write, nlp, fails):
    rows = [
        {"tokens": [], "tags": []},
        {"tokens": None, "tags": None},
        {"tokens": ["", "Ann", "Lee"], "tags": ["O", "B-PER", "I-PER"]},
        {"tokens": [""], "tags": ["O"]},
    ]
    reader = bio(write("a.jsonl", rows))
    (example,) = reader(nlp)
    assert [(span.start, span.end) for span in gold_spans(example.reference)] == [(0, 2)]
    assert reader.report == {"row without words (dropped)": 3, "empty word (dropped with its tag)": 2}
    with fails(DataError, "b.jsonl:1 (tags)"):
        read(nlp, write("b.jsonl", [{"tokens": [], "tags": ["O"]}]))
    with fails(DataError, "c.jsonl"):
        read(nlp, write("c.jsonl", rows[:1]))


@pytest.mark.parametrize(
    ("rows", "field"),
    [
        ([{"tokens": "Ann left", "tags": ["O", "O"]}], " (tokens)"),
        ([{"tokens": {"a": 1}, "tags": ["O"]}], " (tokens)"),
        ([{"tokens": ["Ann", 7], "tags": ["O", "O"]}], " (tokens[1])"),
        ([{"tokens": ["Ann"], "tags": None}], " (tags)"),
        ([{"tokens": ["Ann"], "tags": ["X-PER"]}, ROWS[0]], " (tags[0])"),
        ([7], ""),
    ],
)
def test_errors_in_json(write, nlp, rows, field, fails):
    path = write("a.jsonl", rows)
    with fails(DataError, f"a.jsonl:1{field}"):
        read(nlp, path)


def test_max_samples_are_evenly_spread(write, nlp):
    rows = [{"tokens": [f"w{i}"], "tags": ["O"]} for i in range(10)]
    path = write("a.jsonl", rows)
    assert [text for text, _ in read(nlp, path, max_samples=4)] == ["w0", "w2", "w5", "w7"]
    assert len(read(nlp, path, max_samples=99)) == 10
    assert [text for text, _ in read(nlp, path, limit=2)] == ["w0", "w1"]
    for wrong in (0, True):
        with pytest.raises(ConfitValidationError) as refused:
            bio(path, max_samples=wrong)
        assert refused.value.errors()[0]["loc"] == ("max_samples",)


def test_options_of_all_readers(write, nlp):
    options = {"label_map": {"PER": "person", "LOC": None}, "labels": ["person", "city"]}
    reader = bio(write("a.jsonl", ROWS), span_setter=["ents", "gold"], **options)
    example = next(iter(reader(nlp)))
    assert [(ent.text, ent.label_) for ent in example.reference.ents] == [("Ann Lee", "person")]
    assert [span.label_ for span in example.reference.spans["gold"]] == ["person"]
    assert supervision(example.reference)["ner_labels"] == ["person", "city"]


def test_a_reader_gives_the_same_in_each_pass(write, nlp, tmp_path, fails):
    reader = bio(write("a.jsonl", ROWS))
    assert [len(list(reader(nlp))) for _ in range(2)] == [2, 2]
    with fails(DataError, "nowhere.csv"):
        bio(tmp_path / "nowhere.csv")(nlp)  # at once, before an example is taken
    with fails(DataError, "path"):
        bio(None)(nlp)


@pytest.mark.parametrize("path", [7, [["a.csv"]], object()])
def test_paths_of_a_wrong_type(nlp, path, fails):
    with fails(ConfigError, "path"):
        bio(path)(nlp)


WORDS = "Sentence #,Word,POS,Tag\nSentence: 1,Ann,NNP,B-PER\n,Lee,NNP,I-PER\n,left,VBD,O\n,Paris,NNP,B-LOC\nSentence: 2,Nobody,X,O\n,left,VBD,O\n"


def test_one_word_in_each_row_with_the_first_of_each_sentence_marked(write, nlp):
    columns = {"tokens_column": "Word", "tags_column": "Tag"}
    assert read(nlp, write("a.csv", WORDS), **columns) == EXPECTED
    pandas = pytest.importorskip("pandas")
    assert read(nlp, pandas.read_csv(write("a.csv", WORDS)), **columns) == EXPECTED


@pytest.mark.parametrize("name", ["sentence_idx", "Sentence #", "sent_id", "sentence"])
def test_one_word_in_each_row_with_numbered_sentences(write, nlp, name, fails):
    rows = [
        {name: number, "tokens": word, "tags": tag}
        for number, row in enumerate(ROWS)
        for word, tag in zip(row["tokens"], row["tags"], strict=True)
    ]
    text = f"{name},tokens,tags\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows)
    assert read(nlp, write("a.csv", text)) == EXPECTED
    assert read(nlp, write("a.jsonl", rows)) == EXPECTED
    assert read(nlp, rows) == EXPECTED
    assert read(nlp, Dataset.from_list(rows)) == EXPECTED
    other = write("b.csv", text.replace(name, "number"))
    assert read(nlp, other, sentence_column="number") == EXPECTED
    with fails(DataError, "b.csv:2 (tokens)"):
        read(nlp, other)
    with fails(DataError, "a.csv:2 (number)"):
        read(nlp, write("a.csv", text), sentence_column="number")


def test_one_word_in_each_row_with_blank_lines(write, nlp):
    text = "tokens,tags\n\nAnn,B-PER\nLee,I-PER\nleft,O\nParis,B-LOC\n\n,\nNobody,O\nleft,O\n"
    assert read(nlp, write("a.csv", text)) == EXPECTED


def test_places_in_a_table_with_one_word_in_each_row(write, nlp, fails):
    text = "sentence,tokens,tags\n1,Ann,B-PER\n2,Lee,I-PER\n1,,O\n1,Paris,{}\n"
    reader = bio(write("a.csv", text.format("B-LOC")))
    assert [len(example.reference) for example in reader(nlp)] == [1, 1, 1]
    places = {reason: str(place)[-7:] for reason, place in reader.report.first.items()}
    assert places == {
        "sentence in several places (read as several)": "a.csv:4",
        "empty word (dropped with its tag)": "a.csv:4",
        "I- without B- before it (read as the beginning)": "a.csv:3",
    }
    with fails(DataError, "a.csv:5 (tags)"):
        read(nlp, write("a.csv", text.format("X-LOC")))
    with fails(DataError, "a.csv:5 (tags[0])"):
        read(nlp, write("a.csv", text.format("")))


def test_arrays_as_data_sets_write_them(nlp, tmp_path):
    classes().to_csv(tmp_path / "a.csv")
    assert read(nlp, tmp_path / "a.csv", tag_names=NAMES) == EXPECTED
    quoted = [{"tokens": ["Ann's", 'say "x"', "\\"], "tags": ["B-PER", "O", "O"]}]
    Dataset.from_list(quoted).to_csv(tmp_path / "b.csv")
    assert read(nlp, tmp_path / "b.csv") == [('Ann\'s say "x" \\', [(0, 1, "PER")])]


@pytest.mark.parametrize(
    "names",
    [{"O": 0, "B-PER": 1, "I-PER": 2, "B-LOC": 3}, {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC"}],
)
def test_mappings_between_ids_and_names(write, nlp, names):
    assert read(nlp, write("a.jsonl", ids()), tag_names=names) == EXPECTED


def test_tables_in_memory(nlp):
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    assert read(nlp, pandas.DataFrame(ROWS)) == EXPECTED
    assert read(nlp, classes().to_pandas(), tag_names=NAMES) == EXPECTED  # with arrays in the cells
    assert read(nlp, pyarrow.Table.from_pylist(ROWS)) == EXPECTED
    assert read(nlp, pyarrow.RecordBatch.from_pylist(ROWS)) == EXPECTED
    assert read(nlp, classes().data.table) == EXPECTED  # the table knows its classes
    assert read(nlp, ROWS) == EXPECTED
    assert (
        read(nlp, {"train": pandas.DataFrame(ROWS), "dev": pandas.DataFrame(ROWS[1:])}, split="dev")
        == EXPECTED[1:]
    )


def test_streamed_data_sets(nlp):
    streamed = classes().to_iterable_dataset()
    reader = bio(streamed)
    assert [len(list(reader(nlp))) for _ in range(2)] == [2, 2]
    assert read(nlp, streamed) == EXPECTED
    assert read(nlp, IterableDatasetDict(dev=streamed), split="dev") == EXPECTED


@pytest.mark.parametrize("by_word", [False, True])
def test_columns_of_objects(write, nlp, tmp_path, by_word):
    rows = [{"id": i, "data": row} for i, row in enumerate(ids())]
    data = {"tokens": Sequence(Value("string")), "tags": Sequence(ClassLabel(names=NAMES))}
    if by_word:
        pairs = [zip(row["tokens"], row["tags"], strict=True) for row in ids()]
        rows = [{"data": [{"tokens": word, "tags": tag} for word, tag in row]} for row in pairs]
        data = [{"tokens": Value("string"), "tags": ClassLabel(names=NAMES)}]
    features = Features({"data": data} if by_word else {"id": Value("int32"), "data": data})
    columns = {"tokens_column": "data.tokens", "tags_column": "data.tags"}
    made = Dataset.from_list(rows, features=features)
    assert read(nlp, made, **columns) == EXPECTED
    made.to_parquet(str(tmp_path / "a.parquet"))
    assert read(nlp, tmp_path / "a.parquet", **columns) == EXPECTED
    assert read(nlp, write("a.jsonl", rows), tag_names=NAMES, **columns) == EXPECTED


@pytest.mark.parametrize("form", ["{1}_{0}", "{0}-{1}", "{0}_{1}", "{1}:{0}", "{1}.{0}"])
def test_dialects_of_tags_in_tables(write, nlp, form):
    tags = [[tag if tag == "O" else form.format(tag[2:], tag[0]) for tag in row["tags"]] for row in ROWS]
    rows = [{"tokens": row["tokens"], "tags": new} for row, new in zip(ROWS, tags, strict=True)]
    reader = bio(write("a.jsonl", rows))
    assert [len(gold_spans(example.reference)) for example in reader(nlp)] == [2, 0]
    assert list(reader.report.values()) == [3]
    for path in (write("a.csv", csv(rows=rows)), Dataset.from_list(rows)):
        assert read(nlp, path) == EXPECTED
    names = list(dict.fromkeys(tag for row in tags for tag in row))
    numbers = [{"tokens": row["tokens"], "tags": [names.index(tag) for tag in row["tags"]]} for row in rows]
    assert read(nlp, write("b.jsonl", numbers), tag_names=names) == EXPECTED


def test_classes_without_names(nlp, fails):
    features = Features({"tokens": Sequence(Value("string")), "tags": Sequence(ClassLabel(num_classes=4))})
    with fails(DataError, "record 0 (tags[0])"):
        read(nlp, Dataset.from_list(ids(), features=features))


def test_in_a_config(write, nlp):
    path = write("a.csv", csv(rows=ids()))
    text = f'[r]\n@readers = "bio"\npath = "{path}"\ntag_names = {{"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC"}}\n'
    reader = Config.from_str(text).resolve(registry=registry)["r"]
    assert [len(example.reference) for example in reader(nlp)] == [4, 2]
    with pytest.raises(Exception, match="scheme"):
        Config.from_str(text + 'scheme = "BIOX"\n').resolve(registry=registry)


def test_an_unknown_data_set_of_the_hub(nlp, monkeypatch):
    # both read the environment variable when they are imported
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="hub") as error:
        bio("nobody/no-such-data:en", split="dev")(nlp)
    assert error.value.where == "nobody/no-such-data:en"


def test_packages_that_are_not_installed(nlp, tmp_path, monkeypatch, fails):
    classes().to_parquet(str(tmp_path / "a.parquet"))
    classes().save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path in ("a.parquet", "saved"):
        with fails(ConfigError, "readers.bio"):
            read(nlp, tmp_path / path)
