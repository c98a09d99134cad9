"""The relation finder ``boundary_pairs``: pairs of spans that a boundary span representation proposes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.relation_finders.base import RelationFinder
from gliner_pipe.modeling.span_reps.base import SCORES_AT_ONCE, Representations, SpanRep
from gliner_pipe.modeling.span_reps.boundary_base import BoundarySpanRep, Candidates, check_boundaries
from gliner_pipe.modeling.span_reps.boundary_states import Boundaries
from gliner_pipe.modeling.task_finders import FoundValues, GoldValues, TaskInputs
from gliner_pipe.modeling.tasks import HEAD_AND_TAIL, KINDS, Task
from gliner_pipe.registry import registry
from gliner_pipe.util.ranges import Positive, Share, Size

logger = logging.getLogger(__name__)

#: Options that bound how many pairs are scored.
_BUDGETS = "relation_pair_cap, relation_heads_per_type and relation_tails_per_type"


@registry.relation_finders.register("boundary_pairs")
class BoundaryPairs(RelationFinder):
    """Pairs the best spans for the head of a relation with the best for its tail, and scores each pair.

    The ends of a relation need not be entities.

    Parameters
    ----------
    relation_heads_per_type, relation_tails_per_type
        Number of spans that are tried as head and as tail of a relation in a window.
    relation_pair_cap
        Most pairs of a relation in a window.
    relation_argument_proposal_threshold
        Score that a head or tail must have for itself.
    directional_relation_states
        Whether a relation is the vectors of its head and tail, or else their mean.
    relation_biaffine_content
        Whether the words of the two spans count, beside their ends.
    relation_temperature
        Divides the scores before the sigmoid.
    dropout
        Dropout rate of the hidden layer.
    join_mentions
        Whether relations whose ends are parts of each other, or read the same, are joined.

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5. There, the distance of the two spans is divided by the longest text
    of the batch; here by the length of the window.
    """

    scores_pairs = True

    def __init__(
        self,
        relation_heads_per_type: Size = 32,
        relation_tails_per_type: Size = 32,
        relation_pair_cap: Size = 128,
        relation_argument_proposal_threshold: Share = 0.0,
        directional_relation_states: bool = False,
        relation_biaffine_content: bool = False,
        relation_temperature: Positive = 1.0,
        dropout: Share = 0.1,
        join_mentions: bool = True,
    ) -> None:
        super().__init__()
        self.relation_heads_per_type = relation_heads_per_type
        self.relation_tails_per_type = relation_tails_per_type
        self.relation_pair_cap = relation_pair_cap
        self.relation_argument_proposal_threshold = relation_argument_proposal_threshold
        self.directional_relation_states = directional_relation_states
        self.relation_biaffine_content = relation_biaffine_content
        self.relation_temperature = relation_temperature
        self.dropout = dropout
        self.joins_mentions = join_mentions
        self.reduced = HeadCopy()
        #: How often good pairs of a relation in a window were left out.
        self.full_budgets = 0

    def check(self, span_rep: SpanRep) -> None:
        """Raise a ConfigError unless the span representation proposes spans."""
        check_boundaries(span_rep, "relation_finder")

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        size = 2 * hidden_size if self.directional_relation_states else hidden_size
        self.scorer = PairClassifier(hidden_size, size, self.relation_biaffine_content, self.dropout)

    def find(
        self, vectors: Representations, batch: EncoderBatch, inputs: TaskInputs, span_rep: SpanRep
    ) -> FoundValues | None:
        """Return head and tail of each pair above the threshold of its relation, both with the score of the pair."""
        tasks, windows = vectors.tasks, batch.windows
        assert tasks is not None and isinstance(span_rep, BoundarySpanRep)
        row, task = (tasks.kinds == KINDS.index("relation")).nonzero().unbind(1)
        if not len(row):
            return None
        span_rep, scorer = span_rep.current(), self.reduced.of(self.scorer)
        limits = inputs.limits[row, task, 0]
        some, width = span_rep.of_fields(vectors, windows), tasks.mask.shape[2]
        n = windows.word_mask.shape[1] + 1
        pairs = self._pairs(some, n, row, task * width, task * width + 1, limits)
        which, heads, tails = pairs.which, pairs.heads, pairs.tails
        self._report(pairs.left_out)
        ends = tasks.fields[row, task, :2]
        relations = ends.flatten(1) if self.directional_relation_states else ends.mean(1)
        logits = scorer(span_rep.read(vectors, windows), relations, row, which, heads, tails)
        scores = (logits.float() / self.relation_temperature).sigmoid()
        keep = scores >= limits[which]
        for spans in (heads, tails):
            first, last = spans[:, 0], spans[:, 1] - 1
            keep &= windows.annotated[row[which], first] & windows.annotated[row[which], last]
        which, heads, tails, scores = which[keep], heads[keep], tails[keep], scores[keep]
        slots = torch.arange(len(which), device=which.device) - torch.searchsorted(which, which)
        spans = torch.cat([heads, tails])
        which, slots, scores = which.repeat(2), slots.repeat(2), scores.repeat(2)
        fields = torch.arange(2, device=which.device).repeat_interleave(len(which) // 2)
        return FoundValues(row[which], task[which], slots, fields, spans[:, 0], spans[:, 1] - 1, scores)

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: GoldValues,
        span_rep: SpanRep,
        loss: Loss,
    ) -> Tensor | None:
        """Return the summed loss of pairs: those that are proposed, and all gold ones."""
        tasks = vectors.tasks
        assert tasks is not None and isinstance(span_rep, BoundarySpanRep)
        row, task = gold.asked.unbind(1)
        names = [inputs.queries[one].tasks[number].fields[0].name for one, number in gold.asked.tolist()]
        swapped = torch.tensor([name != HEAD_AND_TAIL[0].name for name in names], device=row.device).long()
        first = task * tasks.mask.shape[2]
        some = Candidates(*(part.detach() for part in span_rep.trained_fields(vectors)))
        read = span_rep.read(vectors, inputs.windows)
        n = read.mask.shape[1]
        proposed = self._pairs(some, n, row, first + swapped, first + 1 - swapped, None)
        codes = _code(torch.cat([proposed.which[:, None], proposed.heads, proposed.tails], 1), n)
        pairs = torch.tensor(_gold_pairs(gold, swapped.tolist()), dtype=torch.long, device=row.device)
        pairs = pairs.view(-1, 5).unique(dim=0)
        right = _code(pairs, n)
        missing = pairs[~torch.isin(right, codes)]
        which = torch.cat([proposed.which, missing[:, 0]])
        heads = torch.cat([proposed.heads, missing[:, 1:3]])
        tails = torch.cat([proposed.tails, missing[:, 3:]])
        targets = torch.cat([torch.isin(codes, right), torch.ones(len(missing), device=row.device) > 0])
        one, other = (tasks.fields[row, task, side] for side in (swapped, 1 - swapped))
        relations = torch.cat([one, other], 1) if self.directional_relation_states else (one + other) / 2
        logits = self.scorer(read, relations, row, which, heads, tails)
        found: Tensor = loss(
            *(part[:, None, None, None] for part in (logits, targets, torch.ones_like(targets)))
        )
        return found

    def not_found(
        self, task: Task, instances: Sequence[Sequence[Sequence[object] | None]]
    ) -> list[tuple[str, int]]:
        """Return the gold relations that are more than are scored, or relate a span to itself."""
        distinct = {
            (head, tail) for heads, tails in instances for head in heads or () for tail in tails or ()
        }
        other = [pair for pair in distinct if pair[0] != pair[1]]
        most = min(self.relation_pair_cap, self.relation_heads_per_type * self.relation_tails_per_type)
        return [
            ("relation of a span with itself", len(distinct) - len(other)),
            (
                f"relation beyond the {most} of its kind that are scored in a window ({_BUDGETS})",
                max(0, len(other) - most),
            ),
        ]

    def _report(self, left_out: Tensor | None) -> None:
        """Count the windows and relations of which good pairs were left out, and report the first."""
        number = 0 if left_out is None else int(left_out.sum())
        if number and not self.full_budgets:
            logger.warning(
                "A window has more pairs of good heads and tails than relation_finder scores, so relations may be "
                "missing: raise %s (the option budgets of a checkpoint), or use shorter windows "
                "(encoder.backbone.window). Reported once.",
                _BUDGETS,
            )
        self.full_budgets += number

    def _pairs(
        self, some: Candidates, n: int, row: Tensor, head: Tensor, tail: Tensor, limits: Tensor | None
    ) -> _Pairs:
        """Return the pairs to score.

        Parameters
        ----------
        some, n
            Candidates of the fields, and the number of boundaries.
        row, head, tail
            Row of each relation, and the numbers of the queries of its head and tail, ``(relations,)``.
        limits
            Threshold of each relation: pairs that are left out though both ends are above it are counted. None to
            count none.
        """

        def best(query: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
            spans, valid = some.spans[row, query], some.valid[row, query]
            probs = some.logits[row, query].float().sigmoid()
            valid = valid & (probs >= self.relation_argument_proposal_threshold)
            order = (spans[..., 0] * n + spans[..., 1]).argsort(-1)  # of equal ones, the first in the text
            probs = probs.masked_fill(~valid, -1).gather(1, order)
            probs, ranked = probs.sort(dim=-1, descending=True, stable=True)
            order = order.gather(1, ranked[:, :most])
            return probs[:, :most], spans.gather(1, order[..., None].expand(-1, -1, 2)), probs[:, most:]

        head_probs, heads, more_heads = best(head, self.relation_heads_per_type)
        tail_probs, tails, more_tails = best(tail, self.relation_tails_per_type)
        wrong = (heads[:, :, None] == tails[:, None]).all(-1)
        wrong |= (head_probs < 0)[:, :, None] | (tail_probs < 0)[:, None]
        products = (head_probs[:, :, None] * tail_probs[:, None]).masked_fill(wrong, -1).flatten(1)
        products, order = products.sort(dim=-1, descending=True, stable=True)
        most, n_tails = self.relation_pair_cap, tails.shape[1]
        left_out = None
        if limits is not None:
            weaker = (
                torch.minimum(head_probs[:, :, None], tail_probs[:, None]).masked_fill(wrong, -1).flatten(1)
            )
            left_out = (weaker.gather(1, order[:, most:]) >= limits[:, None]).any(1)
            for others in (more_heads, more_tails):
                left_out |= (others >= limits[:, None]).any(1)
        which, place = (products[:, :most] >= 0).nonzero().unbind(1)
        pair = order[which, place]
        return _Pairs(
            which,
            heads[which, pair.div(n_tails, rounding_mode="floor")],
            tails[which, pair % n_tails],
            left_out,
        )


class _Pairs(NamedTuple):
    """Pairs to score: relation of each, ordered, ``(pairs,)``, and boundaries of head and tail, ``(pairs, 2)``.

    `left_out` tells of which relations good pairs were left out, ``(relations,)``; None if that is not counted.
    """

    which: Tensor
    heads: Tensor
    tails: Tensor
    left_out: Tensor | None


def _code(pairs: Tensor, n: int) -> Tensor:
    """Return a number for each pair: relation, and boundaries of head and tail, below `n`, ``(pairs, 5)``."""
    code = pairs[:, 0]
    for column in pairs[:, 1:].unbind(1):
        code = code * n + column
    return code


def _gold_pairs(gold: GoldValues, swapped: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the number of the relation among those asked for, and head and tail, of each gold pair."""
    number = {(row, task): at for at, (row, task) in enumerate(gold.asked.tolist())}
    ends: dict[tuple[int, ...], tuple[list[list[int]], list[list[int]]]] = {}
    for row, task, slot, field, *span in gold.values.tolist():
        ends.setdefault((number[row, task], slot), ([], []))[field].append(span)
    return [
        (which, *head, *tail)
        for (which, _), both in ends.items()
        for head in both[swapped[which]]
        for tail in both[1 - swapped[which]]
        if head != tail
    ]


