"""Records as the training loop hands them to loggers."""

from __future__ import annotations

from typing import Any


def step(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "step": number,
        "loss": 1.0 / number,
        "loss_per_example": 0.5 / number,
        "grad_norm": 2.0,
        "lr": {"transformer": 5e-5, "task": 1e-4},
        "parts": {"gliner.span": 1.0},
        "words": 100,
        "docs": 4,
        "words_per_second": 1234.5,
        **changes,
    }


def validation(number: int, f: float | None, **scores: Any) -> dict[str, Any]:
    return {
        "step": number,
        "loss": 0.5,
        "lr": {"transformer": 5e-5, "task": 1e-4},
        "words_per_second": 10.0,
        "best": True,
        "loss_per_example": 0.25,
        "scores": {"ner": {"work of art": {"f": 0.0}, "micro": {"p": 0.25, "r": 0.5, "f": f}, **scores}},
    }
