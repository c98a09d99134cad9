"""Losses of tasks: classes of texts, numbers of instances, and the values of their fields."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gliner_pipe.modeling.backbones.base import WindowBatch
from gliner_pipe.modeling.batch import TaskTargets
from gliner_pipe.modeling.encoders.base import EncoderBatch, TaskVectors
from gliner_pipe.modeling.span_reps.base import FieldSpans, Representations
from gliner_pipe.modeling.task_finders import GoldValues


def field_spans(targets: TaskTargets | None, inputs: EncoderBatch, outside: Tensor | None) -> FieldSpans:
    """Return the gold values and the choices of the fields of a batch, and which words are not in the text."""
    if targets is None or inputs.tasks is None:
        empty = torch.zeros(0, 4, dtype=torch.long, device=inputs.label_mask.device)
        return FieldSpans(empty, empty, outside)
    n_fields = inputs.tasks.mask.shape[2]

    def placed(columns: Tensor, first: Tensor, width: Tensor) -> Tensor:
        return torch.stack([columns[:, 0], first, width, columns[:, 1] * n_fields + columns[:, 3]], 1)

    gold = gold_values(targets).values
    found = placed(gold, gold[:, 4], gold[:, 5] - gold[:, 4] - 1)
    columns, words, _ = _choices(targets)
    unnamed = targets.unnamed
    if unnamed is not None:
        unnamed = torch.stack([unnamed[:, 0], unnamed[:, 1] * n_fields + unnamed[:, 3]], 1)
    return FieldSpans(found, placed(columns, words, torch.zeros_like(words)), outside, unnamed)


def gold_values(targets: TaskTargets) -> GoldValues:
    """Return the gold instances of the records and relations of a batch."""
    of_spans = targets.columns[targets.columns[:, 4] < 0]
    row, first, width, order = targets.spans.unbind(1)
    which = torch.searchsorted(targets.places[:, 0].contiguous(), row.contiguous()) + order
    values = torch.cat([of_spans[which, :4], torch.stack([first, first + width + 1], 1)], 1)
    columns, words, chosen = _choices(targets)
    choices = torch.cat([columns[:, :4], torch.stack([words, words + 1], 1)], 1)
    values = torch.unique(torch.cat([values, choices[chosen]]), dim=0)
    unnamed = targets.counts.new_zeros(0, 4) if targets.unnamed is None else targets.unnamed
    return GoldValues(targets.counts[:, :2], values, unnamed)


def _choices(targets: TaskTargets) -> tuple[Tensor, Tensor, Tensor]:
    """Return query and word of each choice, and whether it is right."""
    if targets.choices is None or targets.chosen is None:
        none = targets.columns[:0]
        return none, none[:, 0], none[:, 0] > 0
    column, choice = (targets.choices >= 0).nonzero().unbind(1)
    with_choices = targets.columns[targets.columns[:, 4] >= 0]
    return with_choices[column], targets.choices[column, choice], targets.chosen[column, choice]


def task_losses(
    model: Any, vectors: Representations, inputs: EncoderBatch, targets: TaskTargets
) -> dict[str, Tensor]:
    """Return the losses of the tasks of a batch, as named sums.

    Parameters
    ----------
    model
        The blocks.
    vectors
        Words and tasks.
    inputs
        Encoder input of these vectors.
    targets
        Gold annotations.
    """
    tasks = vectors.tasks
    parts: dict[str, Tensor] = {}
    if tasks is None:
        return parts
    if model.classifier is not None and len(targets.labels):
        parts["class"] = class_loss(model.classifier(_picked(tasks.fields, targets.labels[:, :3])), targets)
    if model.counter is not None and len(targets.counts):
        logits = model.counter.count(_picked(tasks.groups, targets.counts[:, :2]))
        parts["count"] = F.cross_entropy(logits.float(), targets.counts[:, 2], reduction="sum")
        if len(targets.columns):
            parts["slot"] = slot_loss(model, vectors, inputs, targets, tasks)
    finders = (
        ("record", model.record_finder, model.loss),
        ("relation", model.relation_finder, model.relation_loss),
    )
    for kind, finder, loss in finders:
        if finder is None or finder.needs_counter:
            continue
        gold = gold_values(targets).of_kind(tasks.kinds, kind)
        found = finder.loss(vectors, inputs, gold, model.span_rep, loss) if len(gold.asked) else None
        if found is not None:
            parts[kind] = found
    return parts


def class_loss(logits: Tensor, targets: TaskTargets) -> Tensor:
    """Return the summed loss of the labels of classifications.

    The logit of a label is the mean over the windows of its text, as in prediction. The loss is the cross-entropy of
    the labels of a task with one label to a text, and the binary cross-entropy of each label of other tasks.

    Parameters
    ----------
    logits
        Logit of each of ``targets.labels``, ``(labels,)``.
    targets
        Gold annotations.
    """
    values = targets.values
    group, place = targets.labels[:, 3], targets.labels[:, 4]
    means = torch.zeros(values.shape, device=logits.device)
    means = means.index_put((group, place), logits.float() * targets.weights, accumulate=True)
    single = targets.single
    apart = F.binary_cross_entropy_with_logits(means[~single], values[~single], reduction="none")
    among = means[single].masked_fill(~targets.value_mask[single], -torch.inf).log_softmax(-1)
    total = (apart * targets.value_mask[~single]).sum()
    return total - among[values[single] > 0].sum()


def slot_loss(
    model: Any, vectors: Representations, inputs: EncoderBatch, targets: TaskTargets, tasks: TaskVectors
) -> Tensor:
    """Return the summed loss of the values of records and of the ends of relations.

    The query of a field and an instance is scored against all spans of its row, or against the choices of the field.
    """
    row, task, slot, field = targets.columns[:, :4].unbind(1)
    instances, which = torch.unique(torch.stack([row, task], 1), dim=0, return_inverse=True)
    mask = _picked(tasks.mask, instances)
    slots = int(slot.max()) + 1
    queries = model.counter(_picked(tasks.fields, instances), slots, mask)[which, slot, field]
    total = queries.new_zeros((), dtype=torch.float32)
    of_spans = targets.columns[:, 4] < 0
    if bool(of_spans.any()):
        total = total + _span_loss(model, vectors, inputs, targets, queries[of_spans])
    if targets.choices is not None:
        chosen = targets.columns[~of_spans]
        places = targets.choices.clamp(min=0)
        words = _choice_vectors(model, vectors, inputs.windows, chosen[:, 0], places)
        logits = (words @ queries[~of_spans][:, :, None]).squeeze(-1)
        known = targets.choices >= 0
        total = total + model.loss(logits, targets.chosen, known)
    return total


def _span_loss(
    model: Any, vectors: Representations, inputs: EncoderBatch, targets: TaskTargets, queries: Tensor
) -> Tensor:
    """Return the loss of queries for spans: they are the labels of the rows that have some."""
    rows, order = targets.places.unbind(1)
    here, row = torch.unique(rows, return_inverse=True)
    shape = len(here), int(order.max()) + 1
    labels = queries.new_zeros(*shape, queries.shape[1]).index_put((row, order), queries)
    label_mask = torch.zeros(shape, dtype=torch.bool, device=queries.device)
    label_mask[row, order] = True
    windows = _rows_of(inputs.windows, here)
    # all words of a row, also those in which nobody looked for entities
    whole = torch.stack([torch.zeros_like(here), windows.word_mask.sum(1)], 1)
    outside = None if targets.outside is None else targets.outside[here]
    some = EncoderBatch(
        replace(windows, own=whole, unknown=outside),
        label_mask,
        inputs.relation_mask[here],
        tuple(inputs.queries[row] for row in here.tolist()),
    )
    new_rows = torch.searchsorted(here, targets.spans[:, 0].contiguous())
    spans = torch.cat([new_rows[:, None], targets.spans[:, 1:]], 1)
    chosen = Representations(vectors.words[here], vectors.span_words[here], labels, vectors.relations[here])
    found = model.span_rep.loss(chosen, some, spans, model.loss).values()
    return torch.stack(list(found)).sum()


def _choice_vectors(
    model: Any, vectors: Representations, windows: WindowBatch, rows: Tensor, places: Tensor
) -> Tensor:
    """Return the vectors of the choices at `places`, ``(columns, choices)``, in the rows of the columns."""
    spans = places[..., None].expand(-1, -1, 2)
    return model.span_rep.represent(vectors.span_words[rows], spans, windows.word_mask[rows])


def _rows_of(windows: WindowBatch, rows: Tensor) -> WindowBatch:
    """Return some rows of a batch."""
    chosen = {
        one.name: value[rows]
        for one in fields(windows)
        if isinstance(value := getattr(windows, one.name), Tensor)
    }
    return replace(windows, **chosen)


def _picked(tensor: Tensor, places: Tensor) -> Tensor:
    """Return the elements at the indices of the first axes, ``(elements, ...)``."""
    return tensor[places.unbind(1)]