class PairClassifier(nn.Module):
    """Scores pairs of spans for a relation by their first and last words, order and distance.

    Parameters
    ----------
    hidden_size
        Width of the word vectors.
    relation_size
        Width of the relation vectors.
    content
        Whether the mean words of the two spans count, too.
    dropout
        Dropout rate of the hidden layer.
    """

    def __init__(self, hidden_size: int, relation_size: int, content: bool, dropout: float) -> None:
        super().__init__()
        self.hidden_size, self.relation_size, self.content = hidden_size, relation_size, content
        self.mlp = nn.Sequential(
            Linear(4 * hidden_size + relation_size + 2, hidden_size),
            nn.GELU(),
            nn.Dropout(dropout),
            Linear(hidden_size, 1),
        )
        if content:
            self.head_content_projection = Linear(hidden_size, hidden_size)
            self.tail_content_projection = Linear(hidden_size, hidden_size)
            self.relation_content_gate = Linear(relation_size, hidden_size)
            self.content_linear = Linear(2 * hidden_size + relation_size, 1)

    def forward(
        self, read: Boundaries, relations: Tensor, row: Tensor, which: Tensor, heads: Tensor, tails: Tensor
    ) -> Tensor:
        """Score pairs.

        Parameters
        ----------
        read
            The words.
        relations
            ``(relations, relation_size)``.
        row
            Row of each relation, ``(relations,)``.
        which
            Relation of each pair, ``(pairs,)``.
        heads, tails
            First and last boundary of the spans, ``(pairs, 2)``.

        Returns
        -------
        Tensor
            Logits, ``(pairs,)``.

        Notes
        -----
        The first layer is applied to the four words and the relation by themselves: once for each word of a window and
        not for each pair.
        """
        first, last = self.mlp[0], self.mlp[3]
        assert isinstance(first, Linear) and isinstance(last, Linear)
        size, n_words = self.hidden_size, read.words.shape[1]
        relations = relations.to(read.words.dtype)
        by_word = [first.columns(read.words, at * size, (at + 1) * size).flatten(0, 1) for at in range(4)]
        stop = 4 * size + self.relation_size
        by_relation = first.columns(relations, 4 * size, stop, first.bias)
        contents = self._contents(read) if self.content else None
        step = max(1, SCORES_AT_ONCE // (4 * size))
        parts = []
        for at in range(0, len(which), step):
            some = slice(at, at + step)
            relation, head, tail = which[some], heads[some], tails[some]
            begin = row[relation] * n_words
            words = head[:, 0], head[:, 1] - 1, tail[:, 0], tail[:, 1] - 1
            hidden = by_relation[relation]
            for projected, word in zip(by_word, words, strict=True):
                hidden = hidden + projected[begin + word]
            apart = (tail[:, 0] - head[:, 0]).to(hidden.dtype)
            share = apart.abs() / read.lengths[row[relation]]
            hidden = hidden + torch.stack([apart.sign(), share], 1) @ first.weight[:, stop:].T
            scores = last(self.mlp[2](F.gelu(hidden)))[:, 0]
            if contents is not None:
                scores = scores + self._content_scores(
                    contents, relations[relation], row[relation], head, tail
                )
            parts.append(scores)
        return torch.cat(parts) if parts else relations.new_zeros(0)

    def _contents(self, read: Boundaries) -> Tensor:
        """Return the running sum over the words, ``(rows, words + 1, hidden)``."""
        return F.pad(read.words.float().cumsum(1), (0, 0, 1, 0)).to(read.words.dtype)

    def _content_scores(
        self, running: Tensor, relations: Tensor, rows: Tensor, heads: Tensor, tails: Tensor
    ) -> Tensor:
        """Score pairs by the mean words of their spans, ``(pairs,)``."""

        def mean(spans: Tensor) -> Tensor:
            starts, ends = spans.unbind(1)
            total: Tensor = running[rows, ends] - running[rows, starts]
            return total / (ends - starts)[:, None]

        head, tail = self.head_content_projection(mean(heads)), self.tail_content_projection(mean(tails))
        gates = self.relation_content_gate(relations).sigmoid() * self.hidden_size**-0.5
        linear: Tensor = self.content_linear(torch.cat([head, tail, relations], -1))[:, 0]
        return (head * gates * tail).sum(-1) + linear
