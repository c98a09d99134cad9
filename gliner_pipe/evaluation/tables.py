"""Tables of numbers that stay readable in a narrow terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from rich.box import Box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

#: Lines below the head and between sections, and none between columns.
LINES = Box("    \n    \n ── \n    \n ── \n ── \n    \n    \n")


class NumberTable:
    r"""A column of names and columns of numbers, none of which is ever cut.

    Columns that do not fit into the width of the console follow below, beside the names again.

    Parameters
    ----------
    title
        Line above the table.
    first
        Head of the names.
    columns
        Heads of the numbers. Those of two lines with the same first line, such as ``"exact\nP"`` and ``"exact\nR"``,
        stay together and show it once.
    caption
        Line below the table.
    """

    def __init__(self, title: str, first: str, columns: Sequence[str], *, caption: str | None = None) -> None:
        self.title, self.first, self.columns, self.caption = title, first, list(columns), caption
        self.rows: list[tuple[Text, list[Text], str, bool]] = []

    def add_row(self, name: str, *cells: str | Text, style: str = "", end_section: bool = False) -> None:
        """Add a row; a line follows it at the end of a section."""
        texts = [cell if isinstance(cell, Text) else Text(cell) for cell in cells]
        self.rows.append((Text(name), texts, style, end_section))

    def add_section(self) -> None:
        """End a section after the last row."""
        if self.rows:
            self.rows[-1] = (*self.rows[-1][:3], True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Yield a table for as many columns as fit, and then for the others."""
        if self.title:
            yield Text(f"\n{self.title}", style="italic")
        width = options.max_width
        roomy = self._table(range(len(self.columns)), width, gap=1)
        if self._width(console, options, roomy) <= width:
            yield roomy
        else:
            yield from self._parts(console, options)
        if self.caption:
            yield Text(self.caption, style="dim")

    def _parts(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        chosen: list[int] = []
        for _, some in groupby(range(len(self.columns)), key=self._group):
            group = list(some)
            together = self._table([*chosen, *group], options.max_width)
            if chosen and self._width(console, options, together) > options.max_width:
                yield self._table(chosen, options.max_width)
                yield Text()
                chosen = []
            chosen += group
        yield self._table(chosen, options.max_width)

    def _group(self, place: int) -> str | int:
        """Return the first line of a head of two lines, and else what no other column has."""
        words, two, _ = self.columns[place].partition("\n")
        return words if two else place

    def _width(self, console: Console, options: ConsoleOptions, table: Table) -> int:
        return Measurement.get(console, options.update(width=10_000), table).maximum

    def _table(self, places: Sequence[int], width: int, gap: int = 0) -> Table:
        heads = [self.columns[place] for place in places]
        for at in range(len(places) - 1, 0, -1):
            if self._group(places[at]) == self._group(places[at - 1]):
                heads[at] = heads[at].partition("\n")[2]
        table = Table(box=LINES, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        lines = max((head.count("\n") for head in heads), default=0)
        for head in (self.first, *heads):
            head = "\n" * (lines - head.count("\n")) + head
            if len(table.columns):
                table.add_column(Text(head), justify="right", no_wrap=True)
            else:
                table.add_column(Text(head), max_width=max(16, width // 3), overflow="fold")
        for name, cells, style, end in self.rows:
            table.add_row(name, *(cells[place] for place in places), style=style, end_section=end)
        return table
