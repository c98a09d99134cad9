"""The logger ``plot``: a plot of loss, learning rates and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, need_package, numbers, shown_scores
from gliner_pipe.training.loggers.files import read_log
from gliner_pipe.util.atomic import replace_file
from gliner_pipe.util.ranges import Rate

#: Maximum number of points of a curve.
MAX_POINTS = 2000

Curves = dict[str, list[tuple[int, float]]]


@registry.loggers.register("plot")
class PlotLogger:
    """Draws ``train_plot.png`` beside the models, again at every validation and at the end.

    It has three panels: the loss (pale, and dark when smoothed), the learning rates, and the micro-averaged
    precision, recall and F1 of each scorer, with a line at the best step. A resumed training also draws the
    earlier steps in ``train_log.jsonl``. Needs the extra ``plot``.

    Parameters
    ----------
    file_name
        Name of the file; its ending is the format (``png``, ``svg``, ``pdf``).
    scores
        Scores to draw, as the ends of their names, e.g. ``["person.f"]``; by default those that end in
        ``micro.p``, ``micro.r`` and ``micro.f``, else the first ones.
    smoothing
        Weight of earlier steps in the smoothed loss, from 0 (none) to below 1.
    log_file
        Log file beside the models that a resumed training reads.
    """

    def __init__(
        self,
        file_name: str = "train_plot.png",
        scores: list[str] | None = None,
        smoothing: Rate = 0.9,
        log_file: str = "train_log.jsonl",
    ) -> None:
        self.file_name = file_name
        self.scores = scores
        self.smoothing = smoothing
        self.log_file = log_file
        self._path: Path | None = None
        self._title = ""
        self._clear()

    def check(self) -> None:
        """Raise a ConfigError if matplotlib is missing."""
        need_package("train.loggers.plot", "matplotlib", "plot")

    def start(self, run: RunInfo) -> None:
        """Start a new plot, or continue that of the resumed training."""
        self.check()
        self._clear()
        self._path = run.folder / self.file_name
        self._title = run.name or ""
        if run.resumed_step:
            for record in read_log(run.folder / self.log_file):
                if record.get("step", 0) <= run.resumed_step:
                    takes = {"step": self.step, "validation": self._take_scores}
                    takes.get(str(record.get("type")), lambda record: None)(record)

    def step(self, record: Mapping[str, Any]) -> None:
        """Add loss and learning rates."""
        step, self._is_new = int(record["step"]), True
        if record.get("loss") is not None:
            self._loss.append((step, float(record["loss"])))
        for name, rate in record.get("lr", {}).items():
            self._rates.setdefault(name, []).append((step, float(rate)))

    def validation(self, record: Mapping[str, Any]) -> None:
        """Add the scores and draw."""
        self._take_scores(record)
        self._draw()

    def finish(self) -> None:
        """Draw the steps after the last validation."""
        if self._is_new:
            self._draw()
        self._path = None

    def _clear(self) -> None:
        self._loss: list[tuple[int, float]] = []
        self._rates: Curves = {}
        self._found: Curves = {}
        self._best: int | None = None
        self._is_new = False

    def _take_scores(self, record: Mapping[str, Any]) -> None:
        step, self._is_new = int(record["step"]), True
        for name, value in numbers(record.get("scores", {})).items():
            self._found.setdefault(name, []).append((step, float(value)))
        if record.get("best"):
            self._best = step

    def _draw(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        if self._path is None:
            return
        self._is_new = False
        shown = shown_scores(self._found, self.scores)
        figure = Figure(figsize=(8, 9 if shown else 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(3 if shown else 2, 1, sharex=True, squeeze=False)[:, 0]
        if self._title:
            figure.suptitle(self._title)
        _draw_loss(axes[0], self._loss, self.smoothing)
        _draw_curves(axes[1], self._rates, "learning rate")
        if shown:
            _draw_curves(axes[2], shown, "score", marker="o", markersize=3)
            if self._best is not None:
                axes[2].axvline(
                    self._best, color="black", linestyle="--", linewidth=1, label=f"best: step {self._best}"
                )
            axes[2].legend(fontsize="small")
        axes[-1].set_xlabel("step")
        with replace_file(self._path) as sibling:
            figure.savefig(sibling, dpi=100, format=self._path.suffix.lstrip(".") or "png")


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Return the running mean of numbers; a number `n` places back has the weight ``weight ** n``.

    Values that are not finite do not change the mean.
    """
    smoothed: list[float] = []
    total = norm = 0.0
    for value in values:
        if math.isfinite(value):
            total, norm = weight * total + value, weight * norm + 1
        smoothed.append(total / norm if norm else math.nan)
    return smoothed


def thinned(points: Sequence[tuple[int, float]]) -> Sequence[tuple[int, float]]:
    """Return at most `MAX_POINTS` of the points, including the last one."""
    stride = -(-len(points) // MAX_POINTS)
    return points if stride <= 1 else points[(len(points) - 1) % stride :: stride]


def _draw_loss(axis: Any, loss: Sequence[tuple[int, float]], weight: float) -> None:
    smoothed = smooth([value for _, value in loss], weight)
    dark = [(step, value) for (step, _), value in zip(loss, smoothed, strict=True)]
    for points, style in ((loss, {"alpha": 0.3}), (dark, {"label": "smoothed"})):
        if points:
            axis.plot(*zip(*thinned(points), strict=True), color="tab:blue", linewidth=1, **style)
    values = [value for _, value in loss if math.isfinite(value)]
    if values and 0 < 10 * min(values) < max(values):
        axis.set_yscale("log")  # so that a small loss stays readable
    axis.set_ylabel("loss")
    axis.grid(alpha=0.3)


def _draw_curves(
    axis: Any, curves: Mapping[str, Sequence[tuple[int, float]]], name: str, **style: Any
) -> None:
    for label, points in curves.items():
        axis.plot(*zip(*thinned(points), strict=True), label=label, linewidth=1, **style)
    axis.set_ylabel(name)
    axis.grid(alpha=0.3)
    if curves:
        axis.legend(fontsize="small")
