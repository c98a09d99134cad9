"""The training loop: one step, and the steps one after the other."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gliner_pipe.errors import TrainingError
from gliner_pipe.training.averaging import Anchor, WeightAverage
from gliner_pipe.training.data_loader import StepBatches, StepStream, prefetched
from gliner_pipe.training.distributed import gathered, no_sync, summed
from gliner_pipe.training.loss_guard import LossGuard

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gliner_pipe.training.protocol import TrainableByLoop


@dataclass
class StepResult:
    """What came out of a step, over all processes.

    Parameters
    ----------
    loss
        Summed loss divided by its denominator.
    parts
        The same for the parts of the loss, by ``component.part``.
    grad_norm
        Norm of all gradients before clipping.
    words, docs
        Size of the batch.
    """

    loss: float
    parts: dict[str, float]
    grad_norm: float
    words: int
    docs: int


@dataclass
class Learner:
    """The things that a step works with.

    Parameters
    ----------
    components
        The components that learn, by name.
    module
        Their models as wrapped by the accelerator.
    optimizer
        The optimizer as wrapped by the accelerator.
    scheduler
        Moves the learning rates after each step.
    max_grad_norm
        Gradients are scaled down to this norm; None leaves them as they are.
    average
        Running mean of the weights, if one is kept.
    anchor
        Pulls the weights towards where they started, if anything does.
    """

    accelerator: Accelerator
    components: Mapping[str, TrainableByLoop]
    module: torch.nn.Module
    optimizer: Any
    scheduler: torch.optim.lr_scheduler.LambdaLR
    max_grad_norm: float | None
    average: WeightAverage | None = None
    anchor: Anchor | None = None
    guard: LossGuard = field(default_factory=LossGuard)

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each group; those without weight decay follow the others."""
        groups = self.optimizer.param_groups
        rates = {group["name"].removesuffix(".no_decay"): float(group["lr"]) for group in groups}
        return dict(sorted(rates.items(), reverse=True))

    def step(self, number: int, batches: StepBatches) -> StepResult:
        """Learn from one batch, however it is cut.

        The loss is a sum over all sub-batches and processes, divided by counts over all of them, so the
        weights do not depend on the cut.

        Raises
        ------
        TrainingError
            If the loss or the gradients are no numbers, the loss diverges, or the memory is full; the weights
            are then as before the step.
        """
        scale = self._scales(batches)
        try:
            tensors = self._backward(batches, scale)
            norm = self._clip()
            # the one place at which the device is waited for
            *values, grad_norm = torch.stack([*tensors.values(), norm]).tolist()
        except RuntimeError as error:
            if not _is_memory(error):
                raise
            self.optimizer.zero_grad(set_to_none=True)
            raise _out_of_memory(number, batches) from error
        losses = dict(zip(tensors, values, strict=True))
        # a batch without relations has no such part: all processes must sum the same numbers in the same order
        names = {name: 0.0 for some in gathered(self.accelerator, list(losses)) for name in some}
        totals = summed(
            self.accelerator, {**names, **losses, "words": batches.n_words, "docs": batches.n_docs}
        )
        parts = {
            name.removeprefix("part:"): value for name, value in totals.items() if name.startswith("part:")
        }
        rates = self.learning_rates()
        self.guard.check(number, totals["loss"], rates, batches.sources)
        if self.accelerator.scaler is None:  # else its steps over infinite gradients are left out
            self.guard.check_gradients(number, grad_norm, rates, batches.sources)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # a fused optimizer is called over infinite gradients, too, and does nothing
        overflow = self.accelerator.scaler is not None and not math.isfinite(grad_norm)
        if not (overflow or self.accelerator.optimizer_step_was_skipped):
            if self.anchor is not None:
                self.anchor.pull(self.optimizer.param_groups)
            if self.average is not None:
                self.average.update()
            self.scheduler.step()
        return StepResult(totals["loss"], parts, grad_norm, int(totals["words"]), int(totals["docs"]))

    def _scales(self, batches: StepBatches) -> dict[str, float]:
        """Return what each component's summed loss is multiplied by."""
        counts = dict.fromkeys(self.components, 0.0)
        for sub_batch in batches.sub_batches:
            for name, batch in sub_batch.items():
                counts[name] += float(batch.count)
        counts = summed(self.accelerator, counts)
        return {
            name: 1.0 / (component.denominator(counts[name]) or 1.0)
            for name, component in self.components.items()
        }

    def _backward(self, batches: StepBatches, scale: Mapping[str, float]) -> dict[str, torch.Tensor]:
        """Add up the gradients of all sub-batches; return this process's share of the loss and its parts."""
        values: defaultdict[str, Any] = defaultdict(float)
        # Gradients are averaged over processes, the loss is a sum over them.
        n_processes = self.accelerator.num_processes
        last = len(batches.sub_batches) - 1
        for index, sub_batch in enumerate(batches.sub_batches):
            moved = {name: batch.to(self.accelerator.device) for name, batch in sub_batch.items()}
            with no_sync(self.accelerator, self.module, index == last):
                terms = self.module(moved)
                loss = sum(scale[name] * total for name, (total, _) in terms.items())
                self.accelerator.backward(loss * n_processes)
            values["loss"] += loss.detach()
            for name, (_, parts) in terms.items():
                for part, value in parts.items():
                    values[f"part:{name}.{part}"] += scale[name] * value.detach()
        return dict(values)

    def _clip(self) -> torch.Tensor:
        """Scale the gradients down, and return their norm before that."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(parameters, limit)
        return norm.detach().float()


class DeviceFullError(TrainingError):
    """A step that does not fit into the memory; the weights are as before it.

    Parameters
    ----------
    message
        For the user.
    pieces, documents
        Word pieces of the largest part of the step, and documents of the part that has most of them.
    """

    def __init__(self, message: str, pieces: int, documents: int) -> None:
        super().__init__(message)
        self.pieces, self.documents = pieces, documents


def _is_memory(error: RuntimeError) -> bool:
    """Whether an error says that a memory is full: that of a GPU, or the machine's own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _out_of_memory(step: int, batches: StepBatches) -> DeviceFullError:
    pieces = max(batch.n_pieces for sub_batch in batches.sub_batches for batch in sub_batch.values())
    documents = max(batches.sizes)
    return DeviceFullError(
        f"the memory of the device is full in step {step}: {batches.n_docs} documents with "
        f"{batches.n_words} words, in {len(batches.sub_batches)} parts of up to {pieces} word pieces. Set "
        f"auto_find_batch_size, or grad_accumulation_max_tokens to less than {pieces} (the result is the same), or "
        "max_length",
        pieces,
        documents,
    )


