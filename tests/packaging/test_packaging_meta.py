from __future__ import annotations

from pathlib import Path

import pytest
import spacy

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.packaging.meta import make_meta, read_config, read_meta, read_scores, spacy_range


def filled(meta: dict[str, object], **changes: object) -> dict[str, object]:
    options: dict[str, object] = {"metadata": {}, "scores": None, "requirements": []}
    return make_meta(meta, **{"name": "m", "version": "1.0", **options, **changes})


def test_what_is_given_stands_and_the_rest_stays() -> None:
    own = {"lang": "en", "name": "pipeline", "author": "Ann", "license": "MIT", "performance": {"f": 0.5}}
    meta = filled(own, metadata={"author": "Bob", "keywords": ["ner"]}, requirements=["regex"])
    assert (meta["lang"], meta["name"], meta["version"]) == ("en", "m", "1.0")
    assert (meta["author"], meta["license"], meta["description"]) == ("Bob", "MIT", "")
    assert (meta["keywords"], meta["requirements"], meta["performance"]) == (["ner"], ["regex"], {"f": 0.5})
    assert filled(own, scores={"f": 0.75})["performance"] == {"f": 0.75}


def test_range_of_spacy() -> None:
    assert spacy_range({"spacy_version": ">=3.7.2,<3.8.0"}) == ">=3.7.2,<3.8.0"
    assert spacy_range({}).startswith(f">={spacy.__version__},<")


def test_meta_and_config_of_a_folder(tmp_path: Path) -> None:
    nlp = spacy.blank("de")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path)
    assert read_meta(tmp_path)["lang"] == "de"
    assert read_config(tmp_path)["components"]["sentencizer"]["factory"] == "sentencizer"


@pytest.mark.parametrize(
    ("text", "found"), [("{}", "has no lang"), ("[]", "holds a list"), ("{", "is no JSON: Expecting")]
)
def test_a_meta_that_cannot_be_read(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "meta.json").write_text(text, encoding="utf8")
    with pytest.raises(DataError, match=f"meta.json: {found}"):
        read_meta(tmp_path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[train]\nx = 1\n", r"without \[nlp\]"),
        ("[nlp]\nlang = ${a.b}\n", "cannot be read"),
        ("x", "cannot be read"),
    ],
)
def test_a_config_that_is_not_a_pipeline_s(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "config.cfg").write_text(text, encoding="utf8")
    with pytest.raises(ConfigError, match=found):
        read_config(tmp_path)


def test_scores_of_a_file_beside_the_pipeline_or_given(tmp_path: Path) -> None:
    assert read_scores(None, tmp_path) is None
    (tmp_path / "scores.json").write_text('{"f": 0.5}', encoding="utf8")
    (tmp_path / "other.json").write_text('{"f": 0.25}', encoding="utf8")
    assert read_scores(None, tmp_path) == {"f": 0.5}
    assert read_scores(tmp_path / "other.json", tmp_path) == {"f": 0.25}
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "missing.json", tmp_path)
