"""Tables that fit where they are printed: a name or a figure is never cut."""

import math
import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH = 80
"""Columns of a table off a terminal, where COLUMNS does not say otherwise."""

_NAME = 16
"""Characters of a name that stay on one line before a column of less importance is left out."""

_NARROW = 6
"""Characters of a name that stay on one line before figures are wrapped too."""


@dataclass
class Table:
    """A table that is laid out when it is printed.

    title    : above it.   columns : headings.   words : how many of the first columns hold words.
    optional : headings of columns that may be left out where room is short, the first to go first.
    rows     : cells of each row.   sections : numbers of the rows that a line stands above.

    Headings are wrapped first, then optional columns are left out and named below the table, then
    names go on over the next lines. A column with nothing in it is not printed.
    """

    title: str
    columns: tuple[str, ...]
    words: int = 1
    optional: tuple[str, ...] = ()
    rows: list[tuple[str, ...]] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)

    def add_row(self, *cells: str) -> None:
        """Add a row; ValueError unless there is a cell for each column."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells in a row of {len(self.columns)} columns")
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draw a line below the rows so far."""
        self.sections.append(len(self.rows))

    def fits(self, width: int) -> bool:
        """Tell whether all columns stand on lines of ``width``, no figure or short name wrapped."""
        kept = self.filled()
        return self._frame(kept) + sum(self._least(at) for at in kept) <= width

    def layout(self, width: int) -> list[tuple[int, int]]:
        """Return number and width of the columns that are printed on lines of ``width``."""
        kept = self.filled()
        for name in self.optional:
            if self._frame(kept) + sum(self._least(at) for at in kept) <= width:
                break
            kept = [at for at in kept if self.columns[at] != name]
        widths = {at: self._least(at) for at in kept}
        spare = width - self._frame(kept) - sum(widths.values())
        for at in kept:                             # names are first: they gain from it most
            more = min(max(spare, 0), self._natural(at) - widths[at])
            widths[at], spare = widths[at] + more, spare - more
        while spare < 0:
            names = [at for at in kept if at < self.words and widths[at] > _NARROW]
            widest = max(names or kept, key=lambda at: widths[at])
            if widths[widest] == 1:
                break
            widths[widest], spare = widths[widest] - 1, spare + 1
        return [(at, widths[at]) for at in kept]

    def text(self, width: int) -> str:
        """Return the table on lines of at most ``width`` characters."""
        from rich.console import Console
        from rich.table import Table as Drawn

        laid = self.layout(width)
        drawn = Drawn(title=self.title, title_justify="left")
        for at, size in laid:
            drawn.add_column(self.columns[at], justify="left" if at < self.words else "right",
                             width=size, overflow="fold")
        for number, row in enumerate(self.rows):
            if number in self.sections:
                drawn.add_section()
            drawn.add_row(*(row[at] for at, _ in laid))
        # What stands in it is printed as it is: a layer may be called ``[/b]`` or ``:key:``.
        console = Console(width=width, markup=False, emoji=False, highlight=False)
        with console.capture() as printed:
            console.print(drawn)
        out = [self.columns[at] for at in self.filled() if at not in dict(laid)]
        note = f"(no room for: {', '.join(out)}; --json has all)\n" if out else ""
        return printed.get() + note

    def filled(self) -> list[int]:
        """Numbers of the columns that have something in them; the first is always among them."""
        return [at for at in range(len(self.columns))
                if at == 0 or not self.rows or any(row[at] for row in self.rows)]

    def _frame(self, kept: Sequence[int]) -> int:
        """Characters of a line that the borders of so many columns take."""
        return 3 * len(kept) + 1

    def _widest(self, at: int) -> int:
        """Width of a column's widest cell."""
        return max((_cells(line) for row in self.rows for line in row[at].split("\n")), default=0)

    def _natural(self, at: int) -> int:
        """Width at which nothing in a column is wrapped."""
        return max(_cells(self.columns[at]), self._widest(at))

    def _least(self, at: int) -> int:
        """Width at which headings and words are wrapped where they may be, and long names."""
        cells = self._widest(at)
        if 0 < at < self.words:
            cells = max((_cells(word) for row in self.rows for word in row[at].split()), default=1)
        heading = max((_cells(word) for word in self.columns[at].split()), default=1)
        return max(heading, min(cells, _NAME) if at < self.words else cells, 1)


def _cells(text: str) -> int:
    """Return the characters of a line that a text takes; some letters take two."""
    from rich.cells import cell_len

    return cell_len(text)


def table(title: str, *columns: str, words: int = 1, optional: Sequence[str] = ()) -> Table:
    """Return an empty table whose first ``words`` columns hold words and the others figures.

    optional : headings of the columns that may be left out, the least important first.
    """
    return Table(title, columns, words, tuple(optional))


def show(shown: Table) -> None:
    """Print a table on stdout, as wide as the terminal; off a terminal COLUMNS or 80 wide."""
    print(shown.text(width()), end="")      # a Console would end the process at a closed pipe


def width() -> int:
    """Return the characters of a line: COLUMNS, else those of the terminal, else `WIDTH`."""
    return shutil.get_terminal_size((WIDTH, 24)).columns


def decibels(ratio: float | None) -> str:
    """Return a ratio of signal to noise, dB, for a table; "" of None."""
    if ratio is None:
        return ""
    return f"{ratio:.1f}" if math.isfinite(ratio) else "no noise" if ratio > 0 else "no signal"


def finite(value: float) -> float | None:
    """Return a number as JSON can have it: None where it is infinite."""
    return value if math.isfinite(value) else None


def wrapped(text: str, indent: str = "") -> str:
    """Return a sentence on lines of the terminal's width; those after the first are indented."""
    return textwrap.fill(text, max(width(), 20), subsequent_indent=indent,
                         break_on_hyphens=False)


__all__ = ["Table", "decibels", "finite", "show", "table", "width", "wrapped"]
