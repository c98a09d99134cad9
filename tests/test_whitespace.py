"""Whitespace, and words that the tokenizer makes nothing of, are no words for any model."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import spacy
import tagging_pipeline
import torch
from conftest import gliner_config, make_causal_lm
from spacy.tokens import Doc, Span
from spacy.training import Example

from gliner_pipe.data.annotations import set_supervision, supervision
from gliner_pipe.data.checks import check_examples
from gliner_pipe.data.splitting import Chunk, chunk_examples, split_examples
from gliner_pipe.metrics.relations import RelationScorer
from gliner_pipe.metrics.seqeval import SeqevalScorer
from gliner_pipe.metrics.spans import ExactScorer, OverlapScorer, TokenScorer
from gliner_pipe.modeling.block import available
from gliner_pipe.pipeline.word_splitters import Words, WordSplitter
from gliner_pipe.registry import registry

BLANKS = [" ", "\n", "\n\n", "\t", "   ", "\r\n", "\u00a0", "\u3000", "\u2028", "\u2029", "\x0b"]
#: Zero-width space, soft hyphen, byte order mark, variation selector, control character, combining mark.
DROPPED = ["\u200b", "\u00ad", "\ufeff", "\ufe0f", "\x01", "\u0301"]
TEXTS = [
    ["Ada", "Lovelace", "was", "born", "in", "London", "and", "wrote", "the", "first", "program", "."],
    ["Rome", "burns"],
    ["She", "met", "Bob", "Smith", "in", "Rome", "and", "left"] * 6,  # several windows
]
KEY = "gliner"


@registry.word_splitters.register("every_token")
class Everything(WordSplitter):
    """Each token is a word with the blank behind it, whitespace too."""

    def split(self, doc: Doc) -> Words:
        ends = [token.idx + len(token.text_with_ws) for token in doc]
        return Words(
            [token.text_with_ws for token in doc], [(t.idx, end) for t, end in zip(doc, ends, strict=True)]
        )


def spread(nlp: Any, words: list[str], rng: random.Random, between: list[str]) -> tuple[Doc, list[int]]:
    """A document of these words with other tokens between them; where each word is."""
    texts, places = [], []
    for word in words:
        texts += rng.choices(between, k=rng.choice([0, 0, 1, 2]))
        places.append(len(texts))
        texts.append(word)
    texts += rng.choices(between, k=rng.choice([1, 2]))
    spaces = [not text.isspace() and rng.random() < 0.7 for text in texts]
    for place in places:  # words stay apart, whatever the splitter
        spaces[place] = True
    if rng.random() < 0.5:
        spaces[-1] = False
    return Doc(nlp.vocab, words=texts, spaces=spaces), places


def plain(nlp: Any, words: list[str]) -> tuple[Doc, list[int]]:
    return Doc(nlp.vocab, words=words), list(range(len(words)))


def found(doc: Doc, places: list[int]) -> list[Any]:
    """Entities in words, with their scores; none begins or ends with anything but a word."""
    words = {place: word for word, place in enumerate(places)}
    group = doc.spans[KEY]
    assert all(span.text == span.text.strip() for span in group)
    return [
        (words[span.start], words[span.end - 1], span.label_, round(score, 5))
        for span, score in zip(group, group.attrs["scores"], strict=True)
    ]


def check_same(nlp: Any, *, blanks: list[str] = BLANKS, texts: Any = TEXTS, least: int = 5) -> None:
    expected = [found(nlp(doc), places) for doc, places in (plain(nlp, words) for words in texts)]
    assert sum(map(len, expected)) >= least
    for seed in range(2):
        rng = random.Random(seed)
        made = [spread(nlp, words, rng, blanks) for words in texts]
        empty = [nlp(Doc(nlp.vocab, words=[blanks[seed]], spaces=[bool(seed % 2)])) for _ in range(2)]
        assert not any(doc.spans[KEY] or doc.ents for doc in empty)
        docs = list(nlp.pipe([doc for doc, _ in made], batch_size=1))
        assert [found(doc, places) for doc, (_, places) in zip(docs, made, strict=True)] == expected


def gliner(backbone: Path, span_rep: str = "markerV0", **changes: Any) -> Any:
    """Random weights, whose scores are often above the threshold."""
    settings = gliner_config(backbone, threshold=0.48, **changes)
    settings["model"]["encoder"]["backbone"] |= {"window": 48, "stride": 32}
    settings["model"]["span_rep"] = {"@span_reps": span_rep}
    if span_rep not in ("token_level", "boundary", "boundary_pool"):  # those have no maximum
        settings["model"]["span_rep"]["max_width"] = 4
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    nlp.initialize()
    return nlp


def tagger(backbone: Path, decoder: Any = "crf", **changes: Any) -> Any:
    torch.manual_seed(1)
    nlp = spacy.blank("en")
    nlp.add_pipe("token_classifier", config=tagging_pipeline.config(backbone, decoder, **changes))
    nlp.initialize(lambda: tagging_pipeline.examples(nlp))
    component: Any = nlp.get_pipe("token_classifier")
    with torch.no_grad():
        component.network.decoder.project.weight.normal_(std=0.5)
        component.network.decoder.project.bias.zero_()
    return nlp


@pytest.mark.parametrize("span_rep", available("span_reps"))
def test_entities_of_every_span_representation(backbone: Path, span_rep: str) -> None:
    nlp = gliner(backbone, span_rep)
    component: Any = nlp.get_pipe("gliner")
    component.threshold = 0.2 if span_rep == "token_level" else 0.48
    check_same(nlp)
    component.cfg |= {"flat_ner": False, "multi_label": True}
    check_same(nlp, blanks=BLANKS + DROPPED)


@pytest.mark.parametrize(
    "decoder",
    [
        {"@decoders": "softmax", "scheme": "bio"},
        {"@decoders": "softmax", "scheme": "io", "mode": "independent"},
        {"@decoders": "softmax", "scheme": "bioul", "constrained": False},
        {"@decoders": "softmax", "scheme": "bio", "all_pieces": True},
        {"@decoders": "crf", "scheme": "bio"},
        {"@decoders": "crf", "scheme": "io", "mode": "marginal"},
        {"@decoders": "crf", "scheme": "bioul", "mode": "independent"},
    ],
    ids=lambda one: "-".join(map(str, one.values())),
)
def test_entities_of_every_tag_decoder(backbone: Path, decoder: dict[str, Any]) -> None:
    nlp = tagger(backbone, decoder)
    check_same(nlp)
    check_same(nlp, blanks=BLANKS + DROPPED)


@pytest.mark.parametrize("layers", ["lstm", "text_cnn"])
def test_backbones_that_read_words(backbone: Path, layers: str) -> None:
    embedding = {"@backbones": layers, "embedding": tagging_pipeline.config(backbone)["embedding"]}
    check_same(tagger(backbone, embedding=embedding), blanks=BLANKS + DROPPED)


@pytest.mark.parametrize("splitter", ["spacy", "whitespace", "every_token"])
@pytest.mark.parametrize("mode", ["strict", "contract", "expand"])
@pytest.mark.parametrize("make", [gliner, tagger])
def test_word_splitters_and_alignment(backbone: Path, splitter: str, mode: str, make: Any) -> None:
    nlp = make(backbone, word_splitter={"@word_splitters": splitter}, alignment_mode=mode)
    check_same(nlp)
    if splitter != "whitespace":  # its words are runs of characters: a combining mark is part of one
        check_same(nlp, blanks=BLANKS + DROPPED)


def test_the_tokens_of_a_text(backbone: Path) -> None:
    for nlp in (gliner(backbone), tagger(backbone)):
        nlp.get_pipe(nlp.pipe_names[0]).threshold = 0.0
        few = nlp("Marie Curie met John Smith in Berlin .")
        many = nlp("\n Marie  Curie met\n\nJohn\nSmith\u00a0 in\tBerlin\u2028.\n")
        assert [" ".join(span.text.split()) for span in many.spans[KEY]] == [
            span.text for span in few.spans[KEY]
        ]
        assert all(span.text == span.text.strip() for span in [*many.spans[KEY], *many.ents])
        glued = nlp("\u200bMarie Curie\u200b met \u200b John")
        assert glued.spans[KEY] and all(span.text.strip("\u200b") for span in glued.spans[KEY])


def test_pieces_that_are_blanks(backbone: Path, tmp_path: Path) -> None:
    """SentencePiece has a piece for the blank before a word, and nothing else for a zero-width space."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = shutil.copytree(backbone, tmp_path / "sentencepiece")
    inner = Tokenizer(models.Unigram())
    spaces = normalizers.Replace(Regex(" {2,}"), " ")
    inner.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), spaces])
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=specials, unk_token="[UNK]", show_progress=False
    )
    inner.train_from_iterator([" ".join(words) for words in TEXTS] * 5, trainer)
    assert inner.encode(["\u200b"], is_pretokenized=True).tokens == ["\u2581"]
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    check_same(tagger(folder), blanks=[*BLANKS, "\u200b", "\ufeff"])


