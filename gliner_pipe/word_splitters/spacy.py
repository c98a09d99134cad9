"""spaCy's own tokens as words."""

from __future__ import annotations

from spacy.tokens import Doc

from gliner_pipe.registry import registry
from gliner_pipe.word_splitters.base import Words, WordSplitter


@registry.word_splitters.register("spacy")
class SpacyWords(WordSplitter):
    """The tokens of the document; the default, and the right choice for models trained in this project.

    Double blanks, line breaks and tabs are tokens of spaCy, too. No model reads them.
    """

    def split(self, doc: Doc) -> Words:
        """Return the tokens."""
        return Words([token.text for token in doc])
