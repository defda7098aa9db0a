"""Keyword spotting on an iCE40UP5K beside what others have published of the same chip.

MLPerf Tiny's DS-CNN with its trained weights (CELOSIA_EXPERIMENTS, see
benchmarks/harness/pictures.py) is compiled for the iCEBreaker; cells are those that
docs/results.md has of its placement. Others' figures are theirs, from the sources that are named.
"""

import argparse

import board_pages
from harness.command import main
from harness.result import Result, Table
from harness.tiny import trained
from zoo import figures

from celosia.compiler import Compiler
from celosia.zoo import NETWORKS
from celosia_boards.targets import target
from celosia_spec.errors import CelosiaError

BOARD, NETWORK = "icebreaker", "ds-cnn"

TICKS, TICK = 24_601, 1024
"""Of CFU-Playground's keyword spotting, and cycles of one."""

MACS_A_CYCLE, FMAX = 16, 25.851
"""Of MARLANN, and what placement gives on average, MHz."""

CFU = "https://github.com/google/CFU-Playground/blob/main/proj/kws_micro_accel/DESIGN.md"
PAPER = "https://arxiv.org/abs/2201.01863"
MARLANN = "https://github.com/SymbioticEDA/MARLANN/blob/master"

NOTES = (
    "**CFU-Playground** is a VexRiscv processor on a Fomu with a small accelerator behind its "
    f"instructions. Cycles and cells stand in [its design document]({CFU}): {TICKS:,} ticks of "
    f"{TICK:,} cycles after its last optimisation. The 2 s, measured on the board, stand in "
    f"[Prakash et al.]({PAPER}), section IV-B, without a clock.",
    "**MARLANN** is programmed by hand, in its own assembler. "
    f"[{MACS_A_CYCLE} products a cycle]({MARLANN}/docs/isa.md); the clock is "
    f"[the mean of 50 placements]({MARLANN}/benchmark/perf.md) by icetime. It has published "
    "neither cycles of a network nor cells: the row is what this network's products take at least, "
    f"{MACS_A_CYCLE} of them in every cycle, which no program reaches.",
    "**What differs.** CFU-Playground was measured on a board. Ours never was: cycles are the "
    "simulated gateware's, the clock nextpnr's. Its outputs are TensorFlow Lite's int8 bit for "
    "bit; ours are those of another number format, [near the float "
    "network's](#passes-for-accuracy). Its processor runs any program beside, our array networks "
    "alone. Its cycles have the softmax, ours leave it to the host. Loading an input is not among "
    "ours.",
)


def measure(arguments: argparse.Namespace) -> Result:
    """Compile DS-CNN, and set it beside."""
    entry, compiler = NETWORKS[NETWORK], Compiler(target=BOARD)
    graph = compiler.quantised(compiler.graph(trained(NETWORK), (1, *entry.shape)), None)
    cycles, milliseconds, *_ = figures(compiler.fitting(graph), BOARD)
    least = -(-entry.cost()[1] // MACS_A_CYCLE)
    own = placed()
    table = Table.of("DS-CNN, keyword spotting of MLPerf Tiny, on an iCE40UP5K", {
        "machine": "", "cycles": ",d", "MHz": ".1f", "ms": ",.2f", "logic cells": ",d",
        "block RAMs": "d", "multipliers": "d"}, [
            ["CFU-Playground, measured", TICKS * TICK, None, "about 2,000", 5241, 14, 8],
            ["MARLANN, at least", least, FMAX, least / FMAX / 1e3, None, None, None],
            ["Celosia, iCEBreaker, predicted", cycles, target(BOARD).clock_mhz, milliseconds,
             int(own["LUTs"]), int(own["block RAMs"]), int(own["multipliers"])]])
    return Result(title="Beside others", tables=(table,), notes=NOTES)


def placed() -> dict[str, str]:
    """Return what the page of results has of the board's placement; CelosiaError without it."""
    for block in board_pages.RESULTS.read_text(encoding="utf-8").split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("| ").split("|")]
                for line in block.splitlines() if line.startswith("|")]
        for row in rows[2:] if rows and "Fmax, median" in rows[0] else []:
            if row[0] == BOARD:
                return {title: cell.replace(",", "") for title, cell in
                        zip(rows[0], row, strict=True)}
    raise CelosiaError(f"{board_pages.RESULTS} has no clock of {BOARD}; run make bench-fmax and "
                       "make bench-report")


if __name__ == "__main__":
    main(measure, __doc__)
