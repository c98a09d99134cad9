"""Words have the subword tokens that they have in running text, whatever the kind of tokenizer."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config
from tokenizer_kinds import KINDS, byte_level, gemma, make

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.backbones import word_spaces
from gliner_pipe.modeling.backbones.hf import saved_tokenizer, tokenizer_of
from gliner_pipe.modeling.backbones.transformer import WordCutter

TEXTS = [
    "Ann went to Oslo .",
    "well-known don't U.S. (a) 1,984 3.5% , went",
    "Zürich 北京 हूँ é 🙂 went went",
    "<<ENT>> city <<SEP>> Ann",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a model with a tokenizer of each kind."""
    return {kind: make(tmp_path_factory.mktemp("made"), new()) for kind, (new, _) in KINDS.items()}


def plain(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def with_prompt(tokenizer: Any) -> Any:
    tokenizer.add_tokens(["<<ENT>>", "<<SEP>>"], special_tokens=True)
    return tokenizer


def running(tokenizer: Any, text: str) -> list[int]:
    """Subword tokens of a text after another word."""
    rust = with_prompt(tokenizer).backend_tokenizer
    before = rust.encode("a", add_special_tokens=False).ids
    both = rust.encode(f"a {text}", add_special_tokens=False).ids
    assert both[: len(before)] == before
    return both[len(before) :]


def of_words(tokenizer: Any, text: str) -> list[int]:
    (pieces,) = WordCutter(with_prompt(tokenizer)).cut([text.split(" ")])
    return pieces.ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_read_as_in_running_text(made: dict[str, Path], kind: str, tmp_path: Path) -> None:
    original, folder = plain(made[kind]), made[kind]
    tokenizer = tokenizer_of(str(folder), False)
    for text in TEXTS[:3]:
        assert of_words(tokenizer, text) == running(original, text)
    assert (word_spaces.SETTING in tokenizer.init_kwargs) == KINDS[kind][1]
    before = (
        plain(folder).backend_tokenizer.to_str(),
        tokenizer_of(str(folder), False).backend_tokenizer.to_str(),
    )
    assert (before[0] == before[1]) == (not KINDS[kind][1])  # WordPiece and others are not touched
    # as after saving, copying and loading
    tokenizer.save_pretrained(tmp_path)
    for other in (saved_tokenizer(tmp_path, False), plain(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        for text in TEXTS:
            assert of_words(other, text) == of_words(tokenizer, text)
            options = {"is_split_into_words": True, "add_special_tokens": False}
            assert other(text.split(" "), **options)["input_ids"] == of_words(tokenizer, text)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_of_the_prompt_stay_single(made: dict[str, Path], kind: str) -> None:
    tokenizer = with_prompt(tokenizer_of(str(made[kind]), False))
    (pieces,) = WordCutter(tokenizer).cut([["<<ENT>>", "city", "<<SEP>>", ""]])
    assert pieces.counts[[0, 2, 3]].tolist() == [1, 1, 0]
    assert tokenizer.convert_ids_to_tokens(pieces.ids.tolist())[0] == "<<ENT>>"


def test_a_class_that_rebuilds_its_tokenizer(made: dict[str, Path], tmp_path: Path) -> None:
    """The class of Gemma makes a new normalizer when it is loaded, and knows no ``add_prefix_space``."""
    path = make(tmp_path / "gemma", gemma()) / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tokenizer_class": "GemmaTokenizer"}))
    config = tmp_path / "gemma" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gemma"}))
    original, tokenizer = plain(tmp_path / "gemma"), tokenizer_of(str(tmp_path / "gemma"), False)
    assert type(tokenizer).__name__ == "GemmaTokenizer"
    tokenizer.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / "config.json").write_text(config.read_text())
    for one in (tokenizer, saved_tokenizer(tmp_path / "saved", False)):
        assert of_words(one, TEXTS[0]) == running(original, TEXTS[0])


def test_roberta_has_its_own_option(tmp_path: Path) -> None:
    """As `transformers` trains token classifiers: ``add_prefix_space=True`` for words."""
    from transformers import RobertaTokenizer

    inner = byte_level(False)
    folder = make(tmp_path, inner)
    inner.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({"tokenizer_class": "RobertaTokenizer", "add_prefix_space": False}))
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "roberta"}))
    trained = RobertaTokenizer.from_pretrained(folder, add_prefix_space=True)
    tokenizer = tokenizer_of(str(folder), False)
    assert type(tokenizer) is RobertaTokenizer and word_spaces.SETTING not in tokenizer.init_kwargs
    for text in TEXTS[:3]:
        expected = trained(text.split(" "), is_split_into_words=True, add_special_tokens=False)
        assert of_words(tokenizer, text) == expected["input_ids"] == running(plain(folder), text)


