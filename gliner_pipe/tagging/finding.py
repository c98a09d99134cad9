"""From the scores of words to entities."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from gliner_pipe.annotate import Entity
from gliner_pipe.model.token_classifier import TokenClassifier


def find(model: TokenClassifier, emissions: Sequence[Tensor], *, words: bool) -> list[list[Entity]]:
    """Decode whole texts.

    Parameters
    ----------
    model
        With weights.
    emissions
        Of each text, from ``model.score``.
    words
        Whether each word has a label, and not each span.

    Returns
    -------
    list of list of Entity
        For each text, ordered by start; with `words` they are one word each.
    """
    if words:
        return [_words(model, *one) for one in model.decoder.decode_words(emissions)]
    return [
        [Entity(start, end, model.labels[label], score) for start, end, label, score in one]
        for one in model.decoder.decode(emissions)
    ]


def _words(model: TokenClassifier, tags: Tensor, scores: Tensor) -> list[Entity]:
    """Return the best label of each word that has one."""
    owners = model.decoder.tables.labels.tolist()
    found = []
    for word, (row, chances) in enumerate(zip(tags.tolist(), scores.tolist(), strict=True)):
        labels = [owners[chain][tag] for chain, tag in enumerate(row)]
        named = [pair for pair in zip(chances, labels, strict=True) if pair[1] >= 0]
        if named:
            score, label = max(named)
            found.append(Entity(word, word, model.labels[label], score))
    return found
