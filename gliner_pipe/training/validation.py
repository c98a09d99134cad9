"""What happens between steps: logging, validation, saving, and the decision to stop early."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from spacy.language import Language
from spacy.training import Example

from gliner_pipe.errors import ConfigError
from gliner_pipe.evaluation.evaluate import FACTS, evaluate_pipeline
from gliner_pipe.training.arguments import Plan
from gliner_pipe.training.checkpoints import ModelStore
from gliner_pipe.training.distributed import agreed
from gliner_pipe.training.loggers.base import TrainingLogger, flatten
from gliner_pipe.training.loop import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator

#: Ends of the names of scores that are tried for the best metric, in this order.
MAIN_SCORES = ("micro.f", "micro", "f")

Scorer = Callable[..., dict[str, Any]]


@dataclass
class Validation:
    """How a pipeline is measured while it is trained.

    Parameters
    ----------
    examples
        Gold documents; empty for a training without validation.
    scorers
        Scorers by name.
    metric
        Name of the score that decides which model is the best, e.g. ``"ner.micro.f"``.
    labels
        Labels to ask for and to score; the component's own when not given.
    """

    examples: Sequence[Example]
    scorers: Mapping[str, Scorer]
    metric: str = ""
    labels: Sequence[Any] | None = None

    def __call__(self, nlp: Language) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the scores of `nlp` and the facts about how they were taken."""
        result = evaluate_pipeline(nlp, self.examples, scorers=self.scorers, labels=self.labels)
        facts = {name: value for name, value in result.items() if name in FACTS}
        return {name: value for name, value in result.items() if name not in FACTS}, facts

    def main_score(self, scores: Mapping[str, Any]) -> float:
        """Return the value of the best metric; minus infinity where there was nothing to measure.

        Raises
        ------
        ConfigError
            If the scores do not have it.
        """
        flat = dict(flatten(scores))
        if self.metric not in flat:
            raise no_such_metric(self.metric, flat)
        value = flat[self.metric]
        return float("-inf") if value is None else float(value)


def choose_metric(metric: str | None, scorers: Mapping[str, Scorer], examples: Sequence[Example]) -> str:
    """Return the name of the best metric, checked against what the scorers give before anything is trained.

    Parameters
    ----------
    metric
        The name, if one was given.
    scorers
        Scorers by name.
    examples
        Gold documents; the scorers are tried on them as if they were predictions.
    """
    perfect = [Example(example.reference, example.reference) for example in examples]
    known = dict(flatten({name: scorer(perfect) for name, scorer in scorers.items()}))
    if metric is not None:
        if metric not in known:
            raise no_such_metric(metric, known)
        return metric
    for end in MAIN_SCORES:
        for name in known:
            if name.endswith(f".{end}"):
                return name
    raise ConfigError(
        "train.best_metric",
        "is not set, and no score is called micro.f or f",
        ", ".join(known),
        "Name one of them",
    )


def no_such_metric(metric: str, scores: Mapping[str, Any]) -> ConfigError:
    """Return the error about a best metric that no scorer gives."""
    numbers = [name for name, value in scores.items() if value is None or isinstance(value, (int, float))]
    return ConfigError("train.best_metric", f"is {metric!r}, which no scorer gives", ", ".join(numbers))


