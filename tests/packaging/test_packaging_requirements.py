from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

import gliner_pipe
from gliner_pipe.errors import ConfigError
from gliner_pipe.packaging.requirements import (
    function_modules,
    is_spacy,
    merge,
    read_requirements,
    splitter_extras,
    third_party,
)


def config(**components: object) -> dict[str, object]:
    return {"nlp": {"lang": "en"}, "components": components}


def test_modules_of_factories_and_blocks_in_lists_too() -> None:
    layers = [{"@encoders": "uni_encoder"}, {"@layers": "chain.v1"}]
    found = function_modules(config(gliner={"factory": "gliner", "stack": {"layers": layers}}))
    assert found == {
        "components.gliner.factory": "gliner_pipe.pipeline.gliner.component",
        "components.gliner.stack.layers.0": "gliner_pipe.modeling.encoders.uni_encoder",
        "components.gliner.stack.layers.1": "thinc.layers.chain",
    }


def test_factories_of_a_language_and_tokenizers() -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("lemmatizer")
    found = function_modules(nlp.config.interpolate())
    assert found["components.lemmatizer.factory"] == "spacy.lang.en"
    assert found["nlp.tokenizer"].startswith("spacy.")
    assert third_party(found, code=[]) == []


def test_a_function_component_counts_as_its_own_module() -> None:
    @Language.component("test_requirements_same")
    def same(doc: Doc) -> Doc:
        return doc

    found = function_modules(config(same={"factory": "test_requirements_same"}))
    assert found == {"components.same.factory": __name__}


def test_a_function_that_is_not_registered() -> None:
    with pytest.raises(ConfigError, match=r"\[components.ner\] .*'nothing'.* layers"):
        function_modules(config(ner={"factory": "ner", "@layers": "nothing"}))


def test_blocks_with_graphs_need_onnxruntime() -> None:
    found = third_party({"components.gliner.model": "gliner_pipe.onnx.runtime"}, code=[])
    assert [one.split(">")[0] for one in found] == ["gliner_pipe", "onnxruntime"]


def test_requirements_of_modules() -> None:
    modules = {
        "a": "gliner_pipe.pipeline.gliner.component",
        "b": "thinc.layers",
        "c": "mine.parts",
        "d": "regex",
        "e": "regex",
    }
    major, minor, *_ = (int(part) for part in _version("regex").split("."))
    assert third_party(modules, code=["mine"]) == [
        f"gliner_pipe>={gliner_pipe.__version__}",
        f"regex>={_version('regex')},<{major}.{minor + 1}",
    ]


def test_a_module_of_no_installed_package() -> None:
    with pytest.raises(ConfigError, match=r"\[components.a.factory\] .*--code mine"):
        third_party({"components.a.factory": "mine.parts"}, code=[])


def test_extras_of_word_splitters(tmp_path: Path) -> None:
    """Of the config, and of a checkpoint unless the component has its own."""
    for name in ("read", "own"):
        (tmp_path / name / "model").mkdir(parents=True)
        blocks = {"blocks": {}, "word_splitter": {"@word_splitters": "janome"}}
        (tmp_path / name / "model" / "blocks.json").write_text(json.dumps(blocks))
    own = {"factory": "gliner", "word_splitter": {"@word_splitters": "jieba"}}
    found = splitter_extras(config(own=own), tmp_path / "none")
    assert found == [f"gliner_pipe[jieba]>={gliner_pipe.__version__}"]
    found = splitter_extras(config(own=own, read={"factory": "gliner", "word_splitter": None}), tmp_path)
    assert found == [f"gliner_pipe[janome,jieba]>={gliner_pipe.__version__}"]
    assert merge([f"gliner_pipe>={gliner_pipe.__version__}"], found) == found
    plain = {"factory": "gliner", "word_splitter": {"@word_splitters": "whitespace"}}
    assert splitter_extras(config(own=plain, read=plain), tmp_path) == []


def test_requirements_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "needed.txt"
    file.write_text("# a note\npandas>=2,<3  # tables\n\nregex\n", encoding="utf8")
    assert read_requirements(["numpy", str(file)]) == ["numpy", "pandas>=2,<3", "regex"]


def test_later_requirements_replace_earlier_ones() -> None:
    assert merge(["spacy>=3.8", "My-Package>=1"], ["my_package>=2"], []) == ["spacy>=3.8", "my_package>=2"]
    with pytest.raises(ConfigError, match=r"\[package.requirements\] .*'a b'"):
        merge(["a b"])


def test_spacy_itself_and_its_parts() -> None:
    assert is_spacy("spaCy>=3.8,<3.9")
    assert not is_spacy("spacy-legacy>=3")


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)
