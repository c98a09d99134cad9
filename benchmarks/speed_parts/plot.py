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
    """Bars: speed relative to `gliner` on a log scale, with a diamond for the bare encoder."""
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(rows) + 1.2))
    places = range(len(rows))
    axes.barh(places, [row["times_faster"] - 1 for row in rows], left=1, color=OURS, height=0.6, zorder=2)
    bare = [
        (speed["encoder"] / speed["gliner"], place)
        for place, row in enumerate(rows)
        if "encoder" in (speed := row["texts_per_cpu_second"])
    ]
    axes.scatter(*zip(*bare, strict=True), marker="D", s=34, color=LIMIT, edgecolor="white", zorder=3)
    for place, row in enumerate(rows):
        number = f"{row['times_faster']:.2f}"
        axes.text(1.01, place, number, transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.axvline(1, color=LIMIT, lw=1, zorder=1)
    axes.set_xscale("log")
    ticks = [1, 1.5, 2, 3, 4, 6, 8, 12, 16]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(axis="x", color=THEIRS, lw=0.5, alpha=0.6, zorder=0)
    names = [
        f"{row['backbone']}  {row['architecture']}  {row['text']}{' 1x1' * row['one_by_one']}  {row['labels']}"
        f"  {row['precision']}"
        for row in rows
    ]
    axes.set_yticks(places, names, fontsize=8, family="monospace")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xlabel("speed relative to gliner = 1, log scale: bar gliner_pipe, diamond the bare encoder")
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
        panel.grid(color=THEIRS, lw=0.5, alpha=0.6)
        panel.set_xlabel(kind)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("CPU seconds of 1000 words")
    panels[0][0].legend(frameon=False)
    figure.tight_layout()
    return figure
