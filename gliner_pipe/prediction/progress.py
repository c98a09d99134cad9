"""Progress of a prediction over shards: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from gliner_pipe.prediction.chunks import Chunk
from gliner_pipe.util.console import show
from gliner_pipe.util.plurals import number_of

#: Seconds between two lines.
EVERY = 10.0
#: Number of bad rows, or of unreadable files, that are named on the console; all are in ``_predict/errors``.
MOST_SHOWN = 10


class Report:
    """Shows the progress of shards and the number of rows on standard error; a context manager.

    Parameters
    ----------
    weights
        Size of each shard by name, in any unit.
    quiet
        Whether to print nothing.
    """

    def __init__(self, weights: Mapping[str, float], *, quiet: bool = False) -> None:
        self.weights = dict(weights)
        self.shares = dict.fromkeys(weights, 0.0)
        self.rows = self.bad = 0
        self.quiet = quiet
        self._console = Console(stderr=True)
        self._start = self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Report:
        """Start the bar."""
        if not self.quiet and self._console.is_terminal:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.add_task("", total=1.0)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def share(self) -> float:
        """Completed fraction, from 0 to 1."""
        whole = sum(self.weights.values())
        done = sum(self.weights[name] * share for name, share in self.shares.items())
        return done / whole if whole else 1.0

    def add(self, chunk: Chunk) -> None:
        """Record a chunk of a local run, and name its bad rows."""
        for row in chunk.bad[: max(0, MOST_SHOWN - self.bad)]:
            self.say(f"no prediction: {row.where} {row.found}")
        if self.bad <= MOST_SHOWN < self.bad + len(chunk.bad):
            self.say("no prediction: more rows")
        self.bad += len(chunk.bad)
        share = 1.0 if chunk.last else min(chunk.share, 0.999)
        self.update(chunk.shard.name, share, chunk.stop - chunk.start)

    def update(self, name: str, share: float, rows: int) -> None:
        """Record the progress of a shard.

        Parameters
        ----------
        name
            Name of the shard.
        share
            Completed fraction of the shard, from 0 to 1.
        rows
            Rows completed since the last call.
        """
        self.shares[name] = share
        self.rows += rows
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.share, description=self._line())
        elif time.monotonic() - self._last_line >= EVERY:
            self.say(f"{self.share:.0%}: {self._line()}")
            self._last_line = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            show(Text(text), self._console)

    def _line(self) -> str:
        done = sum(share >= 1 for share in self.shares.values())
        speed = self.rows / max(time.monotonic() - self._start, 1e-9)
        return f"{number_of(self.rows, 'row')}, {speed:,.0f} per second, {done} of {len(self.shares)} shards complete"
