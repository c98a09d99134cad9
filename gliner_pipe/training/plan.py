"""How long a training is, and when it validates and saves: options in steps and epochs become steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

#: Steps of a training that says neither ``max_steps`` nor ``max_epochs``.
DEFAULT_STEPS = 2000


@dataclass(frozen=True)
class Plan:
    """The steps of a training.

    Parameters
    ----------
    max_steps
        All of them.
    validation_interval, checkpoint_interval
        Steps between two validations and between two savings, both at least 1.
    """

    max_steps: int
    validation_interval: int
    checkpoint_interval: int

    @classmethod
    def make(cls, options: Mapping[str, Any], steps_per_epoch: Callable[[], int]) -> Plan:
        """Count the steps.

        Parameters
        ----------
        options
            ``max_steps``, ``max_epochs``, ``validation_interval`` and ``checkpoint_interval``, checked.
        steps_per_epoch
            Counts the steps of an epoch; called only where something is given in epochs.
        """
        if options["max_epochs"] is not None:
            max_steps = max(1, math.ceil(options["max_epochs"] * steps_per_epoch()))
        else:
            max_steps = options["max_steps"] or DEFAULT_STEPS

        def steps(value: int | str | None, default: int) -> int:
            if isinstance(value, str):
                value = steps_per_epoch()
            return max(1, default if value is None else value)

        validation = steps(options["validation_interval"], max_steps // 10)
        return cls(max_steps, validation, steps(options["checkpoint_interval"], validation))
