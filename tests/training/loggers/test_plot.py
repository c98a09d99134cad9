"""The picture of a training."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from logger_records import step, validation
from matplotlib.figure import Figure
from matplotlib.image import imread

from gliner_pipe.training.loggers import JsonlLogger, PlotLogger, RunInfo
from gliner_pipe.training.loggers.plot import MAX_POINTS, smooth, thinned


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, drawn all the same."""
    drawn: list[Figure] = []
    save = Figure.savefig

    def kept(self, *args, **kwargs):
        drawn.append(self)
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", kept)
    return drawn


def lines(figure: Figure, field: int) -> dict[str, list[tuple[float, float]]]:
    """Points of the labelled curves of a field, counted from above."""
    return {
        str(line.get_label()): list(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for line in figure.axes[field].get_lines()
    }


def test_smooth() -> None:
    assert smooth([1.0, 1.0, 1.0], 0.9) == pytest.approx([1.0, 1.0, 1.0])
    assert smooth([4.0, 0.0], 0.5) == pytest.approx([4.0, 4 * 0.5 / 1.5])
    assert smooth([1.0, 5.0], 0.0) == [1.0, 5.0]
    smoothed = smooth([math.nan, 2.0, math.inf, 2.0], 0.9)
    assert math.isnan(smoothed[0]) and smoothed[1:] == pytest.approx([2.0, 2.0, 2.0])


@pytest.mark.parametrize("number", [0, 1, MAX_POINTS, MAX_POINTS + 1, 3 * MAX_POINTS + 7])
def test_thinned(number: int) -> None:
    points = [(place, 0.0) for place in range(number)]
    kept = thinned(points)
    assert len(kept) <= MAX_POINTS and len(kept) >= min(number, MAX_POINTS // 2)
    assert not points or kept[-1] == points[-1]


def test_it_is_drawn_at_every_validation_and_at_the_end(tmp_path: Path, figures: list[Figure]) -> None:
    path = tmp_path / "train_plot.png"
    logger = PlotLogger()
    logger.start(RunInfo(5, tmp_path, name="a run"))
    logger.step(step(1))
    assert not path.exists()
    logger.step(step(2))
    logger.validation(validation(2, 0.25))
    first = path.read_bytes()
    assert imread(path).shape[2] == 4
    logger.validation({**validation(4, 0.75), "best": False})
    logger.step(step(5))
    logger.finish()
    assert len(figures) == 3 and path.read_bytes() != first
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    last = figures[-1]
    assert lines(last, 0)["smoothed"][0] == (1, 1.0) and len(lines(last, 0)["smoothed"]) == 3
    assert lines(last, 1) == {
        "transformer": [(1, 5e-5), (2, 5e-5), (5, 5e-5)],
        "task": [(1, 1e-4), (2, 1e-4), (5, 1e-4)],
    }
    scores = lines(last, 2)
    assert scores["ner.micro.f"] == [(2, 0.25), (4, 0.75)]
    assert scores["best: step 2"][0][0] == 2
    assert set(scores) == {"ner.micro.p", "ner.micro.r", "ner.micro.f", "best: step 2"}
    assert "matplotlib.pyplot" not in sys.modules  # whose state a user's own program may have


def test_records_without_scores_and_with_undefined_values(tmp_path: Path, figures: list[Figure]) -> None:
    logger = PlotLogger("curve.svg")
    logger.start(RunInfo(2, tmp_path))
    logger.step(step(1, loss=math.nan))
    logger.step(step(2, loss=None))
    logger.validation({"step": 2, "loss": None, "lr": {}, "best": False, "scores": {}})
    logger.finish()
    assert len(figures[-1].axes) == 2
    assert (tmp_path / "curve.svg").read_text("utf8").lstrip().startswith("<?xml")


def test_nothing_to_draw(tmp_path: Path) -> None:
    logger = PlotLogger()
    logger.start(RunInfo(2, tmp_path))
    logger.finish()
    assert list(tmp_path.iterdir()) == []


def test_chosen_scores(tmp_path: Path, figures: list[Figure]) -> None:
    logger = PlotLogger(scores=["work of art.f"])
    logger.start(RunInfo(2, tmp_path))
    logger.validation(validation(2, 0.5))
    logger.finish()
    assert len(figures) == 1  # nothing came after the validation
    assert set(lines(figures[-1], 2)) == {"ner.work of art.f", "best: step 2"}


def test_a_resumed_training_draws_its_first_part_too(tmp_path: Path, figures: list[Figure]) -> None:
    log = JsonlLogger()
    log.start(RunInfo(6, tmp_path))
    for number in range(1, 6):
        log.step(step(number))
        log.validation(validation(number, number / 10))
    log.finish()
    logger = PlotLogger()
    logger.start(RunInfo(6, tmp_path, resumed_step=3))
    logger.step(step(4, loss=0.5))
    logger.validation({**validation(4, 0.9), "best": False})
    logger.finish()
    assert [point[0] for point in lines(figures[-1], 0)["smoothed"]] == [1, 2, 3, 4]
    assert lines(figures[-1], 2)["ner.micro.f"] == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.9)]
    assert "best: step 3" in lines(figures[-1], 2)
    assert json.loads((tmp_path / "train_log.jsonl").read_text("utf8").splitlines()[-1])["step"] == 5


@pytest.mark.parametrize(
    ("losses", "scale"), [([90.0, 20.0, 3.0], "log"), ([9.0, 5.0], "linear"), ([90.0, 0.0], "linear")]
)
def test_a_loss_over_decades_has_a_log_axis(
    tmp_path: Path, figures: list[Figure], losses: list[float], scale: str
) -> None:
    logger = PlotLogger()
    logger.start(RunInfo(len(losses), tmp_path, name="a run"))
    for number, loss in enumerate(losses, 1):
        logger.step(step(number, loss=loss))
    logger.finish()
    assert figures[-1].axes[0].get_yscale() == scale
