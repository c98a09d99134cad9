"""Base class of tag decoders: a tag for each word, and the entities that the tags encode."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.decoders.span import Candidate

#: How tags encode entities; ``biolu`` is another name of ``bioul``. In ``word``, each word has its own label.
Scheme = Literal["io", "bio", "bioul", "biolu", "word"]
Span = tuple[int, int, int]

WHERE = "components.*.model.decoder"
#: Placeholder for an unknown gold tag.
UNKNOWN = -100
#: Score of an illegal transition: exp(-10,000) is 0 in any float, without the NaNs that infinities produce.
ILLEGAL = -1e4
#: Share of words in entities of a label, assumed by the untrained weights of a chain for this label alone.
INSIDE = 0.02
#: Maximum number of emissions decoded at once; documents of similar length are batched together.
EMISSIONS_AT_ONCE = 1 << 22

_PREFIXES = {"io": "I", "bio": "BI", "bioul": "BILU", "biolu": "BILU", "word": "W"}


class TagTables(NamedTuple):
    """Meaning of the tags of a chain.

    Attributes
    ----------
    names
        ``O``, ``B-person`` ...; without a label if the chain has only one label.
    prefixes
        ``O``, or one of ``B I L U W``, of each tag.
    labels
        Label of each tag of each chain, -1 for ``O``: ``(chains, tags)``.
    joined
        Whether two neighbouring tags belong to one entity, ``(tags, tags)``.
    allowed, opening, closing
        Which tag may follow which, ``(tags, tags)``; which tag may come first and which last, ``(tags,)``.
    """

    names: list[str]
    prefixes: str
    labels: Tensor
    joined: Tensor
    allowed: Tensor
    opening: Tensor
    closing: Tensor

    @classmethod
    def make(cls, scheme: Scheme, labels: Sequence[str], chain_per_label: bool) -> TagTables:
        """Build the tables of `scheme`: all labels in one chain, or a chain for each label."""
        prefixes = "" if scheme == "word" else "O"
        names, owners = list(prefixes), [-1] * len(prefixes)
        for index, label in enumerate(labels[:1] if chain_per_label else labels):
            for prefix in _PREFIXES[scheme]:
                prefixes += prefix
                owners.append(index)
                names.append(prefix if chain_per_label else label if prefix == "W" else f"{prefix}-{label}")
        owner = torch.tensor(owners)
        labelled = owner.expand(1, -1)
        if chain_per_label:
            labelled = torch.where(owner < 0, -1, torch.arange(len(labels))[:, None])
        continues, closes = _any_of(prefixes, "IL"), _any_of(prefixes, "LUW")
        same = (owner[:, None] == owner) & (owner >= 0)
        joined = same & continues & ~closes[:, None]
        needs_before = continues & (scheme != "io")  # I of BIO, I and L of BIOUL
        needs_after = _any_of(prefixes, "BI") & ("U" in prefixes)
        allowed = torch.where(needs_before, joined, ~needs_after[:, None])
        return cls(names, prefixes, labelled, joined, allowed, ~needs_before, ~needs_after)


class TaggedSpans(NamedTuple):
    """Entities that tags encode: parallel lists, and the index of each word's entity, ``(rows, chains, words)``."""

    rows: Tensor
    chains: Tensor
    starts: Tensor
    ends: Tensor
    of_word: Tensor


