"""Word splitters of languages: the words and places of the `gliner` package, and what differs from it on purpose."""

from __future__ import annotations

import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import gliner_config

from gliner_pipe.checkpoints.gliner_names import WORD_SPLITTERS
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.pipeline.language_splitters import LibraryWords, located
from gliner_pipe.pipeline.word_splitters import Words, WordSplitter
from gliner_pipe.registry import registry

TEXTS = [
    "",
    "我来到北京清华大学。",
    "東京都に住んでいます。",
    "मैं दिल्ली में रहता हूँ। यह 1,234.5 है।",
    "أنا أعيش في القاهرة، مصر.",
    "서울에서 살고 있습니다.",
    "Ann 在 Google 工作🙂 ok, isn't it?",
    "a  b\tc\u00a0d\u200be\nf  ",
    "  lead",
    "ｶﾞ \uff21\uff11\uff12 ﬁ ½ é e\u0301",
    "१,२ 3 , 4 5 ,6\t7",
    "\u3000全角　空白",
    "👨‍👩‍👧 x 한\u1112\u1161\u11ab글",
    "12 34",
]
#: Module that each splitter needs, as far as it can be installed without a model to download.
MODULES = {
    "jieba": "jieba3",
    "janome": "janome",
    "mecab": "mecab",
    "hindi": "indicnlp",
    "camel": "camel_tools",
    "universal": "langdetect",
}
ENGLISH = spacy.blank("en")


def splitter(name: str, **options: Any) -> WordSplitter:
    made: WordSplitter = registry.word_splitters.get(name)(**options)
    return made


def placed(words: Words, doc: Any) -> list[tuple[str, int, int]]:
    offsets = words.offsets or [(token.idx, token.idx + len(token)) for token in doc]
    return [(text, *place) for text, place in zip(words.texts, offsets, strict=True)]


@pytest.fixture(scope="module")
def peer() -> Any:
    """The module of the `gliner` package; it looks for `jieba` before it imports `jieba3`."""
    module = pytest.importorskip("gliner.data_processing.tokenizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_module_available", lambda _: True)
        yield module


# -- the words of the gliner package -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::SyntaxWarning")
@pytest.mark.parametrize("name", ["whitespace", *MODULES])
def test_the_words_are_those_of_gliner(peer: Any, name: str) -> None:
    if name in MODULES:
        pytest.importorskip(MODULES[name])
    if name == "universal":
        pytest.importorskip("camel_tools")  # GLiNER loads all its splitters at once
    theirs, ours = peer.WordsSplitter(name), splitter(name)
    for text in TEXTS:
        doc = ENGLISH.make_doc(text)
        assert placed(ours.split(doc), doc) == list(theirs(text)), text


@pytest.mark.parametrize("lang", ["en", "de", "zh"])
def test_words_by_the_english_rules_of_spacy(peer: Any, lang: str) -> None:
    theirs, ours, nlp = peer.WordsSplitter("spacy"), splitter("spacy", language="en"), spacy.blank(lang)
    for text in TEXTS:
        doc = nlp.make_doc(text)
        assert placed(ours.split(doc), doc) == list(theirs(text)), text
    doc = nlp.make_doc("Ann's 北京")
    assert splitter("spacy").split(doc).texts == [token.text for token in doc]


def test_hanlp_over_another_tokenizer(peer: Any) -> None:
    """Its model must be downloaded; the tokenizer of `jieba3` is in its place here."""
    cut = pytest.importorskip("jieba3").jieba3().cut_text
    theirs, ours = object.__new__(peer.HanLPTokenSplitter), splitter("hanlp")
    theirs.tagger = cut
    ours._loaded.get("split", lambda: cut)
    for text in TEXTS:
        doc = ENGLISH.make_doc(text)
        assert placed(ours.split(doc), doc) == list(theirs(text)), text


def make_stanza(folder: Path) -> Any:
    """Pipeline of a tiny random tokenizer of `stanza`."""
    stanza = pytest.importorskip("stanza")
    from stanza.models.tokenization.trainer import Trainer
    from stanza.models.tokenization.vocab import Vocab

    characters = " abcdefghijklmnopqrstuvwxyzABCé我在北京工作。.,!"
    vocab = Vocab([[(character, 0) for character in characters]], lang="en")
    sizes = {"vocab_size": len(vocab), "emb_dim": 8, "hidden_dim": 8, "feat_dim": 5, "rnn_layers": 1}
    features = ["space_before", "capitalized", "numeric", "end_of_para", "start_of_para"]
    off = {
        "dropout": 0.0, "feat_dropout": 0.0, "tok_noise": 0.0, "weight_decay": 0.0, "hier_invtemp": 0.0,
        "conv_res": None, "use_mwt": False, "hierarchical": False, "use_dictionary": False, "skip_newline": False,
    }  # fmt: skip
    names = {"lang": "en", "shorthand": "en_tiny", "mode": "predict", "feat_funcs": features}
    torch.manual_seed(3)
    trainer = Trainer({**sizes, **off, **names, "lr0": 0.1, "batch_size": 8, "max_seqlen": 100}, vocab=vocab)
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=1.5)
    trainer.save(str(folder / "tiny.pt"))
    (folder / "resources.json").write_text("{}")
    return stanza.Pipeline(
        "en",
        dir=str(folder),
        package=None,
        processors="tokenize",
        tokenize_model_path=str(folder / "tiny.pt"),
        allow_unknown_language=True,
        download_method=None,
        verbose=False,
        use_gpu=False,
    )


