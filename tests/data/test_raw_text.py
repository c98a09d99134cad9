from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc

from gliner_pipe.data.raw_text import raw_docs, running_text


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("Add 1 \u2044 2 cup of sugar , sifted .", "Add 1\u20442 cup of sugar, sifted."),
        ('He said " no " ( twice ) [ in 1990 ] .', 'He said "no" (twice) [in 1990].'),
        ("“ So , ” he said , \u2018 yes \u2019 .", "“So,” he said, \u2018yes\u2019."),
        ("Er sagte „ ja “ und » nein « .", "Er sagte „ja“ und »nein«."),
        ("Le « oui » de l ' homme qu' il aime", "Le «oui» de l'homme qu'il aime"),
        ("`` Go '' , she said", "``Go'', she said"),
        ("and / or 5-HT , $ 5 or € 5", "and/or 5-HT, $5 or €5"),
        ("0 . 5 ml at 4 ° C , 10 , 000 rpm , 13 : 19", "0.5 ml at 4°C, 10,000 rpm, 13:19"),
        ("at 350 , 400 , and 450 in 2007 . 130 of", "at 350, 400, and 450 in 2007. 130 of"),
        ("p < 0 . 05 , n = 5 , ~ 20 in 2007 \u2013 2008", "p <0.05, n = 5, ~20 in 2007\u20132008"),
        (
            "I 'm sure they do n't , do n ' t , Ann ' s , o ' clock",
            "I'm sure they don't, don't, Ann's, o'clock",
        ),
        ("confectioners ' sugar , ' so ' it is", "confectioners' sugar, 'so' it is"),
        ("e . g . the U . S . at 5 a . m . in E . coli", "e.g. the U.S. at 5 a.m. in E. coli"),
        ("see http : / / a . org / b . html ) or www . c . com .", "see http://a.org/b.html) or www.c.com."),
        ("joe @ mail . com wrote to @ ann about # spam", "joe@mail.com wrote to @ann about #spam"),
        ("Wait ... what ?! :)", "Wait... what?! :)"),
        ("它 是 東 京 Tower", "它是東京 Tower"),
        ("plain words", "plain words"),
        ("", ""),
    ],
)
def test_running_text(words, text):
    assert running_text(words.split()) == text


@pytest.mark.parametrize(
    ("words", "text", "with_hyphens"),
    [
        (
            "a well - known , pre- and post - war",
            "a well-known, pre- and post-war",
            "a well - known, pre- and post - war",
        ),
        ("at ( - 20 )", "at (-20)", "at (-20)"),
        ("no - - yes", "no -- yes", "no -- yes"),
        ("mono - and stereo", "mono- and stereo", "mono - and stereo"),
    ],
)
def test_hyphens_between_words(words, text, with_hyphens):
    assert running_text(words.split()) == text
    assert running_text(words.split(), hyphens=True) == with_hyphens


def test_the_text_of_a_document_with_spaces_is_kept():
    nlp = spacy.blank("en")
    given = [nlp("Oslo , Lima."), Doc(nlp.vocab, words=["1", "\u2044", "2", "cup"])]
    assert [[token.text for token in doc] for doc in raw_docs(nlp, given)] == [
        ["Oslo", ",", "Lima", "."],
        ["1\u20442", "cup"],
    ]


def test_hyphens_are_those_of_all_documents():
    nlp = spacy.blank("en")
    given = [Doc(nlp.vocab, words=["Rio", "-", "SP"]), Doc(nlp.vocab, words=["a-b-c", "d-e"])]
    assert [doc.text for doc in raw_docs(nlp, given)] == ["Rio - SP", "a-b-c d-e"]
