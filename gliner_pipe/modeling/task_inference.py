"""Values of the fields of relations and records in batches of windows, and their collection by text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gliner_pipe.modeling.backbones.base import Window
from gliner_pipe.modeling.encoders.base import EncoderBatch
from gliner_pipe.modeling.gliner import GLiNER
from gliner_pipe.modeling.span_reps.base import FoundSpans, Representations
from gliner_pipe.modeling.task_finders import (
    CHOICE,
    Columns,
    FoundValues,
    TaskInputs,
    find_choices,
    find_with_labels,
    slot_queries,
    whole_rows,
)

NumberArray = npt.NDArray[np.float64]


def find_values(
    model: GLiNER, vectors: Representations, batch: EncoderBatch, limits: Tensor, inputs: TaskInputs
) -> tuple[FoundSpans, list[FoundValues]]:
    """Find the spans of labels, and the values of fields.

    Parameters
    ----------
    model
        With a relation finder or a record finder.
    vectors
        Words, labels and tasks.
    batch
        The windows.
    limits
        Threshold of each label, ``(rows, labels)``.
    inputs
        Thresholds and choices of the fields.
    """
    assert vectors.tasks is not None
    windows, span_rep, inputs = batch.windows, model.span_rep, inputs.expanded(len(limits))
    everywhere = replace(batch, windows=whole_rows(windows))
    finders = [one for one in (model.record_finder, model.relation_finder) if one is not None]
    asked = [finder.queries(model.counter, vectors.tasks, inputs.limits) for finder in finders]
    in_slots = [finder.slots_of for finder in finders if finder.slots_of is not None]
    if in_slots:
        asked.append(slot_queries(model.counter, vectors.tasks, in_slots, inputs.limits))
    columns = Columns.join([one for one in asked if one is not None])
    own = (finder.find(vectors, everywhere, inputs, span_rep) for finder in finders)
    values = [one for one in own if one is not None]
    if columns is None:
        return span_rep.find(vectors, windows, limits), values
    spans, found = find_with_labels(span_rep, vectors, windows, limits, columns)
    values.append(found)
    if inputs.places is not None:
        values.append(find_choices(span_rep, vectors, windows, columns, inputs.places, inputs.choice_limits))
    return spans, values


def values_on_host(values: FoundValues, group: Sequence[int], windows: Sequence[Window]) -> NumberArray:
    """Copy values from the device, ``(7, values)``: the row becomes the number of the window, words those of the text.

    Parameters
    ----------
    values
        The values.
    group
        Number of the window of each row.
    windows
        These windows.
    """
    dtype = torch.float32 if values.rows.device.type == "mps" else torch.float64
    packed = np.asarray(torch.stack([column.to(dtype) for column in values]).cpu().numpy(), dtype=np.float64)
    rows = packed[0].astype(np.int64)
    shift = np.array([window.first for window in windows])[rows] * (packed[5] != CHOICE)
    packed[0] = np.array(group)[rows]
    packed[4] += shift
    packed[5] += shift
    return packed


def values_by_text(
    parts: Sequence[NumberArray], windows: Sequence[Window]
) -> Iterator[tuple[int, NumberArray]]:
    """Yield number and values of each text that has any, ordered by window, task, instance, field and place."""
    if not parts:
        return
    joined = np.concatenate(parts, axis=1)
    joined = joined[:, np.lexsort(joined[5::-1])]
    texts = np.array([window.text for window in windows])[joined[0].astype(np.int64)]
    for text in np.unique(texts).tolist():
        yield text, joined[:, texts == text]