@dataclass
class Progress:
    """What happened since the last validation."""

    losses: list[float] = field(default_factory=list)
    words: int = 0
    docs: int = 0
    seconds: float = 0.0
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, result: StepResult, seconds: float, dropped: Mapping[str, Counter[str]]) -> None:
        """Take note of a step."""
        self.losses.append(result.loss)
        self.words += result.words
        self.docs += result.docs
        self.seconds += seconds
        for name, counts in dropped.items():
            self.dropped[name].update(counts)

    def reset(self) -> None:
        """Begin anew after a validation."""
        self.losses, self.words, self.docs, self.seconds = [], 0, 0, 0.0
        self.dropped.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` takes."""
        dropped = {name: dict(counts) for name, counts in self.dropped.items()}
        return {**vars(self), "dropped": dropped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken."""
        self.losses, self.words = list(state["losses"]), state["words"]
        self.docs, self.seconds = state["docs"], state["seconds"]
        for name, counts in state["dropped"].items():
            self.dropped[name].update(counts)

    def mean_loss(self) -> float | None:
        """Return the mean loss of the steps."""
        return sum(self.losses) / len(self.losses) if self.losses else None


def record_of(step: int, result: StepResult, seconds: float, rates: Mapping[str, float]) -> dict[str, Any]:
    """Return a step as loggers take it."""
    return {
        "step": step,
        "loss": result.loss,
        "grad_norm": result.grad_norm,
        "lr": dict(rates),
        "parts": result.parts,
        "words": result.words,
        "docs": result.docs,
        "words_per_second": result.words / max(seconds, 1e-9),
    }


def train_steps(
    learner: Learner,
    stream: StepStream,
    max_steps: int,
    hooks: Any,
    *,
    done: int = 0,
    num_workers: int = 0,
    progress: Progress | None = None,
    shrink: Callable[[int], None] | None = None,
) -> None:
    """Run steps until `max_steps`, or until a validation says that it is enough.

    Parameters
    ----------
    learner
        Does a step.
    stream
        An endless stream of batches.
    max_steps
        Number of steps.
    hooks
        Told about each step: ``hooks.after_step(step, record, progress)`` returns True to stop.
    done
        Steps that an earlier run has done.
    num_workers
        Processes that prepare batches.
    progress
        What happened since the last validation, where a training goes on.
    shrink
        Called with the number of word pieces that were too many for the memory; the step is then taken again in
        smaller parts, which gives the same result. Without it, a full memory ends the training.
    """
    progress = Progress() if progress is None else progress
    number = done
    while number < max_steps:
        started = time.perf_counter()
        for batches in prefetched(stream, num_workers):
            rates = learner.learning_rates()
            try:
                result = learner.step(number + 1, batches)
            except DeviceFullError as error:
                _make_smaller(stream, error, shrink)
                stream.start += number - done  # the batches of this step once more
                done = number
                break
            number += 1
            seconds = time.perf_counter() - started
            progress.add(result, seconds, batches.dropped)
            if hooks.after_step(number, record_of(number, result, seconds, rates), progress):
                return
            if number >= max_steps:
                return
            started = time.perf_counter()


def _make_smaller(stream: StepStream, error: DeviceFullError, shrink: Callable[[int], None] | None) -> None:
    if shrink is None or error.documents == 1:
        raise error
    largest = error.pieces if stream.max_tokens is None else min(error.pieces, stream.max_tokens)
    stream.max_tokens = max(1, largest // 2)
    shrink(stream.max_tokens)
