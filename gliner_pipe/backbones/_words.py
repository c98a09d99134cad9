"""From words to pieces."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from gliner_pipe.backbones.windows import Pieces

#: Words whose pieces are kept at most.
MOST_KEPT = 1 << 16


class WordCutter:
    """Cuts words into pieces and keeps those of each word: a tokenizer that is given words cuts each by itself.

    Most words of a text have been met before, and to look one up is a tenth of the time.

    Parameters
    ----------
    tokenizer
        A fast tokenizer of `transformers`, to which no tokens are added any more.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, list[int]] = {}

    def __reduce__(self) -> tuple[type[WordCutter], tuple[Any]]:
        return WordCutter, (self._tokenizer,)

    def cut(self, texts: Sequence[Sequence[str]]) -> list[Pieces]:
        """Return the pieces of each text."""
        by_word = self._look_up(list(chain.from_iterable(texts)))
        counts = np.fromiter(map(len, by_word), np.int64, len(by_word))
        ids = np.fromiter(chain.from_iterable(by_word), np.int64, int(counts.sum()))
        ends = np.cumsum([len(words) for words in texts], dtype=np.int64)
        id_ends = np.concatenate([[0], np.cumsum(counts)])[ends].tolist()
        cut, start, id_start = [], 0, 0
        for stop, id_stop in zip(ends.tolist(), id_ends, strict=True):
            cut.append(Pieces(ids[id_start:id_stop], counts[start:stop]))
            start, id_start = stop, id_stop
        return cut

    def _look_up(self, words: list[str]) -> list[list[int]]:
        known = self._known  # another thread may put an empty one in its place
        new = [word for word in dict.fromkeys(words) if word not in known]
        if new:
            if len(known) + len(new) > MOST_KEPT:
                known = self._known = {}
                new = list(dict.fromkeys(words))
            # what transformers has around it is for texts that are padded
            rust = self._tokenizer.backend_tokenizer
            rust.no_truncation()
            rust.no_padding()
            encoded = rust.encode_batch(
                [[word] for word in new], is_pretokenized=True, add_special_tokens=False
            )
            known.update(zip(new, (encoding.ids for encoding in encoded), strict=True))
        return [known[word] for word in words]
