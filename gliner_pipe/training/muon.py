"""The optimizer Muon: orthogonal updates for matrices, AdamW for everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

#: Coefficients of the Newton-Schulz iteration: they raise small singular values fast, to between 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.775, 2.0315)
#: Root mean square of an update, as a multiple of the learning rate: about that of AdamW.
UPDATE_SIZE = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for matrices, and AdamW for everything else: vectors, embeddings and tensors of more than two axes.

    Parameters
    ----------
    groups
        Parameter groups with ``lr`` and ``weight_decay``, for matrices and all others alike.
    excluded
        Ids of matrices that AdamW updates, such as embeddings, whose rows are looked up one by one.
    momentum
        Decay of the running mean of the gradient of a matrix.
    betas, eps
        Those of AdamW.

    Notes
    -----
    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); updates have the size of
    those of AdamW (Liu et al., "Muon is Scalable for LLM Training", 2025), so that its learning rates can be kept.
    """

    def __init__(
        self,
        groups: Sequence[dict[str, Any]],
        excluded: Collection[int] = (),
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        matrices: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for group in groups:
            for wanted, chosen in ((True, matrices), (False, others)):
                params = [p for p in group["params"] if (p.ndim == 2 and id(p) not in excluded) == wanted]
                if params:
                    chosen.append({**group, "params": params})
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(_Orthogonal(matrices, momentum))
        if others:
            self._parts.append(_adamw(others, betas, eps))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let both parts work on the groups and the state of this optimizer."""
        start = 0
        for part in self._parts:
            stop = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:stop], self.state
            start = stop

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        self._share()


class _Orthogonal(torch.optim.Optimizer):
    """The part for matrices."""

    def __init__(self, groups: Sequence[dict[str, Any]], momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all matrices."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].lerp_(weight.grad, 1 - momentum)
                update = orthogonal(weight.grad.lerp(mean, momentum))
                size = UPDATE_SIZE * math.sqrt(max(weight.shape))
                weight.mul_(1 - lr * group["weight_decay"]).add_(update, alpha=-lr * size)


def _adamw(groups: list[dict[str, Any]], betas: tuple[float, float], eps: float) -> torch.optim.Optimizer:
    try:
        return torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True)
    except RuntimeError:  # no fused kernel for these devices or types
        return torch.optim.AdamW(groups, betas=betas, eps=eps)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return `matrix` with all its singular values about 1, ``(rows, columns)``, by a Newton-Schulz iteration.

    In bfloat16 where the device multiplies such matrices at full speed.
    """
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide.to(_dtype(matrix))
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide is matrix else x.T).to(matrix.dtype)


def _dtype(matrix: Tensor) -> torch.dtype:
    if matrix.is_cpu:
        fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    else:
        fast = matrix.is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast else torch.float32
