from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc

from gliner_pipe.data.raw_text import raw_doc, running_text


@pytest.mark.parametrize(
    "text",
    [
        "1\u20442 cup of sugar, sifted.",
        'He said "no" (twice) in 1990.',
        "Take a 5-HT or and/or $5.",
        "它是東京 Tower",
        "plain words",
        "",
    ],
)
def test_running_text(text):
    words = [token.text for token in spacy.blank("en")(text) if not token.is_space]
    split = [piece for word in words for piece in (["1", "\u2044", "2"] if word == "1\u20442" else [word])]
    split = [piece for word in split for piece in (word if word == "它是東京" else [word])]
    assert running_text(split) == text


def test_the_text_of_a_document_with_spaces_is_kept():
    nlp = spacy.blank("en")
    assert raw_doc(nlp, nlp("Oslo , Lima.")).text == "Oslo , Lima."
    assert [token.text for token in raw_doc(nlp, Doc(nlp.vocab, words=["1", "\u2044", "2", "cup"]))] == [
        "1\u20442",
        "cup",
    ]
