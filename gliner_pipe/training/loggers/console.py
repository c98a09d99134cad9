"""The logger ``rich``: the progress of a training on the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from gliner_pipe.evaluation.report import score_text
from gliner_pipe.evaluation.tables import NumberTable
from gliner_pipe.registry import registry
from gliner_pipe.training.loggers.base import RunInfo, flatten, shown_scores
from gliner_pipe.util.console import show
from gliner_pipe.util.ranges import Amount

#: Precision, recall and F1.
PRF = ("p", "r", "f")


@registry.loggers.register("rich")
class RichLogger:
    """Shows a bar with loss, learning rates, speed and remaining time, below a table of the validations.

    Scores are in percent. The loss is that of an example, whatever the size of the batch is.

    If the output is not a terminal (a file, a batch system), it prints plain lines instead.

    Parameters
    ----------
    fields
        Scores to show, as the ends of their names, e.g. ``["micro.f", "person.f"]``; by default ``micro.p``,
        ``micro.r`` and ``micro.f`` of the first scorer and ``micro.f`` of the others, else the first ones.
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
        self._rows: list[tuple[str, str, dict[str, str]]] = []

    def start(self, run: RunInfo) -> None:
        """Show an empty bar."""
        self._max_steps = run.max_steps
        self._printed = run.resumed_step
        self._rows = []
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            return
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("remaining"),
            console=self.console,
            expand=True,
        )
        self._progress.add_task("train", total=run.max_steps, completed=run.resumed_step)
        self._live = Live(self._progress, console=self.console, refresh_per_second=4)
        self._live.start()

    def step(self, record: Mapping[str, Any]) -> None:
        """Update the bar, or print a line every `interval` steps."""
        if self._live is not None and self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=record["step"])
            self._live.update(Group(*self._table(), self._progress, Text(_status(record))))
        elif self._is_time(record["step"]):
            show(Text(f"step {record['step']}/{self._max_steps}  {_status(record)}"), self.console)

    def validation(self, record: Mapping[str, Any]) -> None:
        """Add a row to the table, or print a line."""
        scores = self._shown(record["scores"])
        best = "*" if record.get("best") else ""
        self._rows.append((f"{record['step']}{best}", _loss(record), scores))
        if self._live is not None and self._progress is not None:
            self._live.update(Group(*self._table(), self._progress))
        else:
            line = "  ".join(" ".join([*name.split("\n"), value]) for name, value in scores.items())
            mark = "  (best so far)" if best else ""
            line = f"validation at step {record['step']}  {line or 'no validation data'}{mark}"
            show(Text(line), self.console)

    def finish(self) -> None:
        """Leave the table and the bar on the screen."""
        if self._live is not None:
            self._live.stop()
        self._live = self._progress = None

    def _is_time(self, step: int) -> bool:
        """Return whether to print a plain line; not every step may be logged."""
        before, self._printed = self._printed, step
        return step // self.interval > before // self.interval or step in (1, self._max_steps)

    def _shown(self, scores: Mapping[str, Any]) -> dict[str, str]:
        """Return the scores to show by their heads: name and score, on two lines."""
        numbers = {name: value for name, value in flatten(scores) if isinstance(value, (int, float))}
        chosen = shown_scores(numbers, self.fields)
        if self.fields is None and len(chosen) > len(PRF):  # all of the first scorer, and one of each other
            first = next(iter(chosen)).rpartition(".")[0]
            chosen = {
                name: value for name, value in chosen.items() if name.startswith(first) or name[-2:] == ".f"
            }
        return {_head(name): score_text(name, value) for name, value in chosen.items()}

    def _table(self) -> Iterator[NumberTable]:
        """Yield a table of the validations, as many as a terminal shows, if there are any."""
        if not self._rows:
            return
        heads = list(dict.fromkeys(name for _, _, scores in self._rows for name in scores))
        table = NumberTable("", "step", ["loss per\nexample", *heads])
        for step, loss, scores in self._rows[-max(4, self.console.height - 8) :]:
            table.add_row(step, loss, *(scores.get(name, "") for name in heads))
        yield table


def _head(name: str) -> str:
    """Return the head of a score: scorer and label on one line, the score itself on the next, ``P`` for ``p``."""
    words, _, last = name.removesuffix(".").rpartition(".")
    return f"{words.removesuffix('.micro')}\n{last.upper() if last in PRF else last}"


def _status(record: Mapping[str, Any]) -> str:
    rates = "  ".join(f"lr {name} {rate:.1e}" for name, rate in record["lr"].items())
    return f"loss {_loss(record)} per example  {rates}  {record['words_per_second']:,.0f} words/s"


def _loss(record: Mapping[str, Any]) -> str:
    value = record.get("loss_per_example")
    return "" if value is None else f"{value:.4g}"
