"""How long it takes to load LeNet-5 onto each board and to run images on it, over its serial port.

Simulated time: the verilated machine with its real serial port, bit by bit, at the board's clock
and speed; the driver computes in no time, the link delays every byte by `LATENCY_S` each way. Each
image's outputs are compared with the golden model.
"""

import argparse
import itertools

import numpy as np
from harness.command import main
from harness.networks import inputs, lenet5
from harness.result import Check, Result, Table

import celosia
from celosia.board import Board
from celosia.cli.progress import work
from celosia_boards.targets import targets
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.line import SimulatedLine
from celosia_spec.errors import CelosiaError

LATENCY_S = 0.001
"""Of a USB bridge that is asked to hand bytes over at once, each way."""

BUSY, LOAD_S, AT_BAUD = 0.9, 0.6, 1_000_000


def measure(arguments: argparse.Namespace) -> Result:
    """Load and run on every board."""
    images, _ = inputs(arguments.images)
    rows, checks = [], []
    names = [name for name, of in targets().items() if of.platform is not None]
    with work() as shown:
        for number, name in enumerate(names):
            shown.stage(name, number + 1, len(names))
            row, busy, seconds = _measured(lenet5(name), images)
            rows.append([name, *row])
            checks += [Check.at_least(f"{name}: line busy, {what}", figure, BUSY, ".1%")
                       for what, figure in zip(("load", "images"), busy, strict=True)]
            if targets()[name].baud == AT_BAUD:
                checks.append(Check.at_most(f"{name}: seconds to load", seconds, LOAD_S, ".3f"))
    table = Table.of(
        f"LeNet-5, pruned, {len(images)} images, dynamic exponents", {
            "board": "", "MHz": "g", "baud": ",d", "load, s": ".2f",
            "line busy, load": ".1%", "line busy, images": ".1%", "images/s, end to end": ",.1f",
            "images/s, array alone": ",.0f", "what binds": ""}, rows)
    notes = (f"Simulated time; the link delays {1000 * LATENCY_S:g} ms each way. A load is what "
             f"`celosia load` does: the stream written, its begin read back, a known answer "
             f"computed. Where layers are copied from flash, it holds their image.",)
    return Result(title="Over the serial port", tables=(table,), checks=tuple(checks), notes=notes)


def _measured(program: celosia.Program,
              images: np.ndarray) -> tuple[list[str | int | float], tuple[float, float], float]:
    """Return the row of a board, how busy its line was, and the seconds of the load."""
    busy: list[float] = []
    with VirtualBoard(program.target, program.array, image=program.image) as machine:
        line = SimulatedLine(machine, latency_s=LATENCY_S)
        board = Board(line)
        marks = [(line.sent, line.now())]
        seconds = board.load(program).seconds
        marks.append((line.sent, line.now()))
        result = board.run(images)
        marks.append((line.sent, line.now()))
        for (sent, start), (later, end) in itertools.pairwise(marks):
            busy.append(10 * (later - sent) / line.baud / (end - start))
        rate = len(images) / (marks[2][1] - marks[1][1])
        clock = machine.clock_hz
    golden = celosia.run(program, images)
    if not np.array_equal(result.mantissa, golden.mantissa):
        raise CelosiaError(f"{program.target}: outputs differ from the golden model's")
    alone = clock / program.predicted_cycles
    return ([clock / 1e6, line.baud, seconds, *busy, rate, alone,
             "link" if rate < 0.9 * alone else "array"], (busy[0], busy[1]), seconds)


if __name__ == "__main__":
    main(measure, __doc__, ("--images", {"type": int, "default": 20, "help": "images"}))
