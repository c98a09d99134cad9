"""Samples what a training example is asked for besides entity labels: records, relations and classes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic.dataclasses import dataclass

from gliner_pipe.util.ranges import Count, Share

_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class TaskSampling:
    """How the records, relations and classes in the prompt of a training example are chosen and named.

    What an example states is never taught as absent: a task that is left out is not in the prompt at all.

    Parameters
    ----------
    drop_tasks
        Probability that a kind of records, or a classification, is left out. One task is kept if there are no entity
        labels.
    drop_fields
        Probability that a field of a record is left out; at least one is kept.
    drop_labels
        Largest share of the labels of a classification that are left out, drawn uniformly. A true label is kept.
    max_labels
        Maximum number of labels of a classification, the true ones first; None for no limit.
    shuffle
        Put tasks, fields and labels in random order, so that the model does not learn positions.
    drop_descriptions
        Probability that descriptions are left out, drawn for each group of the prompt: entity labels, a record, a
        relation, a classification.
    drop_examples
        Probability that the examples of a classification are left out.
    hide_names
        Probability that the names of labels or fields are replaced by ``label 1``, ``field 1`` and so on, so that the
        model reads their descriptions. Only where each of them has one.
    swap_ends
        Probability that the tail of a relation is read before its head.
    unnamed_fields
        What a field means that a gold record does not name: ``absent``, it has no value; or ``unknown``, nothing is
        learned about it in this record, for records that are annotated in part. Null and an empty list always mean
        that there is no value.

    Notes
    -----
    Most options and their defaults are those of GLiNER2's ``SamplingConfig``. Unlike there, no single relation of a
    text is left out, which would teach that it is absent, and names are hidden only if something explains them.
    """

    drop_tasks: Share = 0.2
    drop_fields: Share = 0.2
    drop_labels: Share = 0.5
    max_labels: Count | None = None
    shuffle: bool = True
    drop_descriptions: Share = 0.5
    drop_examples: Share = 0.5
    hide_names: Share = 0.2
    swap_ends: Share = 0.2
    unnamed_fields: Literal["absent", "unknown"] = "absent"

    def some(self, items: Sequence[_Item], share: float, rng: random.Random) -> list[_Item]:
        """Leave out each item with a probability, but not all of them; the order is random with ``shuffle``."""
        kept = [item for item in items if rng.random() >= share]
        if not kept and items:
            kept = [rng.choice(items)]
        return self.ordered(kept, rng)

    def ordered(self, items: Sequence[_Item], rng: random.Random) -> list[_Item]:
        """Return the items in random order, or as they are without ``shuffle``."""
        found = list(items)
        if self.shuffle:
            rng.shuffle(found)
        return found

    def labels(self, values: dict[str, float], rng: random.Random) -> list[str]:
        """Return the labels of a classification that are in the prompt.

        Parameters
        ----------
        values
            Value of each label, 1.0 for a true one.
        rng
            Source of randomness.
        """
        true = [label for label, value in values.items() if value >= 0.5]
        false = [label for label in values if label not in true]
        most = len(values) if self.max_labels is None else self.max_labels
        number = len(values) - int(len(values) * rng.random() * self.drop_labels)
        number = max(0 if true else 1, min(number, most) - len(true))
        chosen = {*rng.sample(false, min(number, len(false))), *true[:most]}
        return self.ordered([label for label in values if label in chosen], rng)