class TagDecoder(Block):
    """Tags each word, in one chain of tags or, if labels may overlap, in one chain for each label.

    Shapes are ``(rows, words, chains, tags)``; a row is a document or part of one.

    Parameters
    ----------
    scheme
        How tags encode entities: ``io``, ``bio``, ``bioul`` (also written ``biolu``), or ``word`` if each word has a
        label, such as its part of speech.
    constrained
        Restrict tags to sequences that the scheme allows.
    dropout
        Dropout rate of the word vectors.

    Attributes
    ----------
    n_labels, n_chains
        Number of labels, and of chains of tags.
    tags
        Names of the tags of a chain; without a label if each label has its own chain.
    tables
        Meaning of the tags.
    """

    family = "decoders"
    #: Whether all subword tokens of a word are trained, not only the first.
    all_pieces: bool = False

    def __init__(self, scheme: Scheme, constrained: bool, dropout: float) -> None:
        super().__init__()
        self.scheme: Scheme = scheme
        self.constrained = constrained
        self.dropout = dropout

    @property
    @abstractmethod
    def chain_per_label(self) -> bool:
        """Whether each label has its own chain."""

    @abstractmethod
    def loss(self, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """Return the loss, summed over words and chains.

        Parameters
        ----------
        emissions
            Tag scores from :meth:`emissions`, ``(rows, words, chains, tags)``.
        gold
            Tags, -100 if unknown, ``(rows, words, chains)``.
        mask
            True for words, ``(rows, words)``; other positions are skipped as if they did not exist.
        """

    @abstractmethod
    def best(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best tags ``(rows, words, chains)``; padding must be at the end of rows."""

    @abstractmethod
    def word_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """Return the probability of each of `tags`, ``(rows, words, chains)``."""

    @abstractmethod
    def span_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor, spans: TaggedSpans) -> Tensor:
        """Return the score in [0, 1] of each of `spans`, which `tags` encode."""

    # -- building, saving, loading -------------------------------------------------------------------------------------

    def build(self, hidden_size: int, labels: Sequence[str]) -> None:
        """Create the layer that scores the tags of `labels`.

        In a chain for each label, ``O`` is initially as probable as it is rare to be in an entity of one label.
        Otherwise the first steps would learn nothing else: their loss grows with the number of labels, and so does the
        gradient that the tag ``O`` sends to the backbone.

        Raises
        ------
        ConfigError
            If there are no labels, or duplicates, or if the scheme does not allow several labels per word.
        """
        if not labels or len(set(labels)) < len(labels):
            twice = sorted({label for label in labels if labels.count(label) > 1})
            found = f"found duplicate labels: {', '.join(twice)}" if labels else "found no labels"
            raise ConfigError("components.*.labels", found, "one or more distinct labels")
        if self.scheme == "word" and self.chain_per_label:
            found = "found a chain for each label with scheme = 'word', which has one label per word"
            option, allowed = ("chains", "one") if hasattr(self, "chains") else ("mode", "joint")
            raise ConfigError(f"{WHERE}.{option}", found, allowed)
        self.tables = TagTables.make(self.scheme, labels, self.chain_per_label)
        self.tags = self.tables.names
        self.n_labels = len(labels)
        self.n_chains = len(self.tables.labels)
        self.project = nn.Linear(hidden_size, self.n_chains * len(self.tags))
        if self.chain_per_label:
            with torch.no_grad():
                odds = (1 - INSIDE) / INSIDE * (len(self.tags) - 1)
                self.project.bias.view(self.n_chains, -1)[:, 0] = math.log(odds)
        self.drop = nn.Dropout(self.dropout)

    def save_assets(self, path: Path) -> None:
        """Save what ``load_assets`` needs, besides weights, to the folder `path`."""

    def load_assets(self, path: Path) -> None:
        """Read what ``save_assets`` wrote, before ``build``."""

    def emissions(self, words: Tensor) -> Tensor:
        """Return the tag scores of all words ``(rows, words, hidden)``, in fp32 even at reduced precision."""
        with torch.autocast(words.device.type, enabled=False):
            scores = self.project(self.drop(words.to(self.project.weight.dtype)))
        return scores.unflatten(-1, (self.n_chains, len(self.tags)))

    def word_loss(self, emissions: Tensor, gold: Tensor, mask: Tensor, smoothing: float = 0.0) -> Tensor:
        """Return the cross-entropy, summed over words and chains; words without a known tag are skipped."""
        gold = gold.masked_fill(~mask[:, :, None], UNKNOWN).flatten()
        with torch.autocast(emissions.device.type, enabled=False):
            rows = as_float(emissions).flatten(0, -2)
            return F.cross_entropy(
                rows, gold, ignore_index=UNKNOWN, reduction="sum", label_smoothing=smoothing
            )

    def count(self, mask: Tensor, gold: Tensor) -> float:
        """Return the number of words with a known tag, by which the loss is divided."""
        return float((mask & (gold != UNKNOWN).any(-1)).sum())

    def penalties(self, device: torch.device | str, cost: float = ILLEGAL) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of violating the scheme: transitions ``(tags, tags)``, start and end ``(tags,)``."""
        masks = (self.tables.allowed, self.tables.opening, self.tables.closing)
        cost = cost if self.constrained else 0.0
        legal, first, last = (torch.where(mask, 0.0, cost).to(device) for mask in masks)
        return legal, first, last

    # -- gold ------------------------------------------------------------------------------------------------------

    def encode(self, spans: Sequence[Span], n_words: int) -> tuple[Tensor, int]:
        """Convert gold spans to tags.

        Parameters
        ----------
        spans
            First word, last word (inclusive) and label. Of two conflicting spans the longer one is kept, then the
            first.
        n_words
            Number of words of the document.

        Returns
        -------
        (Tensor, int)
            Tags ``(words, chains)``, and the number of spans that the tags do not encode.

        Raises
        ------
        ValueError
            If a span is outside the document.
        """
        wanted = set(spans)
        tags = torch.full((n_words, self.n_chains), 0 if "O" in self.tables.prefixes else UNKNOWN)
        taken = torch.zeros_like(tags, dtype=torch.bool)
        for start, end, label in sorted(wanted, key=lambda span: (span[0] - span[1], *span)):
            if not (0 <= start <= end < n_words and 0 <= label < self.n_labels):
                raise ValueError(
                    f"span {(start, end, label)} beyond {n_words} words or {self.n_labels} labels"
                )
            chain = label if self.chain_per_label else 0
            if not taken[start : end + 1, chain].any():
                taken[start : end + 1, chain] = True
                tags[start : end + 1, chain] = self._tags_of(end - start + 1, label)
        decoded = tags.clamp(min=0)[None]
        kept = self._listed(decoded, self.spans_of(decoded, taken.any(1)[None]))
        return tags, len(wanted - {(start, end, label) for _, start, end, label in kept})

    def _tags_of(self, width: int, label: int) -> Tensor:
        """Return the tags of an entity; with ``word``, each of its words is an entity of its own."""
        prefixes = self.tables.prefixes
        owner = 0 if self.chain_per_label else label
        offset = prefixes.count("O") + owner * len(_PREFIXES[self.scheme])

        def tag(wanted: str) -> int:
            return offset + next(_PREFIXES[self.scheme].index(each) for each in wanted if each in prefixes)

        if width == 1:
            return torch.tensor([tag("UBIW")])
        inner = [tag("IW")] * (width - 2)
        return torch.tensor([tag("BIW"), *inner, tag("LIW")])

    def _listed(self, tags: Tensor, spans: TaggedSpans) -> list[list[int]]:
        """Row, first word, last word and label of each entity."""
        first = tags[spans.rows, spans.starts, spans.chains]
        labels = self.tables.labels.to(tags.device)[spans.chains, first]
        listed: list[list[int]] = torch.stack([spans.rows, spans.starts, spans.ends, labels], 1).tolist()
        return listed

    # -- predictions -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, emissions: Sequence[Tensor]) -> list[list[Candidate]]:
        """Find the entities of documents.

        Parameters
        ----------
        emissions
            Tag scores of each document, ``(words, chains, tags)``.

        Returns
        -------
        list of list of Candidate
            Entities of each document, ordered by start, end and label.
        """
        found: list[list[Candidate]] = [[] for _ in emissions]
        for group, rows, mask in _padded(emissions):
            tags = self.best(rows, mask)
            spans = self.spans_of(tags, mask)
            scores = self.span_scores(rows, mask, tags, spans).clamp(0.0, 1.0)
            for (row, start, end, label), score in zip(
                self._listed(tags, spans), scores.tolist(), strict=True
            ):
                found[group[row]].append(Candidate(start, end, label, score))
        return [sorted(candidates) for candidates in found]

    @torch.no_grad()
    def decode_words(self, emissions: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the tag of each word of documents, and its probability: two tensors ``(words, chains)`` each."""
        found: dict[int, tuple[Tensor, Tensor]] = {}
        for group, rows, mask in _padded(emissions):
            tags = self.best(rows, mask)
            scores = self.word_scores(rows, mask, tags)
            for row, index in enumerate(group):
                length = len(emissions[index])
                found[index] = tags[row, :length], scores[row, :length]
        none = torch.zeros(0, self.n_chains)
        return [found.get(index, (none.long(), none)) for index in range(len(emissions))]

    def spans_of(self, tags: Tensor, mask: Tensor) -> TaggedSpans:
        """Convert tags ``(rows, words, chains)`` to entities.

        Tags that violate the scheme are repaired: an ``I`` without a beginning opens an entity, and an entity that is
        never closed ends where the next one begins.
        """
        device = tags.device
        tables = self.tables
        chains = torch.arange(self.n_chains, device=device)
        inside = (tables.labels.to(device)[chains, tags] >= 0) & mask[:, :, None]
        # words last, so that entities are in order
        inside, tags = inside.transpose(1, 2), tags.transpose(1, 2)
        joined = tables.joined.to(device)[tags[..., :-1], tags[..., 1:]] & inside[..., :-1] & inside[..., 1:]
        outside = torch.zeros_like(inside[..., :1])
        begins = inside & ~torch.cat([outside, joined], -1)
        ends = inside & ~torch.cat([joined, outside], -1)
        rows, chain, starts = begins.nonzero().unbind(1)
        of_word = torch.where(inside, begins.flatten().cumsum(0).view_as(begins) - 1, -1)
        return TaggedSpans(rows, chain, starts, ends.nonzero()[:, 2], of_word)


def _padded(emissions: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield batches of documents of similar length: indices, padded emissions and the mask of words."""
    order = sorted(
        (index for index, one in enumerate(emissions) if len(one)), key=lambda i: -len(emissions[i])
    )
    while order:
        longest = emissions[order[0]]
        size = max(1, EMISSIONS_AT_ONCE // longest.numel())
        group, order = order[:size], order[size:]
        rows = pad_sequence([emissions[index] for index in group], batch_first=True)
        lengths = torch.tensor([len(emissions[index]) for index in group], device=rows.device)
        yield group, as_float(rows), torch.arange(len(longest), device=rows.device) < lengths[:, None]


def as_float(emissions: Tensor) -> Tensor:
    """Return emissions in single precision at least: a sum over thousands of words would overflow in half precision."""
    return emissions if emissions.dtype == torch.float64 else emissions.float()


def _any_of(prefixes: str, wanted: str) -> Tensor:
    return torch.tensor([prefix in wanted for prefix in prefixes])
