from collections import Counter

import numpy as np
import pytest
from conftest import make_backbone
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gliner_pipe.modeling.backbones import transformer as _words
from gliner_pipe.modeling.backbones.hf import tokenizer_of
from gliner_pipe.modeling.backbones.transformer import WordCutter

TEXTS = [
    ["Maria", "met", "Bob", "\u200b", "in", "Oslo", "and", "Maria", "left"],
    [],
    ["unaffable", "hello world", "  x ", "[SEP]", "日本", "ﬁ"],
    ["Maria"],
]


def _word_pieces(folder):
    return tokenizer_of(str(make_backbone(folder)), False)


def _bytes(folder):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return _trained(inner, trainers.BpeTrainer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _unigrams(folder):
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    return _trained(inner, trainers.UnigramTrainer, unk_token="[UNK]")


def _trained(inner, trainer, **options):
    specials = ["[PAD]", "[UNK]", "[SEP]"]
    made = trainer(vocab_size=300, special_tokens=specials, show_progress=False, **options)
    inner.train_from_iterator([" ".join(words) for words in TEXTS if words] * 3, made)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", sep_token="[SEP]"
    )


@pytest.fixture(scope="module", params=[_word_pieces, _bytes, _unigrams])
def tokenizer(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("tokenizer"))


def test_subword_tokens_match_those_of_the_whole_text(tokenizer):
    cutter = WordCutter(tokenizer)
    for _ in range(2):  # the second time all words are known
        for words, pieces in zip(TEXTS, cutter.cut(TEXTS), strict=True):
            options = {"is_split_into_words": True, "add_special_tokens": False}
            expected = tokenizer(words, **options) if words else None
            assert pieces.ids.tolist() == (expected["input_ids"] if expected else [])
            counts = Counter(expected.word_ids()) if expected else {}
            assert pieces.counts.tolist() == [counts.get(place, 0) for place in range(len(words))]
            assert pieces.ids.dtype == pieces.counts.dtype == np.int64


def test_no_texts(tokenizer):
    assert WordCutter(tokenizer).cut([]) == []


def test_settings_of_the_tokenizer_are_ignored(tokenizer):
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=3)
    long = [["Maria"] * 20, ["Bob"]]
    assert [len(pieces.counts) for pieces in WordCutter(tokenizer).cut(long)] == [20, 1]
    assert len(WordCutter(tokenizer).cut([["x" * 40]])[0].ids) > 3


def test_a_word_is_tokenized_once_and_the_cache_is_bounded(tokenizer, monkeypatch):
    monkeypatch.setattr(_words, "MOST_KEPT", 4)
    cutter = WordCutter(tokenizer)
    cutter.cut([["a", "b", "a", "b"]])
    assert set(cutter._known) == {"a", "b"}
    cutter.cut([["a", "c", "d"]])
    assert set(cutter._known) == {"a", "b", "c", "d"}
    (pieces,) = cutter.cut([["a", "e"]])
    assert {"a", "e"} <= set(cutter._known) and len(cutter._known) <= 4
    assert (
        pieces.ids.tolist()
        == tokenizer(["a", "e"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
    )
