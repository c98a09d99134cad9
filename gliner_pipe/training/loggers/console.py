"""The logger ``rich``: the progress of a training on the console."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, flatten, shown_scores
from gliner_pipe.util.ranges import Amount


@registry.loggers.register("rich")
class RichLogger:
    """Shows a bar with loss, learning rates, speed and remaining time, below a table of the validations.

    If the output is not a terminal (a file, a batch system), it prints plain lines instead.

    Parameters
    ----------
    fields
        Scores to show, as the ends of their names, e.g. ``["micro.f", "person.f"]``; by default those that
        end in ``micro.p``, ``micro.r`` and ``micro.f``, else the first ones.
    interval
        Steps between two plain lines.
    """

    def __init__(self, fields: list[str] | None = None, interval: Amount = 10) -> None:
        self.fields = fields
        self.interval = max(1, interval)
        self.console = Console()
        self._live: Live | None = None
        self._progress: Progress | None = None
        self._max_steps = 0
        self._printed = 0
        self._rows: list[tuple[list[str], dict[str, str]]] = []

    def start(self, run: RunInfo) -> None:
        """Show an empty bar."""
        self._max_steps = run.max_steps
        self._printed = run.resumed_step
        self._rows = []
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._progress.add_task("train", total=run.max_steps, completed=run.resumed_step, status="")
        self._live = Live(self._progress, console=self.console, refresh_per_second=4)
        self._live.start()

    def step(self, record: Mapping[str, Any]) -> None:
        """Update the bar, or print a line every `interval` steps."""
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], completed=record["step"], status=_status(record)
            )
        elif self._is_time(record["step"]):
            self.console.print(f"step {record['step']}/{self._max_steps}  {_status(record)}", soft_wrap=True)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Add a row to the table, or print a line."""
        scores = {name: f"{value:.3f}" for name, value in self._shown(record["scores"]).items()}
        best = "*" if record.get("best") else ""
        self._rows.append(([f"{record['step']}{best}", _number(record["loss"])], scores))
        if self._live is not None and self._progress is not None:
            self._live.update(Group(self._table(), self._progress))
        else:
            line = "  ".join(f"{name} {value}" for name, value in scores.items()) or "no validation data"
            mark = "  (best so far)" if best else ""
            self.console.print(f"validation at step {record['step']}  {line}{mark}", soft_wrap=True)

    def finish(self) -> None:
        """Leave the table and the bar on the screen."""
        if self._live is not None:
            self._live.stop()
        self._live = self._progress = None

    def _is_time(self, step: int) -> bool:
        """Return whether to print a plain line; not every step may be logged."""
        before, self._printed = self._printed, step
        return step // self.interval > before // self.interval or step in (1, self._max_steps)

    def _shown(self, scores: Mapping[str, Any]) -> dict[str, float]:
        numbers = {name: value for name, value in flatten(scores) if isinstance(value, (int, float))}
        return shown_scores(numbers, self.fields)

    def _table(self) -> Table:
        names = list(dict.fromkeys(name for _, scores in self._rows for name in scores))
        table = Table("step", "loss", *names, box=None)
        for head, scores in self._rows[-20:]:
            table.add_row(*head, *(scores.get(name, "") for name in names))
        return table


def _status(record: Mapping[str, Any]) -> str:
    rates = "  ".join(f"lr {name} {rate:.1e}" for name, rate in record["lr"].items())
    return f"loss {_number(record['loss'])}  {rates}  {record['words_per_second']:,.0f} words/s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
