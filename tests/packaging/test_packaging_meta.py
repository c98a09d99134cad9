from __future__ import annotations

from pathlib import Path

import pytest
import spacy

from gliner_pipe.errors import ConfigError, DataError
from gliner_pipe.packaging.meta import make_meta, read_config, read_meta, read_scores, spacy_range


def filled(meta: dict[str, object], **changes: object) -> dict[str, object]:
    options: dict[str, object] = {"metadata": {}, "scores": None, "requirements": []}
    return make_meta(meta, **{"name": "m", "version": "1.0", **options, **changes})


def test_given_fields_replace_those_of_the_pipeline() -> None:
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


@pytest.mark.parametrize(("text", "found"), [("{}", "lang"), ("[]", "list"), ("{", "Expecting")])
def test_an_invalid_meta(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "meta.json").write_text(text, encoding="utf8")
    with pytest.raises(DataError) as error:
        read_meta(tmp_path)
    assert "meta.json" in error.value.where and found in error.value.found


@pytest.mark.parametrize("text", ["[train]\nx = 1\n", "[nlp]\nlang = ${a.b}\n", "x"])
def test_a_config_of_no_pipeline(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.cfg").write_text(text, encoding="utf8")
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path)
    assert error.value.where == "package.pipeline"


def test_scores_of_a_file_beside_the_pipeline_or_given(tmp_path: Path) -> None:
    assert read_scores(None, tmp_path) is None
    (tmp_path / "scores.json").write_text('{"f": 0.5}', encoding="utf8")
    (tmp_path / "other.json").write_text('{"f": 0.25}', encoding="utf8")
    assert read_scores(None, tmp_path) == {"f": 0.5}
    assert read_scores(tmp_path / "other.json", tmp_path) == {"f": 0.25}
    with pytest.raises(FileNotFoundError):
        read_scores(tmp_path / "missing.json", tmp_path)
