"""How far a prediction over shards is: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

#: Seconds between two lines.
EVERY = 10.0


class Report:
    """Shows shares of shards and numbers of rows; used in a ``with``.

    Parameters
    ----------
    weights
        How large each shard is, by name, in any unit.
    stream
        Where to write; standard error when not given.
    quiet
        Whether to write nothing.
    """

    def __init__(
        self, weights: Mapping[str, float], stream: TextIO | None = None, *, quiet: bool = False
    ) -> None:
        self.weights = dict(weights)
        self.shares = dict.fromkeys(weights, 0.0)
        self.rows = 0
        self.quiet = quiet
        self._console = Console(
            file=sys.stderr if stream is None else stream, soft_wrap=True, highlight=False, markup=False
        )
        self._start = self._told = time.monotonic()
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
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        whole = sum(self.weights.values())
        return (
            sum(self.weights[name] * share for name, share in self.shares.items()) / whole if whole else 1.0
        )

    def update(self, name: str, share: float, rows: int) -> None:
        """Take note of more rows of a shard.

        Parameters
        ----------
        name
            Of the shard.
        share
            How much of it is done, from 0 to 1.
        rows
            Rows that have been done since the last call.
        """
        self.shares[name] = share
        self.rows += rows
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self.share, description=self._line())
        elif time.monotonic() - self._told >= EVERY:
            self.say(f"{self.share:.0%}: {self._line()}")
            self._told = time.monotonic()

    def say(self, text: str) -> None:
        """Write a line."""
        if not self.quiet:
            self._console.print(text)

    def _line(self) -> str:
        done = sum(share >= 1 for share in self.shares.values())
        speed = self.rows / max(time.monotonic() - self._start, 1e-9)
        return f"{self.rows:,} rows, {speed:,.0f} a second, {done} of {len(self.shares)} shards whole"
