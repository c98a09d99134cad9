"""A closed set of labels as a tree of their pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


class LabelTrie:
    """Says which piece may follow which, so that a language model can write nothing but the given labels.

    Parameters
    ----------
    labels
        Each label with its pieces. Of labels with equal pieces the first is known.
    end
        The piece that ends every label.
    """

    def __init__(self, labels: Iterable[tuple[str, Sequence[int]]], end: int) -> None:
        self.end = end
        self._labels: dict[tuple[int, ...], str] = {}
        self._root: dict[int, Any] = {}
        for label, pieces in labels:
            self._labels.setdefault(tuple(pieces), label)
            node = self._root
            for piece in (*pieces, end):
                node = node.setdefault(piece, {})

    def __len__(self) -> int:
        """Count the labels that can be told apart."""
        return len(self._labels)

    @property
    def depth(self) -> int:
        """Pieces of the longest label, its end included."""
        return 1 + max(map(len, self._labels), default=0)

    def allowed(self, prefix: Sequence[int]) -> list[int]:
        """Pieces that may follow `prefix`; the end alone once a label is whole."""
        node = self._root
        for piece in prefix:
            node = node.get(piece, {})
        return list(node) or [self.end]

    def label(self, pieces: Sequence[int]) -> str | None:
        """Give the label of these pieces (without the end), as it was written; None when there is none."""
        return self._labels.get(tuple(pieces))
