"""What the machine can do, and how much of it a piece of work needs at least."""

from __future__ import annotations

import time
from typing import Any

import torch

#: Products whose speed is taken for the machine's: a square one, and one of the shape of a feed-forward layer.
SHAPES = ((2048, 2048, 2048), (1024, 768, 3072))


def peak(precision: str, tries: int = 8) -> float:
    """Operations a CPU second of the fastest matrix product."""
    best = 0.0
    for m, k, n in SHAPES:
        run = _product(precision, m, k, n)
        run()
        for _ in range(tries):
            start = time.process_time()
            run()
            best = max(best, 2 * m * k * n / max(time.process_time() - start, 1e-9))
    return best


def _product(precision: str, m: int, k: int, n: int) -> Any:
    if precision == "int8":
        a = torch.randint(-128, 127, (m, k), dtype=torch.int8)
        b = torch.randint(-128, 127, (k, n), dtype=torch.int8)
        return lambda: torch._int_mm(a, b)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = torch.randn(m, k, dtype=dtype), torch.randn(k, n, dtype=dtype)
    return lambda: a @ b


def encoder_operations(config: Any, lengths: list[int]) -> float:
    """Operations of an encoder over rows of `lengths` pieces, none padded: linear layers and plain attention."""
    size, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    gated = 3 if config.model_type == "modernbert" else 2
    linear = 2 * (4 * size * size + gated * size * inner)
    return float(sum(layers * (length * linear + 4 * length * length * size) for length in lengths))


def head_operations(
    architecture: str, size: int, words: int, labels: int, rows: int, widths: int = 12
) -> float:
    """Operations of what stands on the encoder, in its factored form: LSTM, label projection, span or word scorer."""
    lstm = 0 if architecture.startswith("bi") else 24 * size * size * words
    reading = rows if architecture.startswith("uni") else 1  # rows whose labels have vectors of their own
    if architecture.endswith("span"):
        per_label = 16 * size * size + 8 * size * size
        return float(
            lstm + words * (48 * size**2 + 8 * size * labels * widths) + reading * labels * per_label
        )
    per_word = 4 * size * size + 8 * size * size
    per_pair = 8 * size * size + 24 * size
    return float(lstm + words * (per_word + labels * per_pair) + reading * labels * per_word)
