"""Tokenizers that treat the space before a word as part of it, applied to text that is already split into words.

Byte-level BPE (RoBERTa, ModernBERT) and some SentencePiece tokenizers (Gemma, mmBERT) have one token for ``went`` at
the start of a text and another after a space. A word given alone is read as the former: ``Ann went`` as
``Annwent``. Here such tokenizers are changed to read each word as after a space, as ``add_prefix_space=True`` does for
some of them. All words are read so, the first of a text too: what a word is read as does not depend on its place.
"""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)

#: Setting of a saved tokenizer that was changed; pipelines saved earlier do not have it, and read words as before.
SETTING = "space_before_words"

#: Words of all kinds of characters, and with a boundary inside.
_PROBES = ("went", "U.S.", "it's", "1,984", "Zürich", "北京", "हूँ", "-", "(a)", "🙂")


def are_read(tokenizer: Any, like: Any = None) -> bool:
    """Return whether a tokenizer reads single words as in running text, where the tokenizer `like` reads that text.

    The strings that the model of the tokenizer receives are compared, whatever its vocabulary.
    """
    if not getattr(tokenizer, "is_fast", False):
        return True  # refused elsewhere
    rust, whole = tokenizer.backend_tokenizer, (like or tokenizer).backend_tokenizer
    return all(_strings(rust, word) == _after_space(whole, word) for word in _PROBES)


def add(tokenizer: Any, name: str) -> None:
    """Change a tokenizer, in place, so that it reads each word as after a space; warn if that is not possible."""
    from tokenizers import normalizers, pre_tokenizers

    rust = tokenizer.backend_tokenizer
    wanted = [_after_space(rust, word) for word in _PROBES]
    normalizer, before = rust.normalizer, rust.pre_tokenizer
    if isinstance(before, pre_tokenizers.ByteLevel):
        rust.pre_tokenizer = pre_tokenizers.ByteLevel(
            add_prefix_space=True, trim_offsets=before.trim_offsets, use_regex=before.use_regex
        )
    else:
        space = normalizers.Prepend(" ")
        rust.normalizer = space if normalizer is None else normalizers.Sequence([space, normalizer])
    if [_strings(rust, word) for word in _PROBES] == wanted:
        tokenizer.init_kwargs[SETTING] = True
        if "add_prefix_space" in tokenizer.init_kwargs:  # `transformers` 4 sets the pre-tokenizer by it
            tokenizer.init_kwargs["add_prefix_space"] = True
        return
    rust.normalizer, rust.pre_tokenizer = normalizer, before
    logger.warning(
        "The tokenizer of %s (%s) reads single words differently than running text; they are read as it reads them.",
        name,
        type(tokenizer).__name__,
    )


def restore(tokenizer: Any, name: str) -> None:
    """Change a saved tokenizer again if its class rebuilds it without the change."""
    if tokenizer.init_kwargs.get(SETTING) and not are_read(tokenizer):
        add(tokenizer, name)


def _strings(rust: Any, text: str) -> str:
    """Return the strings that the model of a tokenizer receives for a text, separated by zero bytes."""
    if rust.normalizer is not None:
        text = rust.normalizer.normalize_str(text)
    if rust.pre_tokenizer is None:
        return text
    return "\0".join(string for string, _ in rust.pre_tokenizer.pre_tokenize_str(text))


def _after_space(rust: Any, word: str) -> str:
    """Return the strings of a word after another one."""
    return _strings(rust, f"a {word}").removeprefix(_strings(rust, "a")).removeprefix("\0")
