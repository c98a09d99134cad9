"""The record finder ``boundary_records``: records around spans that a boundary span representation proposes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.layers.linear import Linear
from gliner_pipe.modeling.losses.base import Loss
from gliner_pipe.modeling.precision import HeadCopy
from gliner_pipe.modeling.record_finders.base import RecordFinder
from gliner_pipe.modeling.span_reps.base import SCORES_AT_ONCE, Representations, SpanRep
from gliner_pipe.modeling.span_reps.boundary_base import BoundarySpanRep, Candidates, check_boundaries
from gliner_pipe.modeling.span_reps.boundary_states import MASKED, Boundaries, at_boundaries
from gliner_pipe.modeling.task_finders import CHOICE, FoundValues, GoldValues, TaskInputs
from gliner_pipe.modeling.tasks import Task
from gliner_pipe.registry import registry
from gliner_pipe.util.assignment import least_cost
from gliner_pipe.util.ranges import Positive, Size

#: Cost of what is not allowed, beside that of the worst.
_NOT_ALLOWED = 1000.0


#: Values of one field of a record: their boundaries, and how well they fit.
_Values = dict[tuple[int, int], float]


@registry.record_finders.register("boundary_records")
class BoundaryRecords(RecordFinder):
    """Forms records by their mode: each around a span, or around one of several learned vectors.

    With mode ``natural`` each span of the anchor field is a record, with ``latent`` any span of a field may be one, and
    with ``anchorless`` learned vectors that look at the spans are. The spans of the fields are then assigned to
    records. A record without mode is formed once, of all spans of its fields.

    Parameters
    ----------
    record_dim
        Width in which records, fields and spans are compared.
    record_instance_queries
        Number of learned vectors: most records with mode ``anchorless`` in a window.
    record_temperature
        Divides the scores of records and assignments.
    single_values
        How a span is assigned to a field of one value: ``each`` by itself, as to a field of several values, or ``one``
        by a softmax over all spans and none, for models trained so (in GLiNER2.5 the cardinality ``optional_one``).

    Notes
    -----
    Source: the boundary architecture of GLiNER2.5.
    """

    def __init__(
        self,
        record_dim: Size = 128,
        record_instance_queries: Size = 32,
        record_temperature: Positive = 1.0,
        single_values: Literal["each", "one"] = "each",
    ) -> None:
        super().__init__()
        self.record_dim, self.record_instance_queries = record_dim, record_instance_queries
        self.record_temperature = record_temperature
        self.single_values = single_values
        self.reduced = HeadCopy()

    def check(self, span_rep: SpanRep) -> None:
        """Raise a ConfigError unless the span representation proposes spans and has vectors of them."""
        check_boundaries(span_rep, "record_finder", states=True)

    def build(self, hidden_size: int) -> None:
        """Create the weights."""
        size = self.record_dim
        self.inst_proj, self.field_proj = Linear(hidden_size, size), Linear(hidden_size, size)
        self.cand_proj = Linear(hidden_size, size)
        self.q_proj, self.k_proj = Linear(hidden_size, size), Linear(hidden_size, size)
        self.v_proj = Linear(hidden_size, hidden_size)
        self.object_head, self.latent_seed_head = Linear(hidden_size, 1), Linear(hidden_size, 1)
        self.null_embed = nn.Parameter(torch.randn(size) * 0.02)
        self.instance_embed = nn.Parameter(torch.randn(self.record_instance_queries, hidden_size) * 0.02)

    def find(
        self, vectors: Representations, batch: EncoderBatch, inputs: TaskInputs, span_rep: SpanRep
    ) -> FoundValues | None:
        """Return the values of the fields of records."""
        assert vectors.tasks is not None and isinstance(span_rep, BoundarySpanRep)
        asked = [
            (row, number, task)
            for row, query in enumerate(batch.queries)
            for number, task in enumerate(query.tasks)
            if task.kind == "record"
        ]
        if not asked:
            return None
        span_rep = span_rep.current()
        some = span_rep.of_fields(vectors, batch.windows)
        found = _Found(self.reduced.of(self), vectors, batch, some, span_rep, inputs)
        values = [value for row, number, task in asked for value in found.values(row, number, task)]
        return _on_device(values, vectors.labels.device)

    def loss(
        self,
        vectors: Representations,
        inputs: EncoderBatch,
        gold: GoldValues,
        span_rep: SpanRep,
        loss: Loss,
    ) -> Tensor | None:
        """Return the summed loss of records with a mode: which are there, and which spans are values of their fields.

        Without a mode the values are those of the span representation, whose loss covers them.
        """
        assert isinstance(span_rep, BoundarySpanRep)
        records: dict[tuple[int, int], dict[int, list[tuple[int, int, int]]]] = {
            (row, number): {}
            for row, number in gold.asked.tolist()
            if inputs.queries[row].tasks[number].mode is not None
        }
        if not records:
            return None
        for row, number, slot, *value in gold.values.tolist():
            if (row, number) in records:
                records[row, number].setdefault(slot, []).append(tuple(value))
        unnamed = set(map(tuple, gold.unnamed.tolist()))
        found = _Found(self, vectors, inputs, span_rep.trained_fields(vectors), span_rep)
        parts = []
        for (row, number), some in records.items():
            task = inputs.queries[row].tasks[number]
            fields = range(len(task.fields))
            named = [[(row, number, slot, field) not in unnamed for field in fields] for slot in some]
            parts.append(found.loss(row, number, task, list(some.values()), named, loss))
        return torch.stack(parts).sum()

    def not_found(
        self, task: Task, instances: Sequence[Sequence[Sequence[object] | None]]
    ) -> list[tuple[str, int]]:
        """Return the gold records without a value of their anchor, or more than a window can have."""
        if task.mode is None:
            return [
                (
                    "record beyond the one of its kind that a window has without a mode",
                    max(0, len(instances) - 1),
                )
            ]
        if task.mode == "anchorless":
            most = self.record_instance_queries
            reason = f"record beyond the {most} of its kind that a window can have (record_instance_queries)"
            return [(reason, max(0, len(instances) - most))]
        names = [field.name for field in task.fields]
        if task.anchor not in names:
            return []
        anchor = names.index(task.anchor)
        return [("record without a value of its anchor", sum(not one[anchor] for one in instances))]


class _Value(NamedTuple):
    """The columns of ``FoundValues``."""

    row: int
    task: int
    slot: int
    field: int
    start: int
    end: int
    score: float


def _on_device(values: Sequence[_Value], device: torch.device) -> FoundValues:
    numbers = torch.tensor([value[:-1] for value in values], dtype=torch.long).view(-1, 6)
    scores = torch.tensor([value.score for value in values], dtype=torch.float32)
    rows, tasks, slots, fields, starts, ends = numbers.to(device).unbind(1)
    return FoundValues(rows, tasks, slots, fields, starts, ends, scores.to(device))


class _Spans(NamedTuple):
    """The spans proposed for the fields of a record in a row.

    Attributes
    ----------
    places
        First and last boundary of each span, one list for each field, or one for all, ``(fields or 1, spans, 2)``.
    valid
        False for padding, ``(fields, spans)``.
    scores
        Score of each span for its field, in [0, 1], ``(fields, spans)``.
    """

    places: Tensor
    valid: Tensor
    scores: Tensor


class _Found:
    """Finds records in a batch: what all records of a batch share is computed once."""

    def __init__(
        self,
        finder: BoundaryRecords,
        vectors: Representations,
        batch: EncoderBatch,
        some: Candidates,
        span_rep: BoundarySpanRep,
        inputs: TaskInputs | None = None,
    ) -> None:
        assert vectors.tasks is not None
        self.finder, self.span_rep = finder, span_rep
        self.temperature = finder.record_temperature
        self.tasks, self.some = vectors.tasks, some
        self.read = span_rep.read(vectors, batch.windows)
        self.annotated = batch.windows.annotated.cpu().numpy()
        self.starts, self.ends = span_rep.halves(self.read)
        self.of_layers: dict[Linear, tuple[Tensor, Tensor]] = {}
        self.choices: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
        if inputs is not None:
            self.limits = torch.minimum(inputs.limits, inputs.choice_limits)
            self.choices = self._choices(inputs.places)

    # -- one record of a row -----------------------------------------------------------------------------------------

    def _group(self, row: int, number: int, task: Task) -> tuple[_Spans, Tensor, Tensor]:
        """Return the spans of the fields of a record, their logits, and the vectors of the fields."""
        n_fields, width = len(task.fields), self.tasks.mask.shape[2]
        here = slice(number * width, number * width + n_fields)
        logits = self.some.logits[row, here].float()
        scores = (logits / self.span_rep.pair_temperature).sigmoid()
        spans = _Spans(self.some.spans[row, here], self.some.valid[row, here], scores)
        if self.span_rep.shares_spans and task.mode is not None:
            spans = spans._replace(places=spans.places[:1])
        return spans, logits, self.tasks.fields[row, number, :n_fields].to(self.starts.dtype)

    def _fits(self, row: int, spans: _Spans, queries: Tensor, instances: Tensor) -> Tensor:
        """Return how well fields have no value, or have each span, ``(records, fields, 1 + spans)``.

        Parameters
        ----------
        row, spans, queries
            The row, and the spans and vectors of the fields.
        instances
            Projected vectors of the records, ``(records, size)``.
        """
        sought = self.finder.field_proj(queries) + instances[:, None]  # (records, fields, size)
        nothing = sought @ self.finder.null_embed
        seen = self._projected(self.finder.cand_proj, row, spans.places)  # (fields or 1, spans, size)
        fits = (sought.transpose(0, 1) @ seen.transpose(1, 2)).transpose(0, 1)
        return torch.cat([nothing[..., None], fits], -1).float()

    def values(self, row: int, number: int, task: Task) -> Iterator[_Value]:
        """Yield the values of the records of a task in a row."""
        spans, logits, queries = self._group(row, number, task)
        limits = self.limits[row, number, : len(queries)]
        if task.mode is None:
            keep = self.span_rep.kept(logits[None], spans.valid[None], queries[None], limits[None])[1][0]
            yield from self._single(row, number, task, spans._replace(valid=keep), limits.tolist())
            return
        anchor = _anchor(task)
        objects, possible, instances, places = self._instances(row, task, spans, logits, anchor)
        objects = (objects.float() / self.temperature).sigmoid()
        least = limits[anchor] if anchor is not None else limits.min()
        chosen = (possible & (objects >= least)).nonzero()[:, 0]
        chosen = chosen[objects[chosen].argsort(descending=True, stable=True)]
        if not len(chosen):
            return
        fits = self._fits(row, spans, queries, instances[chosen])
        fits[..., 1:].masked_fill_(~spans.valid, -torch.inf)
        by_field = spans.places.expand(len(queries), -1, -1)
        records = _assigned(
            task,
            (fits / self.temperature).cpu(),
            by_field.cpu().numpy(),
            limits.tolist(),
            self.finder.single_values == "one",
            None if anchor is None else (anchor, places[chosen].tolist(), objects[chosen].tolist()),
        )
        by_span = [
            dict(zip(map(tuple, part.tolist()), score.tolist(), strict=True))
            for part, score in zip(by_field, spans.scores * spans.valid, strict=True)
        ]
        for slot, record in enumerate(records):
            for field, of_field in enumerate(record):
                limit = 0.0 if field == anchor else limits[field].item()  # an anchor is above it as a record
                yield from self._named(row, number, slot, field, of_field, by_span[field], limit)

    def loss(
        self,
        row: int,
        number: int,
        task: Task,
        records: Sequence[Sequence[tuple[int, int, int]]],
        named: Sequence[Sequence[bool]],
        loss: Loss,
    ) -> Tensor:
        """Return the summed loss of the records of a task in a row.

        Each gold record is taught to one instance: with an anchor that of its span, else those that fit best.

        Parameters
        ----------
        row, number, task
            The row, and the number and the fields of the task.
        records
            Field, first and last boundary of each value of each gold record.
        named
            Whether the values of each field of each gold record are known.
        loss
            Loss of each score.
        """
        spans, logits, queries = self._group(row, number, task)
        anchor, n_fields = _anchor(task), len(queries)
        objects, possible, instances, _ = self._instances(row, task, spans, logits, anchor)
        valid = spans.valid
        right = _right(records, spans.places.expand(n_fields, -1, -1)) & valid
        known = torch.tensor(named, dtype=torch.bool, device=valid.device).view(-1, n_fields)
        by_softmax = torch.tensor(
            [self.finder.single_values == "one" and not field.is_list for field in task.fields],
            device=valid.device,
        )
        fits = self._fits(row, spans, queries, instances)
        fits = torch.cat([fits[..., :1], fits[..., 1:].masked_fill(~valid, MASKED)], -1)
        if anchor is not None:
            some = right[:, anchor].any(-1)
            chosen, of_record = right[some, anchor].int().argmax(-1), some.nonzero()[:, 0]
            total = objects.new_zeros((), dtype=torch.float32)
        else:
            chosen, of_record = _matched(objects, possible, fits, right, valid, by_softmax, known)
            targets = torch.zeros_like(possible)
            targets[chosen] = True
            total = _each(loss, objects.float(), targets, possible)
        fits, right, known = fits[chosen], right[of_record], known[of_record]
        total = total + (_chosen_value(fits, right) * (known & by_softmax)).sum()
        several = (known & ~by_softmax)[..., None] & valid
        return total + _each(loss, fits[..., 1:], right, several)

    def _named(
        self,
        row: int,
        number: int,
        slot: int,
        field: int,
        values: _Values,
        scores: _Values,
        limit: float,
    ) -> Iterator[_Value]:
        """Yield the values of a field: spans of the text, or choices."""
        choices = self.choices.get((row, number, field))
        found = []
        for (start, end), fit in values.items():
            score = min(fit, scores.get((start, end), 0.0))
            if score < limit:
                continue
            if choices is not None:
                found += [
                    _Value(row, number, slot, field, choice, CHOICE, score)
                    for choice, (place, _) in enumerate(choices)
                    if (place, place + 1) == (start, end)
                ]
            elif self.annotated[row, start] and self.annotated[row, end - 1]:
                found.append(_Value(row, number, slot, field, start, end - 1, score))
        if choices is not None and not found:
            found = [
                _Value(row, number, slot, field, choice, CHOICE, score)
                for choice, (_, score) in enumerate(choices)
                if score >= limit
            ]
        yield from found

    def _single(
        self, row: int, number: int, task: Task, spans: _Spans, limits: Sequence[float]
    ) -> Iterator[_Value]:
        """Yield all values of the fields, which make one record."""
        for field, (part, valid, score) in enumerate(zip(*spans, strict=True)):
            values: _Values = {}
            if not task.fields[field].choices:
                values = dict(zip(map(tuple, part[valid].tolist()), score[valid].tolist(), strict=True))
            # an adaptive threshold may have kept values below the limit
            yield from self._named(row, number, 0, field, values, values, 0.0 if values else limits[field])

    def _instances(
        self, row: int, task: Task, spans: _Spans, logits: Tensor, anchor: int | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the logit of each record, whether it is possible, its projected vector and its boundaries."""
        finder = self.finder
        if anchor is not None:
            places = spans.places[anchor if len(spans.places) > 1 else 0]
            return logits[anchor], spans.valid[anchor], self._projected(finder.inst_proj, row, places), places
        shared = len(spans.places) == 1
        valid = spans.valid.any(0) if shared else spans.valid.flatten()
        places = spans.places.flatten(0, 1)
        if task.mode == "latent":
            scores = self._projected(finder.latent_seed_head, row, places)[:, 0]
            return scores, valid, self._projected(finder.inst_proj, row, places), places
        states = finder.instance_embed
        places = places[valid]
        if len(places):
            keys = self._projected(finder.k_proj, row, places)
            weights = (finder.q_proj(states) @ keys.T * finder.record_dim**-0.5).softmax(-1)
            states = states + weights @ self._projected(finder.v_proj, row, places)
        scores = finder.object_head(states)[:, 0]
        return scores, torch.ones_like(scores, dtype=torch.bool), finder.inst_proj(states), places

    def _projected(self, layer: Linear, row: int, places: Tensor) -> Tensor:
        """Apply a layer to the vectors of spans: as it is linear, to those of their two boundaries."""
        starts, ends = self._layers(layer)
        return (
            at_boundaries(starts[row, None], places[None, ..., 0])[0]
            + at_boundaries(ends[row, None], places[None, ..., 1])[0]
        )

    def _layers(self, layer: Linear) -> tuple[Tensor, Tensor]:
        if layer not in self.of_layers:
            self.of_layers[layer] = layer(self.starts), F.linear(self.ends, layer.weight)
        return self.of_layers[layer]

    # -- choices -----------------------------------------------------------------------------------------------------

    def _choices(self, places: Tensor | None) -> dict[tuple[int, int, int], list[tuple[int, float]]]:
        """Return word and score of the choices of each field, by row, task and field."""
        if places is None:
            return {}
        row, task, field = (places >= 0).any(-1).nonzero().unbind(1)
        read = self.read
        step = max(1, SCORES_AT_ONCE // max(1, read.words[0].numel()))
        found: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
        for at in range(0, len(row), step):
            some = slice(at, at + step)
            keys = torch.stack([row[some], task[some], field[some]], 1)
            here = places[keys[:, 0], keys[:, 1], keys[:, 2]]
            spans = torch.stack([here, here + 1], -1).clamp(min=0)
            queries = self.tasks.fields[keys[:, 0], keys[:, 1], keys[:, 2]][:, None]
            rows = Boundaries(*(part[keys[:, 0]] for part in read))
            asked = torch.ones_like(keys[:, :1], dtype=torch.bool)
            logits = self.span_rep.given(rows, queries, asked, spans, here >= 0)[:, 0].float()
            scores = (logits / self.span_rep.pair_temperature).sigmoid()
            for key, words, probs in zip(keys.tolist(), here.tolist(), scores.tolist(), strict=True):
                found[tuple(key)] = [pair for pair in zip(words, probs, strict=True) if pair[0] >= 0]
        return found


def _anchor(task: Task) -> int | None:
    """Return the number of the anchor field; None if there is none."""
    return None if task.anchor is None else [field.name for field in task.fields].index(task.anchor)


def _right(records: Sequence[Sequence[tuple[int, int, int]]], places: Tensor) -> Tensor:
    """Return which spans are values of the fields of gold records, ``(records, fields, spans)``.

    Parameters
    ----------
    records
        Field, first and last boundary of each value of each record.
    places
        Boundaries of the spans of each field, ``(fields, spans, 2)``.
    """
    found = torch.zeros(len(records), *places.shape[:2], dtype=torch.bool, device=places.device)
    values = [(number, *value) for number, record in enumerate(records) for value in record]
    record, field, *span = torch.tensor(values, dtype=torch.long, device=places.device).view(-1, 4).unbind(1)
    equal = (places[field] == torch.stack(span, 1)[:, None]).all(-1)
    which, at = equal.nonzero().unbind(1)
    found[record[which], field[which], at] = True
    return found


@torch.no_grad()
def _matched(
    objects: Tensor,
    possible: Tensor,
    fits: Tensor,
    right: Tensor,
    valid: Tensor,
    by_softmax: Tensor,
    known: Tensor,
) -> tuple[Tensor, Tensor]:
    """Assign gold records to instances, so that their likelihood is largest.

    Parameters
    ----------
    objects, possible
        Logit of each instance, and which are not padding, ``(instances,)``.
    fits
        How well fields have no value, or each span, ``(instances, fields, 1 + spans)``.
    right, valid
        Which spans are right, ``(records, fields, spans)``, and which are not padding, ``(fields, spans)``.
    by_softmax
        Whether a field has one value, ``(fields,)``.
    known
        Whether the values of a field of a record are known, ``(records, fields)``.

    Returns
    -------
    (Tensor, Tensor)
        Numbers of the instances and of their gold records; of more gold records than instances, some have none.
    """
    some = possible.nonzero()[:, 0]
    fits, valid = fits[some], valid & ~by_softmax[:, None]
    absent = (F.softplus(fits[..., 1:]) * valid).sum(-1)  # (instances, fields)
    costs = [F.softplus(-objects[some].float())[:, None].expand(-1, len(right))]
    costs.append(absent @ known.float().T)
    costs.append(-torch.einsum("ifs,gfs->ig", fits[..., 1:], (right & valid).float()))
    for number, one in enumerate(right):
        single = (_chosen_value(fits, one[None]) * (by_softmax & known[number])).sum(1)
        costs.append(F.pad(single[:, None], (number, len(right) - number - 1)))
    cost = torch.stack(costs).sum(0).double().cpu().numpy()
    device = objects.device
    if cost.shape[1] <= cost.shape[0]:
        chosen = torch.from_numpy(least_cost(cost.T)).to(device)
        return some[chosen], torch.arange(len(right), device=device)
    return some, torch.from_numpy(least_cost(cost)).to(device)


def _chosen_value(fits: Tensor, right: Tensor) -> Tensor:
    """Return the cross-entropy of any right span, or of none if no span is right, ``(records, fields)``.

    Parameters
    ----------
    fits
        ``(records, fields, 1 + spans)``.
    right
        ``(records, fields, spans)``.
    """
    wanted = torch.cat([~right.any(-1, keepdim=True), right], -1)
    return -fits.log_softmax(-1).masked_fill(~wanted, MASKED).logsumexp(-1)


def _each(loss: Loss, logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of scores that have nothing to do with each other."""
    found: Tensor = loss(*(part.reshape(-1, 1, 1, 1) for part in (logits, targets, mask)))
    return found


def _assigned(
    task: Task,
    fits: Tensor,
    places: npt.NDArray[np.int64],
    limits: Sequence[float],
    by_softmax: bool,
    anchor: tuple[int, list[list[int]], list[float]] | None,
) -> list[list[_Values]]:
    """Assign spans to the fields of records.

    Parameters
    ----------
    task
        The fields: how many values each takes, and whether a span belongs to one record only.
    fits
        How well each field of each record, best first, has no value, or has each span,
        ``(records, fields, 1 + spans)``; minus infinity for padding.
    places
        Boundaries of the spans of each field, ``(fields, spans, 2)``.
    limits
        Threshold of each field.
    by_softmax
        Whether a field of one value has one of its spans, or none.
    anchor
        Number of the anchor field, and its span and score in each record; None without one.

    Returns
    -------
    list of list
        Values of each field of each record, without records that have none, and with equal ones once.
    """
    n_records = len(fits)
    columns: list[list[_Values]] = []
    for number, field in enumerate(task.fields):
        if anchor is not None and number == anchor[0]:
            columns.append([{(start, end): score} for (start, end), score in zip(*anchor[1:], strict=True)])
            continue
        scores = fits[:, number]
        if field.is_list or not by_softmax:
            probs = scores[:, 1:].sigmoid()
            keep = probs >= limits[number]
            if field.exclusive and probs.numel():
                keep &= torch.arange(n_records)[:, None] == probs.argmax(0)
        else:
            probs = scores.softmax(-1)
            best = _exclusive(probs) if field.exclusive else probs.argmax(-1)
            probs = probs[:, 1:]
            keep = (torch.arange(probs.shape[1]) == best[:, None] - 1) & (probs >= limits[number])
        keep &= scores[:, 1:].isfinite()
        of_records: list[_Values] = [{} for _ in range(n_records)]
        for record, span in keep.nonzero().tolist():
            start, end = places[number, span].tolist()
            of_records[record][start, end] = probs[record, span].item()
        columns.append(of_records)
    records = [list(one) for one in zip(*columns, strict=True)]
    records = [one for one in records if any(one)]
    if anchor is None:  # the first of equal ones is the best
        distinct: dict[tuple[frozenset[tuple[int, int]], ...], list[_Values]] = {}
        for one in records:
            distinct.setdefault(tuple(map(frozenset, one)), one)
        return list(distinct.values())
    return sorted(records, key=lambda one: next(iter(one[anchor[0]])))


def _exclusive(probs: Tensor) -> Tensor:
    """Assign each record another span, or none, so that the product of their probabilities is largest.

    Parameters
    ----------
    probs
        Of none and of each span, ``(records, 1 + spans)``.

    Returns
    -------
    Tensor
        0 for none, or the number of the span from 1 on, ``(records,)``.
    """
    costs = -probs.clamp(min=torch.finfo(probs.dtype).eps).log()
    n_records, n_spans = len(probs), probs.shape[1] - 1
    none = torch.full((n_records, n_records), float(costs.max()) + _NOT_ALLOWED)
    none.fill_diagonal_(0)
    none += torch.diag(costs[:, 0])
    chosen = least_cost(torch.cat([costs[:, 1:], none], 1).numpy())
    return torch.from_numpy(np.where(chosen < n_spans, chosen + 1, 0))