def test_graphs(backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from gliner_pipe.export import export

    for name, nlp in (("spans", gliner(backbone)), ("tags", tagger(backbone))):
        export(pipeline=nlp, output=tmp_path / name, onnx=True)
        check_same(spacy.load(tmp_path / name), blanks=BLANKS + DROPPED)


def test_checkpoints_of_other_byte_level_tokenizers(backbone: Path, tmp_path: Path) -> None:
    """A line break that has pieces is no word either."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    folder = shutil.copytree(backbone, tmp_path / "bytes")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["[PAD]", "[CLS]", "[SEP]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([" ".join(words) for words in TEXTS], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    fast.save_pretrained(folder)
    check_same(tagger(folder))


# -- relations, written labels, attributes of tokens -------------------------------------------------------------------


def test_relations_and_written_labels(backbone: Path, tmp_path: Path) -> None:
    settings = gliner_config(backbone, threshold=0.48, relations=["knows"], relation_threshold=0.0)
    settings["adjacency_threshold"] = 0.0
    model = settings["model"]
    model["encoder"]["rel_token"] = "<<REL>>"
    model["relation_layer"] = {"@relation_layers": "mlp"}
    model["triple"] = {"@triples": "concat"}
    model["decoder"] = {
        "@decoders": "generative",
        "model": str(make_causal_lm(tmp_path / "lm")),
        "max_new_tokens": 3,
    }
    nlp = spacy.blank("en")
    nlp.add_pipe("gliner", config=settings)
    nlp.initialize()

    def all_of(doc: Doc, places: list[int]) -> Any:
        words = {place: word for word, place in enumerate(places)}
        ties = [
            (words[one.head.start], words[one.head.end - 1], words[one.tail.start], words[one.tail.end - 1])
            for one in doc._.relations
        ]
        return found(doc, places), ties, doc.spans[KEY].attrs["generated_labels"]

    for words in TEXTS:
        doc, places = plain(nlp, words)
        expected = all_of(nlp(doc), places)
        for seed in range(3):
            doc, places = spread(nlp, words, random.Random(seed), BLANKS + DROPPED)
            assert all_of(nlp(doc), places) == expected
    assert expected[1]


def test_attributes_of_tokens(backbone: Path) -> None:
    """Whitespace has no tag, is not learned, and is not scored."""
    nlp = spacy.blank("en")
    decoder = {"@decoders": "softmax", "scheme": "word"}
    component: Any = nlp.add_pipe(
        "token_classifier", config=tagging_pipeline.config(backbone, decoder, target="tag_")
    )

    def gold(between: list[str]) -> list[Example]:
        rng, made = random.Random(0), []
        for words in TEXTS:
            doc, places = spread(nlp, words, rng, between) if between else plain(nlp, words)
            bare = doc.copy()
            for token in doc:
                token.tag_ = "_SP"
            for place in places:
                doc[place].tag_ = "NAME" if doc[place].text.istitle() else "OTHER"
            made.append(Example(bare, doc))
        return made

    spaced, tight = gold(BLANKS), gold([])
    nlp.initialize(lambda: spaced)
    assert set(component.labels) == {"NAME", "OTHER"}
    one, two = component.collate(tight), component.collate(spaced)
    assert torch.equal(one.gold, two.gold) and one.n_words == two.n_words and not two.dropped

    def tags(examples: list[Example]) -> list[list[str]]:
        docs = [nlp(example.predicted.copy()) for example in examples]
        assert not any(token.tag_ for doc in docs for token in doc if token.is_space)
        return [[token.tag_ for token in doc if not token.is_space] for doc in docs]

    assert tags(spaced) == tags(tight)
    scores = [nlp.evaluate(some) for some in (spaced, tight)]
    assert scores[0]["tags_f"] == scores[1]["tags_f"]


# -- training ----------------------------------------------------------------------------------------------------------


def taught(nlp: Any, seed: int | None, wide: bool = True, between: list[str] = BLANKS) -> list[Example]:
    """Examples; with a seed there is whitespace everywhere, and gold spans take in what is beside them."""
    made = []
    rng = random.Random(seed)
    for words, spans, relations in (
        (TEXTS[0], [(0, 1, "person"), (5, 5, "city")], [[0, 1, "knows"]]),
        (TEXTS[1], [(0, 0, "city")], []),
        (TEXTS[2], [(2, 3, "person"), (5, 5, "city"), (10, 13, "person")], [[2, 1, "knows"]]),
    ):
        doc, places = plain(nlp, words) if seed is None else spread(nlp, words, rng, between)
        bare = doc.copy()
        borders = [-1, *places, len(doc)]
        gold = []
        for first, last, label in spans:
            start, end = places[first], places[last] + 1
            if wide:
                start, end = borders[first] + 1, borders[last + 2]
            gold.append(Span(doc, start, end, label=label))
        doc.spans[KEY] = gold
        set_supervision(doc, relations=relations)
        made.append(Example(bare, doc))
    return made


@pytest.mark.parametrize("splitter", ["spacy", "whitespace", "every_token"])
@pytest.mark.parametrize("make", [gliner, tagger])
def test_training_batches_are_the_same(backbone: Path, splitter: str, make: Any) -> None:
    nlp = make(backbone, word_splitter={"@word_splitters": splitter})
    component: Any = nlp.get_pipe(nlp.pipe_names[0])
    expected = component.collate(taught(nlp, None), random.Random(0))
    assert not expected.dropped
    for seed in range(3):
        for wide in (False, True):
            examples = taught(nlp, seed, wide)
            batch = component.collate(examples, random.Random(0))
            assert torch.equal(batch.gold, expected.gold) and not batch.dropped
            assert (batch.n_words, batch.n_pieces, batch.count) == (
                expected.n_words,
                expected.n_pieces,
                expected.count,
            )
            assert torch.equal(batch.inputs.windows.input_ids, expected.inputs.windows.input_ids)
            counts = component.count_pieces(examples)
            assert counts == component.count_pieces(taught(nlp, None))


@pytest.mark.parametrize("make", [gliner, tagger])
def test_words_without_pieces_in_training(backbone: Path, make: Any) -> None:
    nlp = make(backbone)
    component: Any = nlp.get_pipe(nlp.pipe_names[0])
    expected = component.collate(taught(nlp, None), random.Random(0))
    batch = component.collate(taught(nlp, 0, between=BLANKS + DROPPED), random.Random(0))
    assert torch.equal(batch.gold, expected.gold) and not batch.dropped


@pytest.mark.parametrize("make", [gliner, tagger])
@pytest.mark.parametrize("words", [["\n", " "], ["\u200b"]])
def test_documents_without_words_in_training(backbone: Path, make: Any, words: list[str]) -> None:
    nlp = make(backbone)
    component: Any = nlp.get_pipe(nlp.pipe_names[0])
    empty = Doc(nlp.vocab, words=words)
    bare = empty.copy()
    empty.spans[KEY] = [Span(empty, 0, 1, label="city")]
    alone = Example(bare, empty)
    batch = component.collate([*taught(nlp, None), alone], random.Random(0))
    assert sum(batch.dropped.values()) == 1  # the entity is counted
    assert batch.count == component.collate(taught(nlp, None), random.Random(0)).count
    assert float(component.get_loss([alone]).total.detach()) == 0.0
    optimizer = nlp.resume_training()
    losses: dict[str, float] = {}
    nlp.update([alone, *taught(nlp, 1)], sgd=optimizer, losses=losses)
    assert all(map(torch.isfinite, map(torch.tensor, losses.values())))
    nlp.evaluate([alone, *taught(nlp, 1)])


# -- scores and files --------------------------------------------------------------------------------------------------


def test_gold_spans_that_end_in_whitespace(backbone: Path) -> None:
    """Scores are those of the same words with single blanks, whatever is measured."""
    nlp = tagger(backbone)
    metrics = [ExactScorer(), OverlapScorer(), TokenScorer(), SeqevalScorer()]

    def scores(examples: list[Example]) -> list[Any]:
        pairs = [Example(nlp(example.predicted.copy()), example.reference) for example in examples]
        return [metric(pairs) for metric in metrics]

    expected = scores(taught(nlp, None))
    for seed in range(3):
        assert scores(taught(nlp, seed)) == expected


def test_perfect_scores(backbone: Path) -> None:
    nlp = gliner(backbone)
    for seed in range(3):
        tight = taught(nlp, seed, wide=False)
        pairs = [
            Example(right.reference, wide.reference)
            for right, wide in zip(tight, taught(nlp, seed), strict=True)
        ]
        for metric in (ExactScorer(), TokenScorer(), SeqevalScorer()):
            micro = metric(pairs)["micro"]
            assert (micro["p"], micro["r"], micro["f"]) == (1.0, 1.0, 1.0)
        component: Any = nlp.get_pipe("gliner")
        assert component.score(pairs)["spans_gliner_f"] == 1.0


def test_a_gold_span_of_whitespace_is_no_entity() -> None:
    nlp = spacy.blank("en")
    doc = Doc(nlp.vocab, words=["Rome", "\n", "burns"])
    predicted = doc.copy()
    doc.spans[KEY] = [Span(doc, 0, 1, label="city"), Span(doc, 1, 2, label="city")]
    predicted.spans[KEY] = [Span(predicted, 0, 1, label="city")]
    for metric in (ExactScorer(), OverlapScorer(), TokenScorer(), SeqevalScorer()):
        assert metric([Example(predicted, doc)])["micro"]["f"] == 1.0


def test_relations_between_spans_with_whitespace() -> None:
    nlp = spacy.blank("en")
    (wide, *_), (tight, *_) = taught(nlp, 0), taught(nlp, 0, wide=False)
    from gliner_pipe.data import relations

    relations.install_extension()
    head, tail = tight.reference.spans[KEY]
    relations.set_relations(tight.reference, [relations.Relation(head, tail, "knows", 0.9)])
    scores = RelationScorer()([Example(tight.reference, wide.reference)])
    assert scores["strict"]["micro"]["f"] == 1.0


def test_records_of_words_with_whitespace(tmp_path: Path) -> None:
    """Blanks at the ends of an entity are no part of it, in words as in characters."""
    import json

    nlp = spacy.blank("en")
    path = tmp_path / "words.jsonl"
    record = {"tokenized_text": ["Ada", " ", "left", "\n"], "ner": [[0, 1, "person"], [3, 3, "city"]]}
    path.write_text(json.dumps(record), encoding="utf8")
    reader: Any = registry.readers.get("gliner_json")(path=str(path))
    (example,) = reader(nlp)
    assert [(span.start, span.end) for span in example.reference.spans[KEY]] == [(0, 1)]


def test_thresholds_are_found_in_words(backbone: Path) -> None:
    from gliner_pipe.evaluation.thresholds import find_threshold

    nlp = gliner(backbone)
    results = [find_threshold(nlp, taught(nlp, seed)) for seed in (None, 0, 1)]
    assert results[0] == results[1] == results[2]


def test_long_documents_are_cut_by_words() -> None:
    """Whitespace takes no room: pieces and chunks hold the same words, spans and relations."""
    nlp = spacy.blank("en")

    def parts(examples: list[Example]) -> list[Any]:
        chunks = list(chunk_examples(examples, Chunk(max_words=10, stride=4)))
        pieces = list(split_examples(examples, max_length=7, report=Counter()))
        return [
            (
                [token.text for token in one.reference if not token.is_space],
                [" ".join(span.text.split()) for span in one.reference.spans[KEY]],
                supervision(one.reference)["relations"],
            )
            for one in [*chunks, *pieces]
        ]

    expected = parts(taught(nlp, None))
    assert len(expected) > 12
    blanks = [blank for blank in BLANKS if "\n" not in blank]  # a line break may end a sentence
    for seed in range(4):
        for wide in (False, True):
            assert parts(taught(nlp, seed, wide, blanks)) == expected


def test_data_is_described_in_words() -> None:
    nlp = spacy.blank("en")
    expected = check_examples(taught(nlp, None), max_width=4, max_length=40)
    assert expected.words == sum(map(len, TEXTS))
    for seed in range(2):
        assert check_examples(taught(nlp, seed), max_width=4, max_length=40) == expected
