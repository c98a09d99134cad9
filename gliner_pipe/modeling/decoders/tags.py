"""The contract of a tag decoder: word vectors in, a tag a word, and the entities that the tags spell."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from gliner_pipe.errors import ConfigError
from gliner_pipe.modeling.block import Block
from gliner_pipe.modeling.decoders.span import Candidate

#: How tags spell entities; ``biolu`` is another name of ``bioul``. In ``word``, each word has a label of its own.
Scheme = Literal["io", "bio", "bioul", "biolu", "word"]
Span = tuple[int, int, int]

WHERE = "components.*.model.decoder"
#: Stands for a gold tag that is not known.
UNKNOWN = -100
#: What an illegal transition costs: e to the minus 10,000 is 0 in any float, and no infinity meets another one.
ILLEGAL = -1e4
#: Emissions that are decoded at once; documents of like length go together.
EMISSIONS_AT_ONCE = 1 << 22

_PREFIXES = {"io": "I", "bio": "BI", "bioul": "BILU", "biolu": "BILU", "word": "W"}


class TagTables(NamedTuple):
    """What the tags of a chain mean.

    Attributes
    ----------
    names
        ``O``, ``B-person`` ...; without a label where the chain has one label only.
    prefixes
        ``O``, or one of ``B I L U W``, by tag.
    labels
        Label of each tag of each chain, -1 for ``O``: ``(chains, tags)``.
    joined
        Whether two neighbouring tags lie in one entity, ``(tags, tags)``.
    allowed, opening, closing
        Which tag may follow which ``(tags, tags)``, which may come first and which last ``(tags,)``.
    """

    names: list[str]
    prefixes: str
    labels: Tensor
    joined: Tensor
    allowed: Tensor
    opening: Tensor
    closing: Tensor

    @classmethod
    def make(cls, scheme: Scheme, labels: Sequence[str], chain_a_label: bool) -> TagTables:
        """Make the tables of `scheme`: all labels in one chain, or a chain for each label."""
        prefixes = "" if scheme == "word" else "O"
        names, owners = list(prefixes), [-1] * len(prefixes)
        for index, label in enumerate(labels[:1] if chain_a_label else labels):
            for prefix in _PREFIXES[scheme]:
                prefixes += prefix
                owners.append(index)
                names.append(prefix if chain_a_label else label if prefix == "W" else f"{prefix}-{label}")
        owner = torch.tensor(owners)
        labelled = owner.expand(1, -1)
        if chain_a_label:
            labelled = torch.where(owner < 0, -1, torch.arange(len(labels))[:, None])
        goes_on, breaks = _any_of(prefixes, "IL"), _any_of(prefixes, "LUW")
        same = (owner[:, None] == owner) & (owner >= 0)
        joined = same & goes_on & ~breaks[:, None]
        needs_before = goes_on & (scheme != "io")  # an I of BIO, an I or L of BIOUL
        needs_after = _any_of(prefixes, "BI") & ("U" in prefixes)
        allowed = torch.where(needs_before, joined, ~needs_after[:, None])
        return cls(names, prefixes, labelled, joined, allowed, ~needs_before, ~needs_after)


class TaggedSpans(NamedTuple):
    """Entities that tags spell: parallel lists, and for each word ``(rows, chains, words)`` that it lies in."""

    rows: Tensor
    chains: Tensor
    starts: Tensor
    ends: Tensor
    of_word: Tensor


class TagDecoder(Block):
    """Gives each word a tag, in one chain of tags or, where labels may overlap, in a chain for each label.

    Shapes are ``(rows, words, chains, tags)``; a row is a document or a part of one.

    Attributes
    ----------
    n_labels, n_chains
        Labels, and chains of tags.
    tags
        Names of the tags of a chain; without a label where each label has a chain of its own.
    tables
        What these tags mean.
    """

    family = "decoders"
    scheme: Scheme
    constrained: bool
    dropout: float
    #: Whether all pieces of a word are learned, and not the first alone.
    all_pieces: bool = False

    @property
    @abstractmethod
    def chain_a_label(self) -> bool:
        """Whether each label has a chain of its own."""

    @abstractmethod
    def loss(self, emissions: Tensor, gold: Tensor, mask: Tensor) -> Tensor:
        """Return the loss, summed over words and chains.

        Parameters
        ----------
        emissions
            Of :meth:`emissions`, ``(rows, words, chains, tags)``.
        gold
            Tags, -100 where they are not known, ``(rows, words, chains)``.
        mask
            True for words, ``(rows, words)``; others are passed over as if they were not there.
        """

    @abstractmethod
    def best(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """Return the best tags ``(rows, words, chains)``; `mask` holds padding at the end of rows only."""

    @abstractmethod
    def word_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        """Return the probability of each of `tags`, ``(rows, words, chains)``."""

    @abstractmethod
    def span_scores(self, emissions: Tensor, mask: Tensor, tags: Tensor, spans: TaggedSpans) -> Tensor:
        """Return the score in [0, 1] of each of `spans`, which `tags` spell."""

    # -- making it -------------------------------------------------------------------------------------------------

    def build(self, hidden_size: int, labels: Sequence[str]) -> None:
        """Make the layer that scores the tags of `labels`.

        Raises
        ------
        ConfigError
            If there are no labels, or some twice; or if the scheme cannot hold several labels a word.
        """
        if not labels or len(set(labels)) < len(labels):
            found = "no labels" if not labels else f"labels twice: {', '.join(_doubles(labels))}"
            raise ConfigError("components.*.labels", f"found {found}", "one label or more, each once")
        if self.scheme == "word" and self.chain_a_label:
            raise ConfigError(
                f"{WHERE}.mode",
                "found a chain for each label with scheme = 'word', where a word has one label",
                "joint",
            )
        self.tables = TagTables.make(self.scheme, labels, self.chain_a_label)
        self.tags = self.tables.names
        self.n_labels = len(labels)
        self.n_chains = len(self.tables.labels)
        self.project = nn.Linear(hidden_size, self.n_chains * len(self.tags))
        self.drop = nn.Dropout(self.dropout)

    def emissions(self, words: Tensor) -> Tensor:
        """Score all tags of all words ``(rows, words, hidden)``, in fp32 whatever the numbers of the rest."""
        with torch.autocast(words.device.type, enabled=False):
            scores = self.project(self.drop(words.to(self.project.weight.dtype)))
        return scores.unflatten(-1, (self.n_chains, len(self.tags)))

    def count(self, mask: Tensor, gold: Tensor) -> float:
        """Words with a known tag, by which the loss is divided."""
        return float((mask & (gold != UNKNOWN).any(-1)).sum())

    def penalties(self, device: torch.device | str, cost: float = ILLEGAL) -> tuple[Tensor, Tensor, Tensor]:
        """What it costs to break the scheme: from tag to tag ``(tags, tags)``, at the start and at the end."""
        masks = (self.tables.allowed, self.tables.opening, self.tables.closing)
        cost = cost if self.constrained else 0.0
        legal, first, last = (torch.where(mask, 0.0, cost).to(device) for mask in masks)
        return legal, first, last

    # -- gold ------------------------------------------------------------------------------------------------------

    def encode(self, spans: Sequence[Span], n_words: int) -> tuple[Tensor, int]:
        """Turn gold spans into tags.

        Parameters
        ----------
        spans
            First word, last word (inclusive) and label. Where two cannot stand together, the longer one is kept, then
            the first.
        n_words
            Words of the document.

        Returns
        -------
        (Tensor, int)
            Tags ``(words, chains)``, and how many of the spans these tags do not give back.

        Raises
        ------
        ValueError
            If a span does not lie in the document.
        """
        wanted = set(spans)
        tags = torch.full((n_words, self.n_chains), 0 if "O" in self.tables.prefixes else UNKNOWN)
        taken = torch.zeros_like(tags, dtype=torch.bool)
        for start, end, label in sorted(wanted, key=lambda span: (span[0] - span[1], *span)):
            if not (0 <= start <= end < n_words and 0 <= label < self.n_labels):
                raise ValueError(
                    f"span {(start, end, label)} beyond {n_words} words or {self.n_labels} labels"
                )
            chain = label if self.chain_a_label else 0
            if not taken[start : end + 1, chain].any():
                taken[start : end + 1, chain] = True
                tags[start : end + 1, chain] = self._spelled(end - start + 1, label)
        kept = {(start, end, label) for _, start, end, label in self._read(tags.clamp(min=0)[None], taken)}
        return tags, len(wanted - kept)

    def _spelled(self, width: int, label: int) -> Tensor:
        """Tags of an entity; in ``word``, each of its words is one."""
        prefixes = self.tables.prefixes
        owner = 0 if self.chain_a_label else label
        offset = prefixes.count("O") + owner * len(_PREFIXES[self.scheme])

        def tag(wanted: str) -> int:
            return offset + next(_PREFIXES[self.scheme].index(each) for each in wanted if each in prefixes)

        if width == 1:
            return torch.tensor([tag("UBIW")])
        inner = [tag("IW")] * (width - 2)
        return torch.tensor([tag("BIW"), *inner, tag("LIW")])

    def _read(self, tags: Tensor, known: Tensor) -> Iterator[tuple[int, int, int, int]]:
        spans = self.spans_of(tags, known.any(1)[None])
        labels = self.tables.labels.to(tags.device)[
            spans.chains, tags[spans.rows, spans.starts, spans.chains]
        ]
        yield from zip(
            spans.rows.tolist(), spans.starts.tolist(), spans.ends.tolist(), labels.tolist(), strict=True
        )

    # -- predictions -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, emissions: Sequence[Tensor]) -> list[list[Candidate]]:
        """Find the entities of documents, each read as a whole.

        Parameters
        ----------
        emissions
            ``(words, chains, tags)`` of each document.

        Returns
        -------
        list of list of Candidate
            For each document, ordered by start, end and label.
        """
        found: list[list[Candidate]] = [[] for _ in emissions]
        for group, rows, mask in _padded(emissions):
            tags = self.best(rows, mask)
            spans = self.spans_of(tags, mask)
            scores = self.span_scores(rows, mask, tags, spans).clamp(0.0, 1.0)
            labels = self.tables.labels.to(tags.device)[
                spans.chains, tags[spans.rows, spans.starts, spans.chains]
            ]
            listed = torch.stack([spans.rows, spans.starts, spans.ends, labels], 1).tolist()
            for (row, start, end, label), score in zip(listed, scores.tolist(), strict=True):
                found[group[row]].append(Candidate(start, end, label, score))
        return [sorted(candidates) for candidates in found]

    @torch.no_grad()
    def decode_words(self, emissions: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Find the tag of each word of documents, and its probability: two tensors ``(words, chains)`` each."""
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
        """Read tags ``(rows, words, chains)`` as entities.

        Tags that break the scheme are read in the most natural way: an ``I`` without a beginning opens an entity, and
        an entity that is never closed ends where the next one begins.
        """
        device = tags.device
        tables = self.tables
        chains = torch.arange(self.n_chains, device=device)
        inside = (tables.labels.to(device)[chains, tags] >= 0) & mask[:, :, None]
        inside, tags = (
            inside.transpose(1, 2),
            tags.transpose(1, 2),
        )  # words last: entities are listed in order
        joined = tables.joined.to(device)[tags[..., :-1], tags[..., 1:]] & inside[..., :-1] & inside[..., 1:]
        border = torch.zeros_like(inside[..., :1])
        begins = inside & ~torch.cat([border, joined], -1)
        ends = inside & ~torch.cat([joined, border], -1)
        rows, chain, starts = begins.nonzero().unbind(1)
        of_word = torch.where(inside, begins.flatten().cumsum(0).view_as(begins) - 1, -1)
        return TaggedSpans(rows, chain, starts, ends.nonzero()[:, 2], of_word)


def _padded(emissions: Sequence[Tensor]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield documents that go together: which, their padded emissions and the mask of their words."""
    order = sorted(
        (index for index, one in enumerate(emissions) if len(one)), key=lambda i: -len(emissions[i])
    )
    while order:
        longest = emissions[order[0]]
        size = max(1, EMISSIONS_AT_ONCE // longest.numel())
        group, order = order[:size], order[size:]
        rows = pad_sequence([emissions[index] for index in group], batch_first=True)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        lengths = torch.tensor([len(emissions[index]) for index in group], device=rows.device)
        yield group, rows, torch.arange(len(longest), device=rows.device) < lengths[:, None]


def _any_of(prefixes: str, wanted: str) -> Tensor:
    return torch.tensor([prefix in wanted for prefix in prefixes])


def _doubles(labels: Sequence[str]) -> list[str]:
    return sorted({label for label in labels if labels.count(label) > 1})
