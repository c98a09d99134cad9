"""GLiNER's words: runs of word characters, and every other character by itself."""

from __future__ import annotations

import re

from spacy.tokens import Doc

from gliner_pipe.registry import registry
from gliner_pipe.word_splitters.base import Words, WordSplitter

_WORD = re.compile(r"\w+(?:[-_]\w+)*|\S")


@registry.word_splitters.register("whitespace")
class WhitespaceWords(WordSplitter):
    """The words that GLiNER checkpoints were trained on (``words_splitter_type = "whitespace"``).

    Entities that do not end on token borders are placed by the component's ``alignment_mode``.
    """

    def split(self, doc: Doc) -> Words:
        """Return the words with their places in the text."""
        matches = list(_WORD.finditer(doc.text))
        return Words([match.group() for match in matches], [match.span() for match in matches])