def test_stanza_with_a_tiny_model(peer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts in languages without a model are split by the English one."""
    pipeline = make_stanza(tmp_path)
    for name in ("_pipelines", "_ensure_pipeline"):
        monkeypatch.setattr(peer.StanzaWordsSplitter, name, lambda *_: None, raising=False)
    theirs, ours = peer.WordsSplitter("stanza").splitter, splitter("stanza")
    theirs._ensure_pipeline = lambda language: pipeline if language in ("en", "zh") else None
    from gliner_pipe.pipeline.language_splitters import MISSING

    monkeypatch.setattr(
        type(ours), "_load_pipeline", lambda _, language: theirs._ensure_pipeline(language) or MISSING
    )
    for text in TEXTS:
        doc = ENGLISH.make_doc(text)
        assert placed(ours.split(doc), doc) == list(theirs(text)), text
    monkeypatch.setattr(type(ours), "_load_pipeline", lambda *_: MISSING)
    with pytest.raises(ConfigError, match=r"^\[components\.\*\.word_splitter\]") as raised:
        splitter("stanza").split(ENGLISH.make_doc("Das ist ein deutscher Satz."))
    assert "stanza.download('de'" in raised.value.do


def test_a_word_that_is_not_in_the_text_takes_no_room() -> None:
    """GLiNER places it before the text, and searches for all later words from there."""
    words = located("ab c ab d", ["ab", "C", "c", "ab", "d"])
    assert words.offsets == [(0, 2), (2, 2), (3, 4), (5, 7), (8, 9)]
    doc = ENGLISH.make_doc("ab c ab d")
    assert words.span(doc, 1, 1, "x", "expand", doc.text) is None
    assert words.span(doc, 1, 3, "x", "strict", doc.text).text == "c ab"  # type: ignore[union-attr]


def test_universal_needs_a_package_once_a_text_is_in_its_language(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langdetect")
    monkeypatch.setitem(sys.modules, "janome.tokenizer", None)
    words = splitter("universal")
    assert words.split(ENGLISH.make_doc("This is English.")).texts == ["This", "is", "English", "."]
    with pytest.raises(ConfigError) as raised:
        words.split(ENGLISH.make_doc(TEXTS[2]))
    assert "gliner_pipe[janome]" in raised.value.do


# -- in a pipeline --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(WORD_SPLITTERS) - {"whitespace", "spacy"}))
def test_a_missing_package_is_one_clear_error(
    backbone: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomllib = pytest.importorskip("tomllib")  # from Python 3.11 on
    config = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf8"))
    assert name in config["project"]["optional-dependencies"]
    for module in (
        "jieba3",
        "hanlp",
        "hanlp.pretrained",
        "janome",
        "janome.tokenizer",
        "mecab",
        "camel_tools",
    ):
        monkeypatch.setitem(sys.modules, module, None)
    for module in ("indicnlp", "stanza", "langdetect"):
        for known in [module, *(key for key in sys.modules if key.startswith(f"{module}."))]:
            monkeypatch.setitem(sys.modules, known, None)
    for known in [key for key in sys.modules if key.startswith("camel_tools.")]:
        monkeypatch.setitem(sys.modules, known, None)
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", "finder", config=gliner_config(backbone, word_splitter={"@word_splitters": name}))
    nlp.initialize()
    with pytest.raises(ConfigError, match=r"^\[components\.finder\.word_splitter\]") as raised:
        nlp("Ann went.")
    assert f"@word_splitters = {name} " in raised.value.found
    assert raised.value.do == f'Run pip install "gliner_pipe[{name}]"'


@pytest.mark.parametrize("name", ["mecab", "janome", "jieba"])
def test_threads_share_a_splitter(name: str) -> None:
    pytest.importorskip(MODULES[name])
    docs = [ENGLISH.make_doc(text * repeat) for repeat in (1, 3) for text in TEXTS] * 4
    alone, shared = splitter(name), splitter(name)
    expected = [alone.split(doc) for doc in docs]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(shared.split, docs)) == expected
    assert pickle.loads(pickle.dumps(shared)).split(docs[1]) == expected[1]


def test_a_pipeline_is_saved_with_the_name(backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("jieba3")
    nlp = spacy.blank("zh")
    section = {"@word_splitters": "jieba"}
    nlp.add_pipe("gliner", config=gliner_config(backbone, word_splitter=section, threshold=0.0))
    nlp.initialize()
    doc = nlp(TEXTS[1])
    found = [(span.text, span.label_) for span in doc.spans["gliner"]]
    assert found
    nlp.to_disk(tmp_path / "model")
    loaded = spacy.load(tmp_path / "model")
    assert loaded.config["components"]["gliner"]["word_splitter"] == section
    assert isinstance(loaded.get_pipe("gliner").word_splitter, LibraryWords)  # type: ignore[attr-defined]
    again = loaded(TEXTS[1])
    assert [(span.text, span.label_) for span in again.spans["gliner"]] == found
    copied = pickle.loads(pickle.dumps(nlp.get_pipe("gliner").word_splitter))  # type: ignore[attr-defined]
    assert copied.split(doc) == nlp.get_pipe("gliner").word_splitter.split(doc)  # type: ignore[attr-defined]


# -- in a checkpoint ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the `gliner` package."""
    parity = pytest.importorskip("checkpoint_parity")
    folder: Path = parity.save(parity.make_peer(), tmp_path_factory.mktemp("checkpoint"))
    return folder


def named(checkpoint: Path, name: str, lang: str = "en", **settings: Any) -> tuple[Any, Any]:
    """Pipeline of the checkpoint with another ``words_splitter_type``, and its component."""
    path = checkpoint / "gliner_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "words_splitter_type": name}))
    nlp = spacy.blank(lang)
    return nlp, nlp.add_pipe("gliner", config={"model": str(checkpoint), "labels": ["person"], **settings})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WORD_SPLITTERS)