def test_labels_of_a_bi_encoder_are_running_text(made: dict[str, Path]) -> None:
    from gliner_pipe.modeling.encoders.label_encoder import TextEmbedder

    embedder = TextEmbedder(str(made["byte level"]))
    embedder.build(32)
    expected = plain(made["byte level"])("big city")["input_ids"]
    assert embedder.cut(["big city"])["input_ids"].tolist() == [expected]


# -- in a pipeline --------------------------------------------------------------------------------------------------


def pipeline(folder: Path, **changes: Any) -> Any:
    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=gliner_config(folder, **changes))
    nlp.initialize()
    for parameter in component.gliner.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return nlp


@pytest.mark.parametrize("kind", ["byte level", "gemma"])
def test_a_pipeline_saved_earlier_reads_words_as_before(
    made: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    """Its tokenizer is the one of the model, without the setting."""
    nlp = pipeline(made[kind])
    new = of_words(nlp.get_pipe("gliner").gliner.encoder.backbone.tokenizer, TEXTS[0])
    nlp.to_disk(tmp_path / "new")
    loaded: Any = spacy.load(tmp_path / "new").get_pipe("gliner")
    assert of_words(loaded.gliner.encoder.backbone.tokenizer, TEXTS[0]) == new
    with_prompt(plain(made[kind])).save_pretrained(tmp_path / "new/gliner/model/encoder/backbone")
    settings = tmp_path / "new/gliner/cfg.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "files": {}}))  # as in earlier files
    old: Any = spacy.load(tmp_path / "new").get_pipe("gliner")
    tokenizer = old.gliner.encoder.backbone.tokenizer
    words = plain(made[kind])(TEXTS[0].split(" "), is_split_into_words=True, add_special_tokens=False)
    assert of_words(tokenizer, TEXTS[0]) == words["input_ids"] != new


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["byte level", "gemma"])
def test_checkpoints_of_gliner_read_words_as_the_pipeline(
    made: dict[str, Path], kind: str, tmp_path: Path
) -> None:
    peer = pytest.importorskip("gliner")
    from gliner_pipe.pipeline.convert import from_gliner, to_gliner

    nlp = pipeline(made[kind], word_splitter={"@word_splitters": "whitespace"}, threshold=0.3)
    text = "Maria Lindqvist joined Oslo University."
    doc = nlp(text)
    mine = {(span.start_char, span.end_char, span.label_) for span in doc.spans["gliner"]}
    folder = to_gliner(nlp, tmp_path / "out")
    theirs = peer.GLiNER.from_pretrained(str(folder), local_files_only=True).eval()
    labels = ["person", "city"]
    found = theirs.inference([text], labels, threshold=0.3)[0]
    assert {(one["start"], one["end"], one["label"]) for one in found} == mine and mine
    back = from_gliner(str(folder), labels)
    back.get_pipe("gliner").threshold = 0.3  # type: ignore[attr-defined]
    again = back(text)
    assert {(span.start_char, span.end_char, span.label_) for span in again.spans["gliner"]} == mine


@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_that_loses_the_space_is_not_written(made: dict[str, Path], tmp_path: Path) -> None:
    from transformers import GemmaTokenizer

    from gliner_pipe.pipeline.convert import to_gliner

    nlp = pipeline(made["gemma"])
    backbone: Any = nlp.get_pipe("gliner").gliner.encoder.backbone  # type: ignore[attr-defined]
    backbone.tokenizer.save_pretrained(tmp_path / "saved")
    backbone.tokenizer = GemmaTokenizer.from_pretrained(tmp_path / "saved")
    word_spaces.restore(backbone.tokenizer, "it")
    with pytest.raises(ConfigError, match=r"^\[components\.\*\.model\.encoder\.backbone\.model\]"):
        to_gliner(nlp, tmp_path / "out")
    assert not (tmp_path / "out").exists()
