"""Running text of documents that data give as words, and the words of a pipeline on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from spacy.language import Language
from spacy.tokens import Doc

#: Punctuation that stands without a space before it, and after it.
_CLOSING, _OPENING = (
    set(".,;:!?%\u2026)]}\u00ae\u2122\u00b0\u2032\u2033"),
    set("([{$\u20ac\u00a3\u00bf\u00a1#@"),
)
#: Symbols without spaces around them: slashes, the bars of fractions and ratios, and the like.
_INSIDE = set("/\u2044\u2010\u2011\u2236^")
#: Signs before a number, such as minus and "about"; those of them, and other signs, that join two numbers.
_SIGNS, _BETWEEN_NUMBERS = set("-\u2212~<>\u2264\u2265\u00b1+"), set("\u2212\u00b1\u2013\u2014\u00d7")
#: Quotation marks that close, each with the one that it closes.
_QUOTES = dict(
    zip(
        ('"', "'", "''", "\u201d", "\u2019", "\u201c", "\u2018", "\u00bb", "\u00ab"),
        ('"', "'", "``", "\u201c", "\u2018", "\u201e", "\u201a", "\u00ab", "\u00bb"),
        strict=True,
    )
)
_APOSTROPHES = ("'", "\u2019")
#: What follows an apostrophe inside English words, and what precedes one inside French and Italian words.
_ENDING = re.compile(r"[stdm]|ll|re|ve|clock", re.IGNORECASE)
_AND = {"and", "or", "und", "oder", "et", "ou"}
_ELIDED = re.compile(r"[cdjlmnst]|(?:lors|puis|jus)?qu|(?:[dn]e|a|da|su)ll|un", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d.,]*")
#: The beginning of an address, and names that end a domain.
_ADDRESS = re.compile(r"https?:|ftp:|www\.|doi:|10\.\d{4,}/|[\w.+-]+@", re.IGNORECASE)
_DOMAINS = {"com", "org", "net", "edu", "gov", "io", "info", "uk", "de", "fr", "eu", "ch"}
#: First and last characters of scripts that are written without spaces: kana, and Chinese characters.
_WITHOUT_SPACES = (("\u3040", "\u30ff"), ("\u3400", "\u9fff"), ("\uf900", "\ufaff"))


def raw_docs(nlp: Language, docs: Sequence[Doc]) -> Iterator[Doc]:
    """Return the documents that `nlp` makes of the texts of `docs`, by its own tokenizer.

    The text of a document that data give as words, each followed by a space, is :func:`running_text`.

    Parameters
    ----------
    nlp
        Provides the tokenizer.
    docs
        Documents of any words, of one corpus.
    """
    words = {place: [token.text for token in doc] for place, doc in enumerate(docs) if is_words_only(doc)}
    hyphens = has_hyphens(words.values())
    for place, doc in enumerate(docs):
        yield nlp.tokenizer(running_text(words[place], hyphens) if place in words else doc.text)


def is_words_only(doc: Doc) -> bool:
    """Whether each token is followed by a space, as in documents made from lists of words."""
    return len(doc) > 0 and all(token.whitespace_ for token in doc[:-1])


def has_hyphens(texts: Iterable[Sequence[str]]) -> bool:
    """Whether a corpus keeps ``well-known`` as one word: then a hyphen of its own was not inside a word."""
    inside, alone = 0, 0
    for words in texts:
        alone += sum(word == "-" for word in words)
        inside += sum("-" in word[1:-1] for word in words)
    return inside > alone


def running_text(words: Sequence[str], hyphens: bool = False) -> str:
    """Return words as running text, where the original text is not known: what it most likely was.

    ``Oslo .`` was ``Oslo.``, ``0 . 5`` was ``0.5``, ``do n't`` was ``don't``, and a half of three words, with a
    fraction slash, was one. Other words are separated by spaces, except Chinese characters and kana.

    Parameters
    ----------
    words
        The words in their order.
    hyphens
        Whether words have hyphens inside, see :func:`has_hyphens`: others are then not joined by a hyphen between them.
    """
    opened: list[str] = []
    sides = [_sides(words, place, opened, hyphens) for place in range(len(words))]
    parts = list(words[:1])
    chunk = "".join(parts)  # since the last space
    for place, (before, word) in enumerate(pairwise(words), 1):
        joined = sides[place - 1][1] or sides[place][0] or (_unspaced(before[-1:]) and _unspaced(word[:1]))
        joined = joined or _in_address(chunk, word)
        chunk = chunk + word if joined else word
        parts += [word] if joined else [" ", word]
    return "".join(parts)


def _sides(words: Sequence[str], place: int, opened: list[str], hyphens: bool) -> tuple[bool, bool]:
    """Return whether a word stands without a space before it and after it; `opened` are open quotation marks."""
    word, before, after = (
        words[place],
        words[place - 1] if place else "",
        "".join(words[place + 1 : place + 2]),
    )
    if word in _APOSTROPHES and (inside := _apostrophe(before, after, _QUOTES[word] in opened)) is not None:
        return inside
    if word in _QUOTES or word in _QUOTES.values():
        return _quote(word, opened)
    if word == "@" and before[-1:].isalnum() and words[place + 2 : place + 3] == ["."]:  # an e-mail address
        return True, True
    numbers = _NUMBER.fullmatch(before) is not None, after[:1].isdigit()
    if word in (".", ",", ":"):
        if all(numbers):
            return True, _in_number(words, place)
        return True, word == "." and _abbreviates(before, after)
    if word in _INSIDE or (word in _BETWEEN_NUMBERS and all(numbers) and len(after) >= len(before)):
        return True, True
    if word == "\u00b0":
        return True, after in ("C", "F")
    if word in _SIGNS and numbers[1] and not (word == "-" and before[-1:].isalnum()):
        return False, True
    if word == "-":
        return _hyphen(before, after, hyphens)
    contracted = (word[:1] in _APOSTROPHES and word[1:].isalpha()) or word.lower() in ("n't", "n\u2019t")
    if contracted or (word == "n" and after in _APOSTROPHES and words[place + 2 : place + 3] == ["t"]):
        return True, False
    if word[-1:] in _APOSTROPHES and _ELIDED.fullmatch(word[:-1]):
        return False, True
    marks = set(word)
    closes = bool(word) and marks <= _CLOSING and (len(word) == 1 or not marks & {":", ";"})  # no emoticon
    return closes, bool(word) and marks <= _OPENING


def _apostrophe(before: str, after: str, quoted: bool) -> tuple[bool, bool] | None:
    """Return on which sides an apostrophe stands without a space; None if it is a quotation mark."""
    if before[-1:].isalnum() and (
        _ENDING.fullmatch(after) or (_ELIDED.fullmatch(before) and after[:1].isalpha())
    ):
        return True, True
    return (True, False) if before[-1:] in ("s", "n") and not quoted else None


def _quote(word: str, opened: list[str]) -> tuple[bool, bool]:
    """Return on which side a quotation mark stands without a space, and keep account of those that are open."""
    opener = _QUOTES.get(word, "")
    if opener in opened:
        del opened[opened.index(opener) :]
        return True, False
    if word in ("''", "\u201d", "\u2019"):  # these never open
        return True, False
    opened.append(word)
    return False, True


def _in_number(words: Sequence[str], place: int) -> bool:
    """Whether a mark between digits is part of a number: a decimal point, a comma at the thousands, a time."""
    mark, before, after = words[place], re.split(r"[.,]", words[place - 1])[-1], words[place + 1]
    if mark == ",":
        listed = words[place - 2 : place - 1] == [","] or "".join(words[place + 2 : place + 3]) in {
            ",",
            *_AND,
        }
        return re.match(r"0\d\d(?!\d)" if listed else r"\d{3}(?!\d)", after) is not None and len(before) <= 3
    return mark == ":" or len(before) <= 3  # "in 2007. 130 of them"


def _hyphen(before: str, after: str, hyphens: bool) -> tuple[bool, bool]:
    """Return on which sides a hyphen stands without a space; `hyphens`: others are inside words, see `has_hyphens`."""
    if before == "-" or after == "-":  # a dash
        return before == "-", after == "-"
    if hyphens:
        return (False, True) if after[:1].isdigit() and not before[-1:].isdigit() else (False, False)
    return True, after not in _AND


def _abbreviates(before: str, after: str) -> bool:
    """Whether a dot is inside an abbreviation, such as ``e.g.`` and ``U.S.``, or the name of a domain."""
    short = len(before) == len(after) == 1 and before.isalpha() and after.isalpha()
    return (short and before.isupper() == after.isupper()) or (len(before) > 1 and after in _DOMAINS)


def _in_address(chunk: str, word: str) -> bool:
    """Whether a word continues the web or e-mail address that stands since the last space, if it is one."""
    if not _ADDRESS.match(chunk.lstrip("([<")):
        return False
    last = chunk[-1]
    if last.isalnum():
        return len(word) == 1 and word in "?=&~-#"
    if last in ".:":
        return word[:1].isdigit() or word[:1].islower() or chunk.lower() == "www."
    return last in "/?=&~-#@_"


def _unspaced(character: str) -> bool:
    return any(first <= character <= last for first, last in _WITHOUT_SPACES)
