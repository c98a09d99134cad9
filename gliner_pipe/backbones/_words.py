"""From words to pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from gliner_pipe.backbones import _hf
from gliner_pipe.backbones.windows import Pieces
from gliner_pipe.model.cache import Cache

#: Words whose pieces are kept at most.
MOST_KEPT = 1 << 16


class WordCutter:
    """Cuts words into pieces and keeps those of each word: a tokenizer that is given words cuts each by itself.

    Most words of a text have been met before, and to look one up is a tenth of the time.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of `transformers`, to which no tokens are added any more; it is left as it is.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        # what transformers has around it is for texts that are padded
        self._rust = _hf.rust_copy(tokenizer)
        self._known: Cache[str, list[int]] = Cache(MOST_KEPT)

    def __reduce__(self) -> tuple[type[WordCutter], tuple[Any]]:
        return WordCutter, (self._tokenizer,)

    def cut(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Return the pieces of each text."""
        by_word = self._known.get_all(list(chain.from_iterable(texts)), self._pieces)
        counts = np.fromiter(map(len, by_word), np.int64, len(by_word))
        ids = np.fromiter(chain.from_iterable(by_word), np.int64, int(counts.sum()))
        ends = np.cumsum([len(words) for words in texts], dtype=np.int64)
        id_ends = np.concatenate([[0], np.cumsum(counts)])[ends].tolist()
        cut, start, id_start = [], 0, 0
        for stop, id_stop in zip(ends.tolist(), id_ends, strict=True):
            cut.append(Pieces(ids[id_start:id_stop], counts[start:stop]))
            start, id_start = stop, id_stop
        return cut

    def _pieces(self, words: list[str]) -> list[list[int]]:
        encoded = self._rust.encode_batch(
            [[word] for word in words], is_pretokenized=True, add_special_tokens=False
        )
        return [encoding.ids for encoding in encoded]
