"""The contract of a decoder: from scored candidates to entities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from gliner_pipe.blocks import Block


class Candidate(NamedTuple):
    """A span above its threshold: words `start` to `end` (inclusive), index of the label, score in [0, 1]."""

    start: int
    end: int
    label: int
    score: float


class Decoder(Block):
    """Chooses among candidates."""

    family = "decoders"

    @abstractmethod
    def decode(self, candidates: Sequence[Candidate], *, flat: bool, multi_label: bool) -> list[Candidate]:
        """Keep the candidates that can stand together.

        Parameters
        ----------
        candidates
            Of one text, ordered by start, then end, then label.
        flat
            True: no two entities overlap. False: an entity may lie inside another, but not across its border.
        multi_label
            True: a span may have several labels.

        Returns
        -------
        list of Candidate
            Ordered by start.
        """
