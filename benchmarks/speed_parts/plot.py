"""The table and the growth as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS, THEIRS, LIMIT = "#0b6e4f", "#b0b7bf", "#1f2933"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write a PNG of a report."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure = _growth(plt, report["growth"]) if "growth" in report else _cases(plt, report["cases"])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def _cases(plt: Any, rows: list[dict[str, Any]]) -> Any:
    """Bars: how many times as fast as `gliner`, a mark for the bare encoder."""
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(rows) + 1.2))
    for place, row in enumerate(rows):
        speed = row["texts_per_cpu_second"]
        axes.barh(place, row["times_faster"], color=OURS, height=0.7, zorder=2)
        axes.text(
            row["times_faster"] - 0.06,
            place,
            f"{row['times_faster']:.2f}",
            va="center",
            ha="right",
            fontsize=8,
            color="white",
        )
        if "encoder" in speed:
            axes.plot(
                [speed["encoder"] / speed["gliner"]] * 2,
                [place - 0.4, place + 0.4],
                color=LIMIT,
                lw=2,
                zorder=3,
            )
    axes.axvline(1, color=THEIRS, lw=2, zorder=1)
    names = [
        f"{row['backbone']}  {row['architecture']}  {row['text']}{' 1x1' * row['one_by_one']}  {row['labels']}"
        f"  {row['precision']}"
        for row in rows
    ]
    axes.set_yticks(range(len(rows)), names, fontsize=8, family="monospace")
    axes.invert_yaxis()
    axes.set_xlabel("times as fast as gliner (bar); the bare encoder without padding (mark)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _growth(plt: Any, rows: list[dict[str, Any]]) -> Any:
    """A panel for each quantity that grows."""
    kinds = list(dict.fromkeys(row["by"] for row in rows))
    figure, panels = plt.subplots(1, len(kinds), figsize=(3.6 * len(kinds), 3.2), squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for side, color in (("gliner", THEIRS), ("gliner_pipe", OURS)):
            points = [
                (row["at"], row["cpu_seconds_per_1000_words"][side])
                for row in rows
                if row["by"] == kind and side in row["cpu_seconds_per_1000_words"]
            ]
            panel.plot(*zip(*points, strict=True), marker="o", color=color, label=side)
        panel.set_xscale("log")
        panel.set_ylim(bottom=0)
        panel.set_xlabel(kind)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("CPU seconds of 1000 words")
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    return figure
