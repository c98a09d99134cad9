"""Taggers go to and from the token classification models of transformers with the same scores and entities."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from conftest import make_backbone
from spacy.tokens import Doc
from tagging_pipeline import examples, found, trained
from tokenizer_kinds import KINDS, replace
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    TokenClassificationPipeline,
    pipeline,
)
from weight_files import PICKLED, SAFE, VERSION_5, prefixed, sharded

from gliner_pipe.checkpoints.hf_read import UNSEEN, is_model
from gliner_pipe.convert import convert, from_transformers, to_transformers
from gliner_pipe.errors import CheckpointError, ConfigError
from gliner_pipe.modeling.inference import TokenBudget

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")

WORDS = [
    "Ada",
    "Smith",
    "lives",
    "in",
    "Rome",
    ".",
    "Oslo",
    "is",
    "a",
    "city",
    ",",
    "said",
    "Alan",
    "Turing",
    "of",
    "Manchester",
    "in",
    "1950",
    ".",
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
SOFTMAX = {"@decoders": "softmax"}


def make_model(folder: Path, kind: str = "bert", tags: list[str] = TAGS, **settings: Any) -> Path:
    """Write a random token classification model whose scores are far apart."""
    make_backbone(folder, kind)
    named = {"id2label": dict(enumerate(tags)), "label2id": {tag: place for place, tag in enumerate(tags)}}
    torch.manual_seed(1)
    made = AutoModelForTokenClassification.from_config(
        AutoConfig.from_pretrained(folder, **named, **settings)
    )
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() > 1:  # what a word is decides, less what stands around it
                torch.nn.init.normal_(weight, std=1.0 if "embed" in name else 0.1)
        torch.nn.init.normal_(made.classifier.weight, std=0.5)
        torch.nn.init.normal_(made.classifier.bias, std=0.5)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def taught(backbone: Path, steps: int = 12, decoder: Any = SOFTMAX, on: Any = None, **settings: Any) -> Any:
    """A tagger that has learned something, with windows wide enough for WORDS."""
    embedding = {"@backbones": "transformer", "model": str(backbone), **settings.pop("embedding", {})}
    embedding = {**on, "embedding": embedding} if on else embedding
    return trained(backbone, steps, decoder, embedding=embedding, **settings)


@pytest.fixture(scope="module")
def tagger(backbone: Path) -> Any:
    return taught(backbone, 30)


def tagged_with(model: Any, lang: str = "en", **settings: Any) -> Any:
    nlp = spacy.blank(lang)
    nlp.add_pipe(
        "token_classifier", config={"model": model if isinstance(model, dict) else str(model), **settings}
    )
    return nlp


def named(folder: Path, **settings: Any) -> dict[str, Any]:
    return {"@architectures": "gliner_pipe.PretrainedTokenClassifier.v1", "name": str(folder), **settings}


def logits_of(nlp: Any, words: list[str]) -> torch.Tensor:
    """Scores of the words, by our tags, ``(words, tags)``."""
    component = nlp.get_pipe("token_classifier")
    model = component._ready()
    with torch.no_grad():
        return model.score(model.prepare([words]), 1, TokenBudget("auto"))[0][:, 0]


def theirs(folder: Path, strategy: str = "first") -> TokenClassificationPipeline:
    return pipeline("token-classification", model=str(folder), aggregation_strategy=strategy, device="cpu")


def spans(nlp: Any, words: list[str]) -> list[tuple[int, int, str, float]]:
    doc = nlp(Doc(nlp.vocab, words))
    scores = doc.spans["gliner"].attrs["scores"]
    return [
        (span.start_char, span.end_char, span.label_, pytest.approx(float(score), abs=1e-5))
        for span, score in zip(doc.spans["gliner"], scores, strict=True)
    ]


def their_spans(model: TokenClassificationPipeline, words: list[str]) -> list[tuple[int, int, str, float]]:
    (found,) = model(words, is_split_into_words=True, delimiter=" ")
    return [(one["start"], one["end"], one["entity_group"], float(one["score"])) for one in found]


# -- import ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "modernbert"])
def test_a_random_model_has_the_same_logits_here(tmp_path: Path, kind: str) -> None:
    folder = make_model(tmp_path / kind, kind)
    nlp = tagged_with(folder)
    model, tokenizer = (
        AutoModelForTokenClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    inputs = tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
    firsts = [inputs.word_ids().index(word) for word in range(len(WORDS))]
    wanted = model.eval()(inputs["input_ids"]).logits[0, firsts].detach()
    torch.testing.assert_close(logits_of(nlp, WORDS), wanted, atol=1e-5, rtol=1e-5)
    assert nlp.get_pipe("token_classifier").labels == ("PER", "LOC")
    assert wanted.std() > 0.3 and len(set(wanted.argmax(-1).tolist())) > 1


@pytest.mark.parametrize("kind", ["byte level", "gemma"])
def test_words_keep_the_space_before_them(tmp_path: Path, kind: str) -> None:
    """Scores are those of the running text, also after each way out and in."""
    folder = replace(make_model(tmp_path / "model", "modernbert"), KINDS[kind][0]())
    nlp = tagged_with(folder)
    model, tokenizer = (
        AutoModelForTokenClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    inputs = tokenizer(" " + " ".join(WORDS), return_tensors="pt")
    starts = [1 + len(" ".join(WORDS[:place])) + (place > 0) for place in range(len(WORDS))]
    firsts = [inputs.char_to_token(start) for start in starts]
    wanted = model(inputs["input_ids"]).logits[0, firsts].detach()
    torch.testing.assert_close(logits_of(nlp, WORDS), wanted, atol=1e-5, rtol=1e-5)
    nlp.to_disk(tmp_path / "pipeline")
    torch.testing.assert_close(logits_of(spacy.load(tmp_path / "pipeline"), WORDS), wanted)
    written = to_transformers(nlp, tmp_path / "written")
    torch.testing.assert_close(logits_of(tagged_with(written), WORDS), wanted, atol=1e-4, rtol=1e-4)
    written_tokenizer = AutoTokenizer.from_pretrained(written)
    split = written_tokenizer(WORDS, is_split_into_words=True)["input_ids"]
    assert split == written_tokenizer(" ".join(WORDS))["input_ids"] == inputs["input_ids"][0].tolist()


@pytest.mark.parametrize(
    "tags",
    [
        ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"],
        ["B_PER", "I_PER", "O", "B_LOC", "I_LOC"],
        ["O", "LOC", "PER"],
        ["VERB", "NOUN"],
    ],
)
def test_ids_survive_the_way_in_and_out(tmp_path: Path, tags: list[str]) -> None:
    folder = make_model(tmp_path / "model", tags=tags)
    nlp = tagged_with(folder, **({} if "O" in tags else {"target": "tag_"}))
    nlp.get_pipe("token_classifier")._ready()
    nlp.to_disk(tmp_path / "saved")
    written = to_transformers(spacy.load(tmp_path / "saved"), tmp_path / "written")
    first, second = (AutoModelForTokenClassification.from_pretrained(one) for one in (folder, written))
    assert second.config.label2id == first.config.label2id
    torch.testing.assert_close(second.classifier.weight, first.classifier.weight)


@pytest.mark.parametrize(
    "tags",
    [
        TAGS,
        ["I-LOC", "B-LOC", "O", "I-PER", "B-PER"],
        ["LOC", "O", "PER"],
        ["O", "I-LOC", "I-PER"],
        ["O", "I-LOC", "I-PER", "B-LOC"],
        ["B-LOC", "I-LOC", "B-PER", "I-PER"],
    ],
)
def test_entities_are_those_of_transformers(tmp_path: Path, tags: list[str]) -> None:
    """By the first piece of each word, whatever the order of the tags, and whichever are missing."""
    folder = make_model(tmp_path / "model", tags=tags)
    nlp, other = tagged_with(folder), theirs(folder)
    wanted = their_spans(other, WORDS)
    assert spans(nlp, WORDS) == wanted and len(wanted) > 3


def test_a_model_with_an_output_for_padding_in_another_dialect(tmp_path: Path) -> None:
    nlp = tagged_with(make_model(tmp_path / "model", tags=["<PAD>", "O", "per_B", "per_I", "loc_B", "loc_I"]))
    doc = nlp(" ".join(WORDS))
    found = {span.label_ for span in doc.spans["gliner"]}
    assert found and found <= {"per", "loc"} == set(nlp.get_pipe("token_classifier").labels)


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_imported_pipelines_stand_alone(tmp_path: Path, kind: str) -> None:
    folder = make_model(tmp_path / "model", kind)
    nlp = tagged_with(folder)
    wanted, logits = spans(nlp, WORDS), logits_of(nlp, WORDS)
    nlp.to_disk(tmp_path / "pipeline")
    for file in folder.iterdir():
        file.unlink()
    again = spacy.load(tmp_path / "pipeline")
    assert spans(again, WORDS) == wanted
    assert torch.equal(logits_of(again, WORDS), logits)
    assert again.get_pipe("token_classifier").network.decoder.constrained is False


def test_training_goes_on(folder: Path, tmp_path: Path) -> None:
    """With its labels, with those of the data, and with an adapter."""
    for settings, labels in (({}, ("PER", "LOC")), ({"labels": "data"}, ("city", "person"))):
        nlp = tagged_with(named(folder, window=24, stride=16, **settings))
        gold = examples(nlp)
        if not settings:
            rename = {"person": "PER", "city": "LOC"}
            for one in gold:
                group = one.reference.spans["gliner"]
                one.reference.spans["gliner"] = [
                    spacy.tokens.Span(one.reference, span.start, span.end, rename[span.label_])
                    for span in group
                ]
        optimizer = nlp.initialize(lambda gold=gold: gold)
        optimizer.learn_rate = 0.003
        nlp.get_pipe("token_classifier").cfg["max_learn_rate"] = None
        for _ in range(20):
            nlp.update(gold, sgd=optimizer)
        assert nlp.get_pipe("token_classifier").labels == labels
        score = nlp.evaluate(gold)["tags_f"]
        assert score > 0.8
        nlp.to_disk(tmp_path / "pipeline")
        again = spacy.load(tmp_path / "pipeline")
        assert again.get_pipe("token_classifier").labels == labels
        again.initialize(lambda gold=gold: gold)
        assert again.evaluate(gold)["tags_f"] == score


@pytest.mark.parametrize("save", ["full", "adapter"])
def test_adapters(folder: Path, tmp_path: Path, save: str) -> None:
    adapter = {"@adapters": "lora", "r": 2, "save": save}
    nlp = tagged_with(named(folder, adapter=adapter, labels="data"))
    gold = examples(nlp)
    optimizer = nlp.initialize(lambda: gold)
    optimizer.learn_rate = 0.01
    nlp.get_pipe("token_classifier").cfg["max_learn_rate"] = None
    for _ in range(5):
        nlp.update(gold, sgd=optimizer)
    logits = logits_of(nlp, WORDS)
    nlp.to_disk(tmp_path / "pipeline")
    torch.testing.assert_close(logits_of(spacy.load(tmp_path / "pipeline"), WORDS), logits)
    written = tagged_with(to_transformers(nlp, tmp_path / "out"))
    torch.testing.assert_close(logits_of(written, WORDS), logits, atol=1e-4, rtol=1e-4)


def test_tags_in_common_keep_their_weights(folder: Path) -> None:
    nlp = tagged_with(named(folder, labels="data"))
    component = nlp.get_pipe("token_classifier")
    before = component.network.decoder.project.weight.detach().clone()
    gold = examples(nlp)
    component.initialize(lambda: gold, labels=["city", "LOC"])
    after = component.network.decoder.project.weight
    assert component.network.decoder.tags == ["O", "B-city", "I-city", "B-LOC", "I-LOC"]
    assert torch.equal(after[[0, 3, 4]], before[[0, 3, 4]]) and not torch.equal(after[1:3], before[1:3])


def test_words_with_labels(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "pos", tags=["NOUN", "VERB", "X"])
    nlp = tagged_with(folder, target="tag_")
    wanted = [
        one["entity"] for one in pipeline("token-classification", model=str(folder), device="cpu")("ada")
    ][:1]
    assert [token.tag_ for token in nlp("ada")] == wanted
    with pytest.raises(ConfigError, match=r"target\] found 'spans'.*tag_"):
        tagged_with(folder)("ada")
    assert from_transformers(str(folder))("ada")[0].tag_ == wanted[0]


def test_names_that_say_nothing(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", tags=["LABEL_0", "LABEL_1", "LABEL_2"])
    with pytest.raises(ConfigError, match=r"model\] .*LABEL_0.*tag_names"):
        tagged_with(folder)("Ada")
    with pytest.raises(ConfigError, match=r"model\.tag_names\] names 2 tags; allowed: the 3 tags"):
        tagged_with(named(folder, tag_names=["O", "B-A"]))("Ada")
    nlp = tagged_with(named(folder, tag_names={"0": "B-A", "1": "O", "2": "I-A"}))
    assert nlp.get_pipe("token_classifier").network.labels == ("A",)
    fresh = tagged_with(named(folder, labels="data"))
    fresh.initialize(lambda: examples(fresh))
    component = fresh.get_pipe("token_classifier")
    assert component.labels == ("city", "person")
    assert (component.network.decoder.project.bias != UNSEEN).all()


def test_long_texts_are_read_in_windows(folder: Path) -> None:
    """A text beyond the positions of the model: its middle is scored as transformers scores the window around it."""
    nlp = tagged_with(named(folder, window=48, stride=32))
    assert len(logits_of(nlp, WORDS * 60)) == 60 * len(WORDS)
    whole = tagged_with(folder)
    component = whole.get_pipe("token_classifier")
    assert component.network.encoder.backbone.window == 510
    torch.testing.assert_close(logits_of(nlp, WORDS), logits_of(whole, WORDS))


def test_models_that_are_refused(backbone: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classifier.bias.*embedding"):
        tagged_with(backbone)("Ada")
    with pytest.raises(ConfigError, match=r"^\[components\.token_classifier\.model\] found '/no/where'"):
        tagged_with("/no/where")("Ada")
    with pytest.raises(ConfigError, match=r"labels\] found \['city'\].*\['PER', 'LOC'\]"):
        tagged_with(folder, labels=["city"])("Ada")
    with pytest.raises(ConfigError, match=r"^\[components\.\w+\.mode\]"):
        tagged_with(folder, mode="joint")
    (tmp_path / "gliner_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json.*factory = \"gliner\""):
        tagged_with(tmp_path)("Ada")
    with pytest.raises(ConfigError, match=r"scheme\] found 'io'.*'bio'"):
        tagged_with(named(folder, scheme="io"))("Ada")


def test_a_model_with_other_scores_than_its_layers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import BertForTokenClassification

    plain = BertForTokenClassification.forward

    def shifted(self: Any, *arguments: Any, **options: Any) -> Any:
        output = plain(self, *arguments, **options)
        output.logits = output.logits + 1
        return output

    folder = make_model(tmp_path / "model")
    monkeypatch.setattr(BertForTokenClassification, "forward", shifted)
    with pytest.raises(CheckpointError, match="BertForTokenClassification"):
        tagged_with(folder)("Ada")


# -- export ------------------------------------------------------------------------------------------------------------


def test_round_trip(tagger: Any, tmp_path: Path) -> None:
    folder = to_transformers(tagger, tmp_path / "out")
    settings = json.loads((folder / "config.json").read_text("utf8"))
    assert settings["architectures"] == ["BertForTokenClassification"]
    assert settings["id2label"] == {"0": "O", "1": "B-city", "2": "I-city", "3": "B-person", "4": "I-person"}
    assert is_model(folder)
    nlp = tagged_with(folder)
    torch.testing.assert_close(logits_of(nlp, WORDS), logits_of(tagger, WORDS), atol=1e-6, rtol=0)
    assert spans(nlp, WORDS) == spans(tagger, WORDS)
    wanted = their_spans(theirs(folder), WORDS)
    assert spans(tagger, WORDS) == wanted and len(wanted) > 1
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 512
    again = to_transformers(nlp, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder": {"@decoders": "softmax", "scheme": "io"}},
        {"decoder": {"@decoders": "softmax", "mode": "independent"}, "labels": ["city"]},
        {"decoder": {"@decoders": "crf", "mode": "independent", "chains": "one", "scheme": "bio"}},
    ],
)
def test_other_decoders_of_one_chain(backbone: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    nlp = taught(backbone, **settings)
    folder = to_transformers(nlp, tmp_path / "out")
    wanted = [item[:3] for item in spans(nlp, WORDS)]
    other = their_spans(theirs(folder), WORDS)
    assert [item[:3] for item in other] == wanted and wanted


def test_a_projection_is_multiplied_in(backbone: Path, tmp_path: Path) -> None:
    nlp = taught(backbone, embedding={"hidden_size": 20})
    written = tagged_with(to_transformers(nlp, tmp_path / "out"))
    torch.testing.assert_close(logits_of(written, WORDS), logits_of(nlp, WORDS), atol=1e-4, rtol=1e-5)


def test_bioul_is_written_with_a_warning(
    backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nlp = taught(backbone, decoder=SOFTMAX | {"scheme": "bioul"})
    written = tagged_with(to_transformers(nlp, tmp_path / "out"))
    assert "bioul" in caplog.text
    torch.testing.assert_close(logits_of(written, WORDS), logits_of(nlp, WORDS))
    assert spans(written, WORDS) == spans(nlp, WORDS)


def test_a_dense_layer_goes_to_modernbert(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone", "modernbert")
    nlp = taught(backbone, on={"@backbones": "dense"})
    written = tagged_with(to_transformers(nlp, tmp_path / "out"))
    torch.testing.assert_close(logits_of(written, WORDS), logits_of(nlp, WORDS), atol=1e-5, rtol=1e-5)
    without = taught(backbone, steps=1)
    with pytest.raises(
        ConfigError, match=r"embedding\] found Transformer.*@backbones = dense over transformer"
    ):
        to_transformers(without, tmp_path / "no")


def test_a_crf_only_if_it_is_asked_for(
    backbone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nlp = taught(backbone, decoder={"@decoders": "crf", "scheme": "bio", "chains": "one"})
    with pytest.raises(ConfigError, match=r"decoder\] found crf.*--drop-transitions"):
        to_transformers(nlp, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    written = tagged_with(to_transformers(nlp, tmp_path / "out", drop_transitions=True))
    assert "transition scores" in caplog.text
    torch.testing.assert_close(logits_of(written, WORDS), logits_of(nlp, WORDS))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on": {"@backbones": "text_cnn"}}, r"embedding\] found TextCnn"),
        ({"on": {"@backbones": "lstm"}}, r"found Lstm"),
        ({"embedding": {"pooling": "mean"}}, r"embedding\.pooling\] found 'mean'"),
        ({"embedding": {"fuse_layers": True}}, r"fuse_layers\] found True"),
        (
            {"decoder": SOFTMAX | {"mode": "independent"}},
            r"decoder\.mode\] found a chain of tags for each label",
        ),
    ],
)
def test_blocks_without_an_equivalent_in_transformers_are_refused(
    backbone: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    nlp = taught(backbone, steps=1, **settings)
    with pytest.raises(ConfigError, match=message):
        to_transformers(nlp, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_simple_aggregation_needs_all_pieces(backbone: Path, tmp_path: Path) -> None:
    """Raw texts, read by transformers with what its users write, give the entities of the pipeline."""
    nlp = taught(backbone, 30, decoder=SOFTMAX | {"all_pieces": True})
    other = theirs(to_transformers(nlp, tmp_path / "out"), "simple")
    for text in ("Ada Smith lives in Rome .", "Grace Smith lives in London .", "Oslo is a city ."):
        doc = nlp(text)
        entities = [(one["start"], one["end"], one["entity_group"]) for one in other(text)]
        assert entities == [(span.start_char, span.end_char, span.label_) for span in doc.spans["gliner"]]
        assert len(entities) == 1 + text.count("Smith")
    assert max(len(other.tokenizer.tokenize(word)) for word in ("Smith", "London", "Rome")) > 1


# -- the command -------------------------------------------------------------------------------------------------------


def test_convert_both_ways(tagger: Any, tmp_path: Path) -> None:
    tagger.to_disk(tmp_path / "pipeline")
    folder = convert(str(tmp_path / "pipeline"), tmp_path / "model")
    assert is_model(folder)
    nlp = spacy.load(convert(str(folder), tmp_path / "back"))
    assert found(nlp(Doc(nlp.vocab, WORDS))) == found(tagger(Doc(tagger.vocab, WORDS)))
    with pytest.raises(ConfigError, match=r"labels\] is 'city', and the source has a closed label set"):
        convert(str(folder), tmp_path / "no", labels="city")
    with pytest.raises(ConfigError, match=r"^\[component\].*gliner"):
        convert(str(tmp_path / "pipeline"), tmp_path / "no", to="gliner")


def test_the_folder_of_a_training_keeps_its_pipelines(tagger: Any, tmp_path: Path) -> None:
    (tmp_path / "my-ner").mkdir()
    tagger.to_disk(tmp_path / "my-ner" / "model-best")
    for _ in range(2):
        convert(str(tmp_path / "my-ner" / "model-best"), tmp_path / "my-ner")
        assert AutoModelForTokenClassification.from_pretrained(tmp_path / "my-ner").config.num_labels == 5
    assert spacy.load(tmp_path / "my-ner" / "model-best").get_pipe("token_classifier").labels
    assert [path.name for path in tmp_path.glob("*/.*")] == []


# -- files of weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SAFE, PICKLED])
def test_shards_and_prefixes(folder, tmp_path, name):
    expected = logits_of(tagged_with(folder), WORDS)
    other = shutil.copytree(folder, tmp_path / "model")
    if VERSION_5:
        prefixed(other, "module.")
    shards = sharded(other, name)
    assert torch.equal(logits_of(tagged_with(other), WORDS), expected)
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=shards[0].name):
        tagged_with(other).initialize()


def test_other_prefixes_are_refused_by_name(folder, tmp_path):
    other = prefixed(shutil.copytree(folder, tmp_path / "model"), "student.")
    with pytest.raises(ConfigError, match=r"student\.") as error:
        tagged_with(other).initialize()
    assert "\n" not in str(error.value)


def test_attention_of_a_model(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "_attn_implementation": "eager"}))
    nlp = tagged_with(other)
    expected = logits_of(nlp, WORDS)
    nlp.to_disk(tmp_path / "saved")
    for one in (nlp, spacy.load(tmp_path / "saved")):
        network = one.get_pipe("token_classifier").network
        assert network.encoder.backbone.encoder.config._attn_implementation == "eager"
        assert torch.equal(logits_of(one, WORDS), expected)


def test_a_tokenizer_of_other_weights(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["#one#", "#two#"])
    tokenizer.save_pretrained(other)
    with pytest.raises(CheckpointError, match="2 tokens more"):
        tagged_with(other).initialize()
