"""The word splitter ``gliner2``, beside that of the `gliner2` package."""

from __future__ import annotations

import pytest
import spacy

from gliner_pipe.pipeline.word_splitters import Gliner2Words

NLP = spacy.blank("xx")
TEXTS = [
    "Maria Lindqvist's well-known snake_case co-author, e.g. O'Neil (b. 1970).",
    "See https://www.Foo.com/x?a=b, WWW.bar.org) or Mail a.b+c@Example.co.uk and @Handle_1!",
    "İstanbul ve IĞDIR — 3,5 % of\tit\n\nwas $40?",
    "हिन्दी में कुछ शब्द और تَشْكِيل हैं।",
    "cafe\u0301 zero\u200dwidth\u200cjoiner a\u200bb",
    "@ a@b -x- --y_ http:// www. 北京大学 🙂",
    "!?",
]


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_those_of_the_package(text: str) -> None:
    pytest.importorskip("gliner2")
    from gliner2.processing.word_splitter import WhitespaceTokenSplitter
    from gliner2.processor import SchemaTransformer

    wanted = list(WhitespaceTokenSplitter()(SchemaTransformer._normalize_text(text)))
    words = Gliner2Words().split(NLP.make_doc(text))
    assert words.texts == [word for word, _, _ in wanted]
    n_own = len(wanted) - words.n_added
    assert words.offsets[:n_own] == [(start, end) for _, start, end in wanted[:n_own]]
    assert words.n_added == (not text.endswith((".", "!", "?")))


def test_the_full_stop_is_added_behind_the_text() -> None:
    words = Gliner2Words().split(NLP.make_doc("Ann WENT  "))
    assert (words.texts, words.offsets, words.n_added) == (
        ["ann", "went", "."],
        [(0, 3), (4, 8), (10, 10)],
        1,
    )
    assert Gliner2Words().split(NLP.make_doc("Ann.")).n_added == 0
    assert Gliner2Words().split(NLP.make_doc(" \n")).texts == []
