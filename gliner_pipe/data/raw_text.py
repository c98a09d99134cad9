"""Running text of documents that data give as words, and the words of a pipeline on it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from spacy.language import Language
from spacy.tokens import Doc

#: Punctuation that stands without a space before it, and after it.
_CLOSING, _OPENING = (
    set(".,;:!?%\u2026)]}\u00bb\u201d\u2019"),
    set("([{\u00ab\u201c\u2018$\u20ac\u00a3\u00bf\u00a1#"),
)
#: Symbols that are written without spaces around them: slashes, hyphens and the like.
_INSIDE = "/\u2044-\u2010\u2011_@^~\u00b0"
#: First and last characters of scripts that are written without spaces: kana, and Chinese characters.
_WITHOUT_SPACES = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"))


def raw_doc(nlp: Language, doc: Doc) -> Doc:
    """Return the document that `nlp` makes of the text of `doc`, by its own tokenizer.

    The text of a document that data give as words, each followed by a space, is :func:`running_text`.

    Parameters
    ----------
    nlp
        Provides the tokenizer.
    doc
        A document of any words.
    """
    text = running_text([token.text for token in doc]) if is_words_only(doc) else doc.text
    made: Doc = nlp.tokenizer(text)
    return made


def is_words_only(doc: Doc) -> bool:
    """Whether each token is followed by a space, as in documents made from lists of words."""
    return len(doc) > 0 and all(token.whitespace_ for token in doc[:-1])


def running_text(words: Sequence[str]) -> str:
    """Return words as running text: no space before closing and after opening punctuation, and around symbols.

    Where the original text is not known, this is what it most likely was: ``Oslo .`` was ``Oslo.``, and a half of three
    words, with a fraction slash, was one. Other words are separated by spaces, except Chinese characters and kana.

    Parameters
    ----------
    words
        The words in their order.
    """
    parts = list(words[:1])
    quoted = words[:1] in (['"'], ["''"])
    for before, word in pairwise(words):
        if word == '"':
            quoted = not quoted
            joined = not quoted or _opens(before)
        else:
            joined = _closes(word) or _opens(before) or _inside(before) or _inside(word)
            joined = joined or (before == '"' and quoted) or (_unspaced(before[-1:]) and _unspaced(word[:1]))
        parts += [word] if joined else [" ", word]
    return "".join(parts)


def _closes(word: str) -> bool:
    return bool(word) and set(word) <= _CLOSING


def _opens(word: str) -> bool:
    return bool(word) and set(word) <= _OPENING


def _inside(word: str) -> bool:
    """Whether a word is a symbol that is usually written without spaces around it."""
    return len(word) == 1 and (word in _INSIDE or unicodedata.category(word) == "Sm")


def _unspaced(character: str) -> bool:
    return any(first <= character <= last for first, last in _WITHOUT_SPACES)
