"""``celosia check --bits``: a network at several widths of its mantissas."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia.cli import common
from celosia.cli.page import points, sentence, table_html, write_page
from celosia.cli.tables import Table, decibels, finite
from celosia.show import count, figure, rate
from celosia_boards.targets import target as find_target
from celosia_spec.errors import CelosiaError
from celosia_spec.isa.numbers import MANTISSA_BITS
from celosia_spec.isa.words import WEIGHT_BITS

if TYPE_CHECKING:
    from celosia.widths import Widths

ALL = "all"


def read_bits(text: str) -> list[tuple[int, int]]:
    """Return the pairs of "8/8,6/8", weights first, or every pair for "all"; CelosiaError where
    that is none."""
    if text == ALL:
        return [(weight, activation) for activation in reversed(MANTISSA_BITS)
                for weight in reversed(WEIGHT_BITS)]
    found = []
    for part in text.split(","):
        weight, slash, activation = part.strip().partition("/")
        if not (slash and weight.isdecimal() and activation.isdecimal()):
            raise CelosiaError(f"--bits {text!r}: give pairs of weight and activation bits with "
                               f"commas between, such as 8/8,6/8, or {ALL}")
        found.append((int(weight), int(activation)))
    return found


def as_json(found: "Widths") -> dict[str, Any]:
    """Return the result, ready for JSON: a ratio without noise is null."""
    return asdict(found) | {"widths": [
        asdict(width) | {"ratio": None if width.ratio is None else finite(width.ratio)}
        for width in found.widths]}


def show(title: str, found: "Widths") -> None:
    """Print a line for each width, and below what is in the way of some."""
    common.show(_table(title, found))
    for words in _below(found):
        print(common.wrapped(words, "  "))


def write(path: Path, title: str, found: "Widths") -> None:
    """Write all that is printed, and plots over cycles and bytes, to an HTML page."""
    right = found.accuracy is not None
    up = "right, %" if right else "signal to noise of the outputs, dB"
    drawn: list[list[tuple[str, float, float]]] = [[], []]
    for width in found.widths:
        height = width.ratio if width.accuracy is None else 100 * width.accuracy
        if width.cycles is None or width.weight_bytes is None or height is None or (
                not math.isfinite(height)):
            continue
        name = f"{width.weight_bits}/{width.activation_bits}"
        drawn[0].append((name, width.cycles, height))
        drawn[1].append((name, width.weight_bytes / 1024, height))
    table = _table(title, found)
    write_page(path, table.title, [
        table_html(table), *map(sentence, _below(found)),
        *(points(f"{across} (points: bits of weights / of activations)", up, values)
          for across, values in zip(("cycles an inference", "KiB of weights"), drawn, strict=True)
          if values)])


def _table(title: str, found: "Widths") -> Table:
    clock = find_target(found.target).clock_mhz
    table = common.table(f"{title}, {found.target}, {count(found.inputs, 'input')}",
                         "weights", "activations", "dB", "as in float", "right", "cycles", "ms",
                         "KiB")
    for width in found.widths:
        speed = ("", "", "")
        if width.cycles is not None and width.weight_bytes is not None:
            speed = (f"{width.cycles:,}", figure(rate(width.cycles, clock).milliseconds),
                     f"{width.weight_bytes / 1024:,.1f}")
        table.add_row(f"{width.weight_bits} bits", f"{width.activation_bits} bits",
                      decibels(width.ratio), *map(_share, (width.agreement, width.accuracy)),
                      *speed)
    return table


def _below(found: "Widths") -> Iterator[str]:
    """Return the sentences below the table."""
    if found.accuracy is not None:
        yield f"right in float: {found.accuracy:.1%}"
    yield from found.remarks
    problems: dict[str, list[str]] = {}
    for width in found.widths:
        if width.problem is not None:
            problems.setdefault(width.problem, []).append(
                f"{width.weight_bits}/{width.activation_bits}")
    for problem, bits in problems.items():
        yield f"{', '.join(bits)}: {problem}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
