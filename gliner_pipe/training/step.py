"""One training step: losses and gradients of a batch, clipping, update of the weights, and checks of the loss."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gliner_pipe.errors import ConfigError, TrainingError
from gliner_pipe.training.averaging import Anchor, WeightAverage
from gliner_pipe.training.data_loader import StepBatches
from gliner_pipe.training.distributed import gathered, no_sync, summed
from gliner_pipe.util.devices import is_out_of_memory, release_memory
from gliner_pipe.util.plurals import number_of

if TYPE_CHECKING:
    from accelerate import Accelerator

    from gliner_pipe.training.protocol import TrainableByLoop

#: Weight of the newest loss in the running mean of ``LossGuard``.
SMOOTHING = 0.05


@dataclass
class StepResult:
    """Loss, gradient norm and batch size of a step, over all processes.

    Parameters
    ----------
    loss
        Summed loss divided by its denominator.
    loss_per_example
        Summed loss divided by the number of examples.
    parts
        The same for the parts of the loss, by ``component.part``.
    grad_norm
        Norm of all gradients before clipping.
    words, docs
        Size of the batch.
    stopped
        Whether any process was asked to stop.
    """

    loss: float
    loss_per_example: float
    parts: dict[str, float]
    grad_norm: float
    words: int
    docs: int
    stopped: bool = False

    def record(self, step: int, seconds: float, rates: Mapping[str, float]) -> dict[str, Any]:
        """Return the record of the step for the loggers."""
        return {
            "step": step,
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "lr": dict(rates),
            "parts": self.parts,
            "words": self.words,
            "docs": self.docs,
            "words_per_second": self.words / max(seconds, 1e-9),
            "loss_per_example": self.loss_per_example,
        }


class LossGuard:
    """Stops a training whose loss or gradient is not a finite number, or whose loss diverges.

    Parameters
    ----------
    factor
        The loss diverges when its running mean exceeds both `factor` times its own minimum and half of the first loss.
    patience
        Number of successive steps for which the loss must diverge.
    """

    def __init__(self, factor: float = 10.0, patience: int = 100) -> None:
        self.factor = factor
        self.patience = patience
        self.first: float | None = None
        self.mean = 0.0
        self.lowest = math.inf
        self.steps_above = 0

    def check(self, step: int, loss: float, rates: Mapping[str, float], sources: Sequence[str]) -> None:
        """Check the loss of `step`.

        Parameters
        ----------
        step
            Number of the step.
        loss
            Its loss.
        rates
            Learning rates by group.
        sources
            File and line of the examples of the batch.

        Raises
        ------
        TrainingError
            If the loss is NaN or infinite, or has been diverging for `patience` steps.
        """
        if not math.isfinite(loss):
            raise _not_finite("the loss", step, loss, rates, sources)
        if self.first is None:
            self.first = self.mean = loss
        self.mean += SMOOTHING * (loss - self.mean)
        self.lowest = min(self.lowest, self.mean)
        limit = max(self.factor * self.lowest, 0.5 * self.first)
        self.steps_above = self.steps_above + 1 if self.mean > limit else 0
        if self.steps_above >= self.patience:
            raise TrainingError(
                f"The loss diverges: its running mean at step {step} is {self.mean:.4g}, more than "
                f"{self.factor:g} times its minimum ({self.lowest:.4g}) for {self.patience} steps. "
                f"Learning rates: {_rates(rates)}. "
                "Lower the learning rates, raise warmup_rate or lower max_grad_norm"
            )

    def check_gradients(
        self, step: int, grad_norm: float, rates: Mapping[str, float], sources: Sequence[str]
    ) -> None:
        """Check the gradient norm of `step`, before the weights are updated with it; parameters as for `check`.

        Raises
        ------
        TrainingError
            If it is NaN or infinite.
        """
        if not math.isfinite(grad_norm):
            raise _not_finite("the gradient norm", step, grad_norm, rates, sources)


def _not_finite(
    what: str, step: int, value: float, rates: Mapping[str, float], sources: Sequence[str], shown: int = 8
) -> TrainingError:
    more = f" and {len(sources) - shown} more" if len(sources) > shown else ""
    examples = ", ".join(sources[:shown]) + more if sources else "source unknown"
    return TrainingError(
        f"In step {step}, {what} is {value}. Models on disk are from before this step. "
        f"Learning rates: {_rates(rates)}. Examples of the batch: {examples}. "
        "Check these examples, lower the learning rates, raise warmup_rate, lower max_grad_norm, "
        'or set mixed_precision = "no"'
    )


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:.3g}" for name, rate in rates.items())


class DeviceFullError(TrainingError):
    """A step ran out of memory; the weights are as before the step.

    Parameters
    ----------
    message
        For the user.
    tokens, documents
        Subword tokens of the largest sub-batch, and documents of the sub-batch with most documents.
    """

    def __init__(self, message: str, tokens: int, documents: int) -> None:
        super().__init__(message)
        self.tokens, self.documents = tokens, documents

    @classmethod
    def of(cls, step: int, batches: StepBatches) -> DeviceFullError:
        """Return the error of a step over `batches`."""
        tokens = max(batch.n_pieces for sub_batch in batches.sub_batches for batch in sub_batch.values())
        return cls(
            f"Out of memory in step {step}: {number_of(batches.n_docs, 'document')} with {batches.n_words} words, in "
            f"{len(batches.sub_batches)} sub-batches of up to {tokens} subword tokens. Set auto_find_batch_size, "
            f"or grad_accumulation_max_tokens below {tokens} (neither changes the result), or a smaller max_length",
            tokens,
            max(batches.sizes),
        )


def _optimizer_is_full(step: int, weights: int) -> TrainingError:
    """Return the error of an optimizer without memory: its state depends on the weights, and not on the batch."""
    return TrainingError(
        f"Out of memory in step {step}, when the optimizer updated {weights:,} weights. Models on disk are from before "
        "this step; the weights in memory may be updated in part: do not use them. Smaller batches do not help. "
        "Train fewer weights (freeze_components, or an adapter), or set an optimizer with less state: adafactor or sgd"
    )


def check_scaler(scaler: Any, parameters: Iterable[torch.Tensor]) -> None:
    """Check that a gradient scaler supports the trained weights.

    Parameters
    ----------
    scaler
        The scaler of mixed precision in fp16; None if there is none.
    parameters
        The trained weights.

    Raises
    ------
    ConfigError
        If some are stored in fp16: their gradients can neither be unscaled nor added up without loss.
    """
    half = sum(one.numel() for one in parameters if one.dtype == torch.float16)
    if scaler is not None and half:
        raise ConfigError(
            "train.mixed_precision",
            f"found 'fp16' with {half:,} trained weights that are stored in fp16 (dtype of the backbone)",
            "'fp16' with weights in fp32, which it runs in fp16 where that is safe; 'bf16'; 'no'",
            'Set dtype = "fp32" in the section of the backbone',
        )


@dataclass
class Learner:
    """Models, optimizer and learning rate schedule, and the step that updates them.

    Parameters
    ----------
    accelerator
        Device, mixed precision and processes.
    components
        The trained components, by name.
    module
        Their models as wrapped by the accelerator.
    optimizer
        The optimizer as wrapped by the accelerator.
    scheduler
        Updates the learning rates after each step.
    max_grad_norm
        Gradients are clipped to this norm; None does not clip.
    average
        EMA of the weights, if there is one.
    anchor
        L2-SP regularisation, if there is any.
    guard
        Checks each loss and gradient norm.
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

    def __post_init__(self) -> None:
        check_scaler(self.accelerator.scaler, self._parameters())

    def learning_rates(self) -> dict[str, float]:
        """Return the learning rate of each group; groups without weight decay share that of the others."""
        groups = self.optimizer.param_groups
        rates = {group["name"].removesuffix(".no_decay"): float(group["lr"]) for group in groups}
        return dict(sorted(rates.items(), reverse=True))

    def step(self, number: int, batches: StepBatches, stop: bool = False) -> StepResult:
        """Update the weights with one batch.

        The loss is a sum over all sub-batches and processes, divided by counts over all of them, so the
        weights do not depend on how the batch is split.

        Parameters
        ----------
        number
            Number of the step, for messages.
        batches
            The batch of this process.
        stop
            Whether this process was asked to stop after the step; the others learn it together with the loss.

        Raises
        ------
        TrainingError
            If the loss or the gradients are not finite, the loss diverges, or memory is full. The weights are then
            as before the step, unless the optimizer itself ran out of memory, which the error says.
        """
        scale = self._scales(batches)
        try:
            tensors = self._backward(batches, scale)
            norm = self._clip()
            # the only synchronisation with the device
            *values, grad_norm = torch.stack([*tensors.values(), norm]).tolist()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._release(error)
            raise DeviceFullError.of(number, batches) from error
        losses = dict(zip(tensors, values, strict=True))
        # a batch without relations lacks their part: all processes must sum the same names in the same order
        names = {name: 0.0 for some in gathered(self.accelerator, list(losses)) for name in some}
        sizes = {"words": batches.n_words, "docs": batches.n_docs, "stopped": float(stop)}
        totals = summed(self.accelerator, {**names, **losses, **sizes})
        prefix = "part:"
        parts = {
            name.removeprefix(prefix): value for name, value in totals.items() if name.startswith(prefix)
        }
        rates = self.learning_rates()
        self.guard.check(number, totals["loss"], rates, batches.sources)
        if self.accelerator.scaler is None:  # a scaler skips steps with infinite gradients itself
            self.guard.check_gradients(number, grad_norm, rates, batches.sources)
        try:
            self._update(grad_norm)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._release(error)
            raise _optimizer_is_full(number, sum(one.numel() for one in self._parameters())) from error
        n_docs = int(totals["docs"])
        per_example = totals["summed"] / max(n_docs, 1)
        stopped = totals["stopped"] > 0
        return StepResult(
            totals["loss"], per_example, parts, grad_norm, int(totals["words"]), n_docs, stopped
        )

    def _update(self, grad_norm: float) -> None:
        """Update the weights, their average and the learning rates."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # a fused optimizer is called even for infinite gradients, and does nothing
        overflow = self.accelerator.scaler is not None and not math.isfinite(grad_norm)
        if not (overflow or self.accelerator.optimizer_step_was_skipped):
            if self.anchor is not None:
                self.anchor.pull(self.optimizer.param_groups)
            if self.average is not None:
                self.average.update()
            self.scheduler.step()

    def _release(self, error: Exception) -> None:
        """Free gradients and activations of a step that ran out of memory, so that it can be run again."""
        self.optimizer.zero_grad(set_to_none=True)
        release_memory(error)

    def _parameters(self) -> list[torch.Tensor]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def _scales(self, batches: StepBatches) -> dict[str, float]:
        """Return the factor of each component's summed loss."""
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
        """Accumulate the gradients of all sub-batches; return this process's share of loss, sum and parts."""
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
            for name, (total, parts) in terms.items():
                values["summed"] += total.detach()
                for part, value in parts.items():
                    values[f"part:{name}.{part}"] += scale[name] * value.detach()
        return dict(values)

    def _clip(self) -> torch.Tensor:
        """Clip the gradients; return their norm before clipping."""
        limit = float("inf") if self.max_grad_norm is None else self.max_grad_norm
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(self._parameters(), limit)
        return norm.detach().float()