def test_checkpoints_have_their_splitter(checkpoint: Path, name: str, tmp_path: Path) -> None:
    from gliner_pipe.pipeline.convert import to_gliner

    nlp, component = named(checkpoint, name, "de")
    assert component.gliner.is_built
    kind = registry.word_splitters.get(name)
    assert type(component.word_splitter) is kind
    assert getattr(component.word_splitter, "language", "en") == "en"  # the rules that GLiNER uses
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved").get_pipe("gliner").word_splitter  # type: ignore[attr-defined]
    assert type(again) is kind and getattr(again, "language", "en") == "en"
    written = json.loads((to_gliner(nlp, tmp_path / "written") / "gliner_config.json").read_text())
    assert written["words_splitter_type"] == name


@pytest.mark.filterwarnings("ignore")
def test_the_setting_of_the_component_takes_precedence(checkpoint: Path, tmp_path: Path) -> None:
    own = {"word_splitter": {"@word_splitters": "whitespace"}}
    for name in ("moses", "hanlp"):
        nlp, component = named(checkpoint, name, **own, threshold=0.0)
        assert nlp("Ann went.").spans["gliner"]
        nlp.to_disk(tmp_path / name)
        assert spacy.load(tmp_path / name)("Ann went.").spans["gliner"]
        assert component.word_splitter.split(ENGLISH.make_doc("Ann went.")).texts == ["Ann", "went", "."]
    _, component = named(checkpoint, "moses")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"words_splitter_type = 'moses'; allowed: .*janome"):
            assert component.gliner


@pytest.mark.filterwarnings("ignore")
def test_the_splitter_of_a_pipeline_saved_earlier(checkpoint: Path, tmp_path: Path) -> None:
    """Its name stands alone, and ``spacy`` are the tokens in any language."""
    nlp, component = named(checkpoint, "spacy", "de")
    assert component.gliner.is_built
    nlp.to_disk(tmp_path / "saved")
    path = tmp_path / "saved" / "gliner" / "model" / "blocks.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "word_splitter": "spacy"}))
    cfg = tmp_path / "saved" / "gliner" / "cfg.json"
    cfg.write_text(
        json.dumps({**json.loads(cfg.read_text()), "files": {}})
    )  # which earlier versions did not write
    assert spacy.load(tmp_path / "saved").get_pipe("gliner").word_splitter.language is None  # type: ignore[attr-defined]


def test_gliner_has_no_other_splitters(backbone: Path, tmp_path: Path) -> None:
    from gliner_pipe.pipeline.convert import to_gliner

    class Own(registry.word_splitters.get("whitespace")):  # type: ignore[misc]
        """Not registered."""

    nlp = spacy.blank("en")
    component: Any = nlp.add_pipe("gliner", config=gliner_config(backbone))
    nlp.initialize()
    component._word_splitter = Own()
    with pytest.raises(ConfigError, match=r"^\[components\.gliner\.word_splitter\]"):
        to_gliner(nlp, tmp_path / "out")
    assert not (tmp_path / "out").exists()