@dataclass
class Supervisor:
    """Logs, validates and saves while a pipeline is trained.

    Parameters
    ----------
    nlp
        The pipeline.
    module
        The modules that learn: in evaluation mode while the pipeline is measured and saved.
    validation
        How it is measured.
    plan
        How many steps there are, and in which to validate and save.
    patience
        Validations without a better score after which the training ends; None never ends it early.
    patience_threshold
        What a score must be better by to count as better, for `patience` alone.
    logging_interval
        Steps between two that the loggers are told about.
    store
        Where the models and checkpoints go.
    callback
        Called with the record of each validation.
    note
        Takes a line for the user.
    loggers
        Told about steps and validations, once they are started.
    """

    accelerator: Accelerator
    nlp: Language
    module: torch.nn.Module
    validation: Validation
    plan: Plan
    patience: int | None
    patience_threshold: float
    logging_interval: int
    store: ModelStore
    callback: Callable[[dict[str, Any]], Any] | None
    note: Callable[[str], None]
    loggers: list[TrainingLogger] = field(default_factory=list)
    best_score: float | None = None
    best_step: int = 0
    score_to_beat: float | None = None
    validations_since_best: int = 0
    finished: bool = False
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def before_first_step(self) -> None:
        """Measure the weights that the training starts from; they are not saved and cannot be the best ones."""
        if self.accelerator.is_main_process:
            self.module.eval()
            record: dict[str, Any] = {"step": 0, "loss": None, "lr": {}, "best": False, "scores": {}}
            self._measure(record)
            self._tell(record)
            self.module.train()
        self.accelerator.wait_for_everyone()

    def after_step(self, step: int, record: Mapping[str, Any], progress: Progress) -> bool:
        """Take note of a step; validate and save if it is time to; return True to end the training."""
        main = self.accelerator.is_main_process
        last = step == self.plan.max_steps
        if main and (last or step == 1 or step % self.logging_interval == 0):
            for logger in self.loggers:
                logger.step(record)
        validate = last or step % self.plan.validation_interval == 0
        if validate:
            enough = self._validate(step, record, progress) if main else False
            self._note_dropped(progress)
            progress.reset()
            self.finished = agreed(self.accelerator, enough)
        if self.finished or last or step % self.plan.checkpoint_interval == 0:
            if main and not validate:
                self.module.eval()
                self.store.save_last(step)
                self.module.train()
            self.store.save_checkpoint(
                step, {"supervisor": self.state_dict(), "progress": progress.state_dict()}
            )
            self.accelerator.wait_for_everyone()
        return self.finished

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` takes."""
        return {
            **{name: getattr(self, name) for name in _STATE},
            "dropped": {name: dict(counts) for name, counts in self.dropped.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken."""
        for name in _STATE:
            setattr(self, name, state[name])
        self.dropped = {name: Counter(counts) for name, counts in state["dropped"].items()}

    def _validate(self, step: int, record: Mapping[str, Any], progress: Progress) -> bool:
        """Measure, log and save; return True if there was no better score for too long."""
        self.module.eval()
        entry: dict[str, Any] = {
            "step": step,
            "loss": progress.mean_loss(),
            "lr": record["lr"],
            "words_per_second": progress.words / max(progress.seconds, 1e-9),
            "docs_per_second": progress.docs / max(progress.seconds, 1e-9),
            "best": False,
            "scores": {},
        }
        score = self._measure(entry)
        if score is not None:
            entry["best"] = self.best_score is None or score > self.best_score
            if entry["best"]:
                self.best_score, self.best_step = score, step
                self.store.save_best(step)
            better = self.score_to_beat is None or score > self.score_to_beat + self.patience_threshold
            self.score_to_beat = score if better else self.score_to_beat
            self.validations_since_best = 0 if better else self.validations_since_best + 1
        self.store.save_last(step)
        self._tell(entry)
        self.module.train()
        return self.patience is not None and self.validations_since_best >= self.patience

    def _measure(self, entry: dict[str, Any]) -> float | None:
        """Put the scores into the record of a validation; return the one that counts."""
        if not self.validation.examples:
            return None
        with self.store.averaged():
            scores, facts = self.validation(self.nlp)
        score = self.validation.main_score(scores)
        entry["scores"] = scores
        entry["validation"] = {
            name: facts[name] for name in ("docs", "words", "docs_per_second", "words_per_second")
        }
        self.nlp.meta["performance"] = {
            **scores,
            self.validation.metric: score if score > float("-inf") else None,
        }
        return score

    def _tell(self, entry: dict[str, Any]) -> None:
        for logger in self.loggers:
            logger.validation(entry)
        if self.callback is not None:
            self.callback(entry)

    def _note_dropped(self, progress: Progress) -> None:
        """Say which gold annotations cannot be learned from, the first time each reason is met."""
        if not self.accelerator.is_main_process:
            return
        for component, counts in progress.dropped.items():
            known = self.dropped.setdefault(component, Counter())
            for reason, number in counts.items():
                if reason not in known:
                    what = f"{number} gold annotations not learned from: {reason}"
                    self.note(f"warning: [components.{component}] {what}")
            known.update(counts)


#: What a checkpoint knows about a supervisor.
_STATE = ("best_score", "best_step", "score_to_beat", "validations_since_best", "finished")
