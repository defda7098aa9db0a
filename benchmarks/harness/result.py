"""A benchmark's outcome: tables and checks, in a form that a terminal, a JSON file and a page of
the documentation are made from. Figures are kept as numbers; their form is told by the column.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from celosia_spec.errors import CelosiaError, CompileError

__all__ = ["Cell", "Check", "Column", "Result", "Table", "unplaced"]

Cell = str | int | float | None


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column: its heading, and the format specification of its figures ("" for words)."""

    title: str
    form: str = ""

    def show(self, cell: Cell) -> str:
        """Return the cell as text; a dash where there is no figure."""
        if cell is None:
            return "–"
        return cell if isinstance(cell, str) else format(cell, self.form)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells, as many in each as there are columns."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @classmethod
    def of(cls, title: str, columns: dict[str, str], rows: Sequence[Sequence[Cell]]) -> Self:
        """Return a table; ``columns`` maps each heading to its format specification.

        ValueError where a row has another number of cells than there are columns.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"table {title!r}: {len(row)} cells in a row of {len(columns)} "
                                 f"columns: {row}")
        return cls(title=title, rows=tuple(tuple(row) for row in rows),
                   columns=tuple(Column(title=name, form=form) for name, form in columns.items()))


@dataclass(frozen=True, kw_only=True)
class Check:
    """One requirement.   figure, wanted : what was measured and what is asked for, as text."""

    what: str
    figure: str
    wanted: str
    met: bool

    @classmethod
    def at_least(cls, what: str, figure: float, bound: float, form: str) -> Self:
        """Require ``figure >= bound``; ``form`` is the format specification of both."""
        return cls(what=what, figure=format(figure, form), wanted=f"at least {bound:{form}}",
                   met=bool(figure >= bound))

    @classmethod
    def at_most(cls, what: str, figure: float, bound: float, form: str) -> Self:
        """Require ``figure <= bound``; ``form`` is the format specification of both."""
        return cls(what=what, figure=format(figure, form), wanted=f"at most {bound:{form}}",
                   met=bool(figure <= bound))

    @classmethod
    def equal(cls, what: str, figure: int, wanted: int) -> Self:
        return cls(what=what, figure=f"{figure:,}", wanted=f"{wanted:,}", met=figure == wanted)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark found.   notes : sentences that a reader of the tables needs."""

    title: str
    tables: tuple[Table, ...]
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def met(self) -> bool:
        return all(check.met for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the result that `to_json` gave; KeyError or TypeError for another thing."""
        tables = tuple(
            Table(title=table["title"], columns=tuple(Column(**c) for c in table["columns"]),
                  rows=tuple(tuple(row) for row in table["rows"]))
            for table in values["tables"])
        return cls(title=values["title"], tables=tables, notes=tuple(values["notes"]),
                   checks=tuple(Check(**check) for check in values["checks"]))


def unplaced(refusal: CelosiaError) -> str:
    """Return a refusal's words without the line of the network's source that it ends in."""
    return str(refusal.at(None) if isinstance(refusal, CompileError) else refusal)
