"""The state of a training between its steps: progress since the last validation, and the best score so far."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gliner_pipe.training.step import StepResult


@dataclass
class Progress:
    """Losses, speed and dropped annotations since the last validation."""

    losses: list[float] = field(default_factory=list)
    losses_per_example: list[float] = field(default_factory=list)
    words: int = 0
    docs: int = 0
    seconds: float = 0.0
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, result: StepResult, seconds: float, dropped: Mapping[str, Counter[str]]) -> None:
        """Add a step."""
        self.losses.append(result.loss)
        self.losses_per_example.append(result.loss_per_example)
        self.words += result.words
        self.docs += result.docs
        self.seconds += seconds
        for name, counts in dropped.items():
            self.dropped[name].update(counts)

    def record(self, step: int, rates: Mapping[str, float]) -> dict[str, Any]:
        """Return the record of a validation for the loggers, without scores."""
        return {
            "step": step,
            "loss": _mean(self.losses),
            "lr": rates,
            "words_per_second": self.words / max(self.seconds, 1e-9),
            "docs_per_second": self.docs / max(self.seconds, 1e-9),
            "best": False,
            "loss_per_example": _mean(self.losses_per_example),
            "scores": {},
        }

    def reset(self) -> None:
        """Start over after a validation."""
        self.losses, self.losses_per_example = [], []
        self.words, self.docs, self.seconds = 0, 0, 0.0
        self.dropped.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``."""
        return {**vars(self), "dropped": _plain(self.dropped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        self.losses, self.words = list(state["losses"]), state["words"]
        self.losses_per_example = list(state.get("losses_per_example", []))  # earlier checkpoints have none
        self.docs, self.seconds = state["docs"], state["seconds"]
        for name, counts in state["dropped"].items():
            self.dropped[name].update(counts)


@dataclass
class Status:
    """The best score of a training, and whether it has ended.

    Attributes
    ----------
    best_score, best_step
        Score of the best model and the step of its validation; None if nothing was scored yet.
    score_to_beat
        Score that the next validation is compared with for early stopping: the last one that improved by more than
        ``patience_threshold``.
    validations_since_best
        Validations since then.
    finished
        Whether the training was stopped early.
    dropped
        Gold annotations that could not be learned so far, by component and reason.
    """

    best_score: float | None = None
    best_step: int = 0
    score_to_beat: float | None = None
    validations_since_best: int = 0
    finished: bool = False
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, score: float, step: int, threshold: float) -> bool:
        """Compare the score of a validation with the best one; return whether it is better."""
        best = self.best_score is None or score > self.best_score
        if best:
            self.best_score, self.best_step = score, step
        better = self.score_to_beat is None or score > self.score_to_beat + threshold
        self.score_to_beat = score if better else self.score_to_beat
        self.validations_since_best = 0 if better else self.validations_since_best + 1
        return best

    def newly_dropped(self, dropped: Mapping[str, Counter[str]]) -> Iterator[tuple[str, str, int]]:
        """Add dropped annotations; yield component, reason and number of each new reason."""
        for component, counts in dropped.items():
            known = self.dropped.setdefault(component, Counter())
            for reason, number in counts.items():
                if reason not in known:
                    yield component, reason, number
            known.update(counts)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for ``load_state_dict``."""
        return {**vars(self), "dropped": _plain(self.dropped)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        vars(self).update(state)
        self.dropped = {name: Counter(counts) for name, counts in state["dropped"].items()}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _plain(dropped: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(counts) for name, counts in dropped.items()}
