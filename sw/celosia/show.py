"""A program in three lines, and as a notebook shows it."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from celosia_spec.host_layers import host_remark
from celosia_spec.program import Compiled

_BAR = ("background:#eee;width:16em;display:inline-block",
        "background:#3f5fa8;height:0.9em;display:block;width:{share:.0%}")


class Rate(NamedTuple):
    """What a number of cycles is at a clock.

    milliseconds : of one inference, the loading of its input not counted.
    per_second   : inferences a second, likewise.
    """

    milliseconds: float
    per_second: float


def rate(cycles: int, clock_mhz: float) -> Rate:
    """Return milliseconds and inferences a second of ``cycles`` (at least 1) at a clock in MHz."""
    return Rate(cycles / (clock_mhz * 1e3), clock_mhz * 1e6 / cycles)


def count(number: int, one: str, more: str | None = None) -> str:
    """Return a number of things."""
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def span(numbers: Sequence[int]) -> str:
    """Return from where to where numbers go."""
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def figure(number: float) -> str:
    """Return a positive number with three significant digits, or all before the point."""
    digits = 2 - math.floor(math.log10(number))
    return f"{number:,.{max(digits, 0)}f}"


def speed(cycles: int, clock_mhz: float) -> str:
    """Return what a number of cycles is at a clock in MHz, in words."""
    found = rate(cycles, clock_mhz)
    return (f"{figure(found.milliseconds)} ms, {figure(found.per_second)} inferences a second at "
            f"{clock_mhz:g} MHz")


def clock_of(program: Compiled) -> float:
    """Return the clock of the program's target, MHz."""
    from celosia_boards.targets import target

    return target(program.target).clock_mhz


def text(program: Compiled) -> str:
    """Return what it is, how fast it is and what it fills, a line each."""
    return "\n".join((_what(program), _speed(program), _space(program)))


def html(program: Compiled) -> str:
    """Return the three lines, the layers' table and a bar for each memory, as HTML."""
    lines = "<br>".join(escape(line) for line in text(program).splitlines())
    head = "".join(f"<th>{name}</th>" for name in
                   ("layer", "kind", "weights", "density", "cycles", "utilisation"))
    rows = "".join(
        f"<tr><td>{escape(layer.name)}</td><td>{escape(layer.kind)}</td>"
        f"<td>{layer.nonzeros:,}</td><td>{layer.nonzeros / layer.weights:.1%}</td>"
        f"<td>{layer.predicted_cycles:,}</td>"
        f"<td>{layer.macs / (program.lanes * layer.predicted_cycles):.1%}</td></tr>"
        for layer in program.layers)
    bars = "".join(
        f"<tr><td>{use.name}</td><td><span style='{_BAR[0]}'>"
        f"<span style='{_BAR[1].format(share=use.used / use.available)}'></span></span>"
        f"</td><td>{use.used:,} of {use.available:,}</td></tr>"
        for use in program.memory_use if use.available)
    return (f"<p>{lines}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<table><tbody>{bars}</tbody></table>")


def _what(program: Compiled) -> str:
    stored = sum(layer.nonzeros for layer in program.layers)
    weights = sum(layer.weights for layer in program.layers)
    count = len(program.layers)
    return (f"{count} layer{'s' * (count != 1)} for {program.target}, {program.lanes} lanes, "
            f"{program.exponents} exponents; {stored:,} of {weights:,} weights "
            f"({stored / weights:.1%})")


def _speed(program: Compiled) -> str:
    cycles = program.predicted_cycles
    bound = sum(layer.bound_cycles for layer in program.layers)
    return (f"{cycles:,} cycles ({cycles / bound:.2f} times the bound): "
            f"{speed(cycles, clock_of(program))}")


def _space(program: Compiled) -> str:
    held = sum(layer.weight_bytes for layer in program.layers)
    host = f"; {host_remark(program.host_layers)}" if program.host_layers else ""
    return (f"weights and their places {held / 1024:.1f} KiB; fullest: "
            f"{program.fullest}{host}")
