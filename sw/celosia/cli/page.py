"""Tables and plots as an HTML page that needs nothing else."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from celosia.cli.tables import Table
from celosia_spec.files import check_output, replacing

__all__ = ["bars", "check_page", "points", "sentence", "table_html", "write_page"]

_STYLE = """body{font:15px/1.5 sans-serif;margin:2em auto;max-width:60em;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;text-align:right}
th{border-bottom:2px solid #3f5fa8;vertical-align:bottom}td{border-bottom:1px solid #ddd}
.word{text-align:left}caption{text-align:left;font-weight:bold;padding:.4em 0}
svg{display:block;margin:1.5em 0;max-width:100%}svg text{font:12px sans-serif;fill:#222}"""
_WORD = ' class="word"'
_BLUE, _RED, _GREY = "#3f5fa8", "#b03a2e", "#bbb"
_WIDTH, _NAMES, _ROW, _HEIGHT, _EDGE = 760, 180, 22, 360, 56


def check_page(path: Path | None, *others: Path) -> None:
    """CelosiaError unless a page may be written to ``path``, which is none of ``others``."""
    if path is not None:
        check_output(path, *others)


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a page of parts in HTML; CelosiaError where it cannot be written."""
    head = (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            f"<title>{escape(title)}</title><style>{_STYLE}</style></head>")
    with replacing(path) as file:
        file.write("\n".join((head, f"<body><h1>{escape(title)}</h1>", *parts,
                              "</body></html>\n")).encode())


def sentence(words: str) -> str:
    """Return a paragraph."""
    return f"<p>{escape(words)}</p>"


def table_html(table: Table) -> str:
    """Return a table with all columns that have something in them."""
    kept = table.filled()

    def row(kind: str, cells: Sequence[str]) -> str:
        return "<tr>" + "".join(
            f"<{kind}{_WORD if at < table.words else ''}>{escape(cells[at])}</{kind}>"
            for at in kept) + "</tr>"

    return (f"<table><caption>{escape(table.title)}</caption><thead>{row('th', table.columns)}"
            f"</thead><tbody>{''.join(row('td', cells) for cells in table.rows)}</tbody></table>")


def bars(what: str, values: Sequence[tuple[str, float]], marked: str | None = None) -> str:
    """Return a bar for each name, as long as its value.

    what : of the values, with their unit.   values : names, and numbers that are drawn from 0 on;
    an infinite or negative one has no bar.   marked : a name whose bar is red.
    """
    most = max((value for _, value in values if 0 < value < math.inf), default=1.0)
    drawn = []
    for at, (name, value) in enumerate(values):
        y = _ROW * (at + 1)
        length = (_WIDTH - _NAMES - 60) * value / most if 0 < value < math.inf else 0
        drawn.append(
            f'<text x="{_NAMES - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_NAMES}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" '
            f'fill="{_RED if name == marked else _BLUE}"/>'
            f'<text x="{_NAMES + length + 6:.1f}" y="{y + 15}">{_told(value)}</text>')
    return _drawing(_ROW * (len(values) + 1) + 4,
                    f'<text x="{_NAMES}" y="15">{escape(what)}</text>', *drawn)


def points(across: str, up: str, values: Sequence[tuple[str, float, float]]) -> str:
    """Return a plot of named points.

    across, up : what the axes have, with their units.   values : names, and finite numbers.
    """
    low_x, high_x = _range([x for _, x, _ in values])
    low_y, high_y = _range([y for _, _, y in values])

    def place(x: float, y: float) -> tuple[float, float]:
        return (_EDGE + (x - low_x) / (high_x - low_x) * (_WIDTH - 2 * _EDGE),
                _HEIGHT - _EDGE - (y - low_y) / (high_y - low_y) * (_HEIGHT - 2 * _EDGE))

    left, bottom = place(low_x, low_y)
    right, top = place(high_x, high_y)
    drawn = [f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="{_GREY}"/>',
             f'<text x="{right}" y="{bottom + 40}" text-anchor="end">{escape(across)}</text>',
             f'<text x="{left}" y="{top - 14}">{escape(up)}</text>']
    for number in (low_x, high_x):
        drawn.append(f'<text x="{place(number, low_y)[0]}" y="{bottom + 18}" '
                     f'text-anchor="middle">{_told(number)}</text>')
    for number in (low_y, high_y):
        drawn.append(f'<text x="{left - 8}" y="{place(low_x, number)[1] + 4}" '
                     f'text-anchor="end">{_told(number)}</text>')
    for at, (name, *numbers) in enumerate(values):
        x, y = place(*numbers)
        # Neighbours are often alike: their names stand on either side.
        beside = ('end', x - 7) if at % 2 else ('start', x + 7)
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{_BLUE}"/>'
                     f'<text x="{beside[1]:.1f}" y="{y + 4:.1f}" text-anchor="{beside[0]}">'
                     f"{escape(name)}</text>")
    return _drawing(_HEIGHT, *drawn)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Return numbers of two digits, apart, around all values."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(max(high - low, abs(high) / 1000, 1e-9)))
    return math.floor(low / step) * step, (math.floor(high / step) + 1) * step


def _told(value: float) -> str:
    if not math.isfinite(value):
        return "no noise" if value > 0 else "no signal"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.1f}"


def _drawing(height: float, *parts: str) -> str:
    return (f'<svg viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" role="img">'
            f"{''.join(parts)}</svg>")
