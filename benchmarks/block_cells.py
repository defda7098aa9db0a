# amaranth: UnusedElaboratable=no
"""Cells and clock of the machine's blocks, each synthesised alone for an iCE40 target.

Cells are logic cells as nextpnr packs them, by its rules: a look-up table with the flip-flop that
alone reads it, a carry with the look-up table of the same sum. --place places each block between
registers, which are not counted. The host port is not among the blocks.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from harness.command import FOLDER, main
from harness.result import Check, Result, Table

from celosia.cli.progress import progress
from celosia_boards.families.ice40 import ICE40
from celosia_boards.stages import Job
from celosia_boards.targets import Target, target, targets
from celosia_hw.fill.engines import fill_engine
from celosia_hw.fill.finisher import Finisher
from celosia_hw.flash.reader import FlashReader
from celosia_hw.lanes.bank_rows import BankRows
from celosia_hw.lanes.masks import Masks
from celosia_hw.lanes.reading import ReadingPath
from celosia_hw.lanes.taps import Taps
from celosia_hw.lanes.tiles import Tiles
from celosia_hw.lanes.turn import Turn
from celosia_hw.memory.main_memory import MainMemory
from celosia_hw.output.beats import Beats, Lanes
from celosia_hw.output.heads import Heads
from celosia_hw.output.lane_writer import LaneWriter
from celosia_hw.output.normalise import Normalise
from celosia_hw.output.operand import Align
from celosia_hw.output.path import OUTPUT_PATHS
from celosia_hw.output.pool import LanePool, Largest, Pool
from celosia_hw.output.position import Position
from celosia_hw.output.writer import Writer
from celosia_hw.stream.control_path import ControlPath
from celosia_hw.stream.executor import Executor
from celosia_hw.stream.exponents import Exponents
from celosia_hw.stream.fetcher import Fetcher
from celosia_hw.stream.rings import ControlsRing, WeightsRing
from celosia_hw.stream.sequencer import Sequencer
from celosia_spec.isa.array import ENTRY_BITS, FLASH, Array
from celosia_spec.isa.timing import MANTISSA, SUMS

CLOCK = 48.0
"""MHz that placements are made for."""

WANTED = 52.0
"""MHz that a block alone must reach on the UP5K, so that the machine reaches `CLOCK`."""

SHARE = 0.85
"""Of the device's cells, what blocks may take at most: nextpnr needs room to route."""

KINDS = {"LUTs": "SB_LUT4", "flip-flops": "SB_DFF", "carries": "SB_CARRY", "RAMs": "SB_RAM"}
"""What is counted, by how its cells' names begin."""


def blocks(of: Target, array: Array) -> dict[str, Callable[[], Component]]:
    """Return what makes each block, by its name: a block, behind it its parts, with dots."""
    output = OUTPUT_PATHS[array.drain]
    lag = SUMS - output(array).lead()
    heads = output(array).latency + output(array).lead()
    found: dict[str, Callable[[], Component]] = {
        "reading": lambda: ReadingPath(array, of.fabric),
        "reading.taps": lambda: Taps(array),
        "reading.tiles": lambda: Tiles(array),
        "reading.bank rows": lambda: BankRows(array),
        "reading.masks": lambda: Masks(array),
        "reading.turn": lambda: Turn(array),
        "reading.sums": lambda: ReadingPath(array, of.fabric).pass_sums,
        "output": lambda: output(array, of.fabric),
        "output.heads": lambda: Heads(array, heads),
        "output.normaliser": lambda: Normalise(array.acc_bits),
        "fill": lambda: FillAndMemory(array, of.main_memory),
        "fill.engine": lambda: fill_engine(array),
        "fill.columns": lambda: fill_engine(array).columns,
        "fill.finisher": lambda: Finisher(array.activation_bits),
        "fill.memory": lambda: MainMemory(array.main_words, of.main_memory),
        "control": lambda: ControlPath(array, MANTISSA, lag),
        "control.fetcher": lambda: Fetcher(array),
        "control.controls": lambda: ControlsRing(array),
        "control.weights": lambda: WeightsRing(array, MANTISSA),
        "control.executor": lambda: Executor(array),
        "control.sequencer": lambda: Sequencer(array, lag),
        "control.exponents": Exponents,
    }
    if array.drain == 1:
        found |= {"output.lanes": lambda: Lanes(array),
                  "output.pool": lambda: LanePool(array, of.fabric),
                  "output.writer": lambda: LaneWriter(array)}
    else:
        found |= {"output.beats": lambda: Beats(array), "output.pool": lambda: Pool(array),
                  "output.largest": Largest, "output.writer": lambda: Writer(array),
                  "output.position": Position}
    if array.residual:
        found |= {"output.align": lambda: Align(array.activation_bits, array.acc_bits)}
    if array.flash:
        found |= {"flash": lambda: _reader(array), "flash.lines": lambda: _reader(array).lines}
    return found


def _reader(array: Array) -> FlashReader:
    """Return the reader with what sets the quad enable bit of the iCEBreaker's flash."""
    return FlashReader(array, clock_hz=CLOCK * 1e6, base=0x100000,
                       script=(b"\xab", b"\x50", b"\x31\x02"))


class FillAndMemory(Component):
    """The fill engine at its port of main memory, the other clients' sides outside."""

    def __init__(self, array: Array, kind: str) -> None:
        self.engine, self.memory = fill_engine(array), MainMemory(array.main_words, kind)
        inside = {"memory", "data", "fill"}
        super().__init__({name: member for block in (self.engine, self.memory)
                          for name, member in block.signature.members.items()
                          if name not in inside} | {"read": Out(ENTRY_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine, m.submodules.memory = self.engine, self.memory
        connect(m, self.engine.memory, self.memory.fill)
        m.d.comb += [self.engine.data.eq(self.memory.data), self.read.eq(self.memory.data)]
        for name, member in self.signature.members.items():
            block = self.engine if name in self.engine.signature.members else self.memory
            if name == "read":
                continue
            inner, outer = getattr(block, name), getattr(self, name)
            if member.is_signature:
                connect(m, flipped(outer), inner)
            elif member.flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m


class Wrapped(Component):
    """A block in a component of its own: Yosys stops on some that are a whole design."""

    def __init__(self, block: Any) -> None:
        self.block = block
        super().__init__(block.signature)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = self.block
        connect(m, flipped(self), self.block)
        return m


class Between(Component):
    """A block whose inputs come out of a shift register, and whose outputs go into registers, which
    are folded to one."""

    def __init__(self, block: Any) -> None:
        self.block = block
        super().__init__({"into": In(1), "out": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = self.block
        ends: dict[str, list[Value]] = {"In": [], "Out": []}
        for _, member, value in self.block.signature.flatten(self.block):
            ends[member.flow.name].append(Value.cast(value))
        inputs, outputs = Cat(*ends["In"]), Cat(*ends["Out"])
        given = Signal(len(inputs), reset_less=True)
        held = Signal(len(outputs), reset_less=True)
        m.d.sync += [given.eq(Cat(self.into, given)), held.eq(outputs)]
        m.d.comb += inputs.eq(given)
        while len(held) > 1:
            folded = Signal((len(held) + 3) // 4, name=f"folded{len(held)}", reset_less=True)
            m.d.sync += folded.eq(Cat(held[k:k + 4].xor() for k in range(0, len(held), 4)))
            held = folded
        m.d.comb += self.out.eq(held)
        return m


def counted(netlist: dict[str, Any]) -> dict[str, int]:
    """Return the cells of each of `KINDS`, and logic cells as nextpnr packs them."""
    module = netlist["modules"]["core"]
    cells = module["cells"].values()
    kinds = Counter(cell["type"] for cell in cells)
    readers = Counter(bit for cell in cells for port, bits in cell["connections"].items()
                      if cell["port_directions"][port] == "input" for bit in bits)
    readers.update(bit for port in module["ports"].values() if port["direction"] == "output"
                   for bit in port["bits"])
    alone = {lut["O"][0] for lut in _pins(cells, "SB_LUT4") if readers[lut["O"][0]] == 1}
    packed = sum(pins["D"][0] in alone for pins in _pins(cells, "SB_DFF"))
    sums = {tuple(lut[pin][0] for pin in ("I1", "I2", "I3")) for lut in _pins(cells, "SB_LUT4")}
    carries = sum(tuple(pins[pin][0] for pin in ("I0", "I1", "CI")) in sums
                  for pins in _pins(cells, "SB_CARRY"))
    found = {name: sum(count for kind, count in kinds.items() if kind.startswith(begin))
             for name, begin in KINDS.items()}
    cells_of = found["LUTs"] + found["flip-flops"] - packed + found["carries"] - carries
    return {"cells": cells_of} | found


def _pins(cells: Any, kind: str) -> Iterator[dict[str, list[Any]]]:
    """Yield the connections of all cells whose type begins so."""
    return (cell["connections"] for cell in cells if cell["type"].startswith(kind))


def _job(of: Target, name: str, kind: str) -> Job:
    work = FOLDER / "block_cells" / of.name / name.replace(" ", "_") / kind
    work.mkdir(parents=True, exist_ok=True)
    return Job(target=replace(of, platform=None), work=work, name="core")


def _report(work: Path, suffix: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((work / f"core.{suffix}").read_text(encoding="utf-8"))
    return found


def placed(of: Target, name: str, block: Component, seeds: int) -> tuple[float, str]:
    """Return the median clock in MHz, and where the longest path of the first seed goes."""
    job, found, path = _job(of, name, "placed"), [], ""
    job.elaborate(Between(block))
    job.synthesise()
    for seed in range(1, seeds + 1):
        job.place(seed, CLOCK)
        report = _report(job.work, "nextpnr.json")
        found += [clock["achieved"] for clock in report["fmax"].values()]
        if not path:
            path = _ends(report["critical_paths"][0]["path"])
    return median(found), path


def _ends(path: list[dict[str, Any]]) -> str:
    """Return where a path of nextpnr's report begins and ends, and how many wires it takes."""
    wires = [step for step in path if step["type"] == "routing"]
    begin, end = wires[0]["net"], wires[-1]["to"]["cell"]
    return f"{_short(begin)} -> {_short(end)}, {len(wires)} wires"


def _short(name: str) -> str:
    """Return a name without what Yosys and nextpnr put behind it."""
    return name.removeprefix("block.").partition("_SB_")[0].partition("$")[0].rstrip(".")


def measure(arguments: argparse.Namespace) -> Result:
    """Count every block, and place those that are wanted."""
    of = target(arguments.target)
    array = Array(lanes=arguments.lanes, residual=not arguments.no_residual, flash=arguments.flash,
                  drain=arguments.drain, fill=arguments.fill)
    rows: list[list[Any]] = []
    checks = []
    made = {name: make for name, make in blocks(of, array).items()
            if (name in arguments.blocks if arguments.blocks else
                arguments.parts or "." not in name)}
    with progress("blocks") as report:
        for done, (name, make) in enumerate(made.items()):
            job = _job(of, name, "alone")
            job.elaborate(Wrapped(make()))
            job.synthesise()
            row = [name, *counted(_report(job.work, "json")).values()]
            if arguments.place:
                mhz, path = placed(of, name, make(), arguments.seeds)
                row += [mhz, path]
                if of.name == "icebreaker" and "." not in name:
                    checks.append(Check.at_least(f"{name}, MHz", mhz, WANTED, ".1f"))
            rows.append(row)
            if report:
                report(done + 1, len(made))
    if not arguments.blocks:
        whole = [row for row in rows if "." not in row[0]]
        total = [sum(row[k] for row in whole) for k in range(1, 2 + len(KINDS))]
        rows.append(["all", *total, *[None, ""][:2 * arguments.place]])
        has = of.resources
        checks += [Check.at_most("cells of all", total[0], SHARE * has.luts, ",.0f"),
                   Check.at_most("RAMs of all", total[-1], has.brams, "d")]
    columns = {"block": "", "cells": ",d", **dict.fromkeys(KINDS, ",d")}
    if arguments.place:
        columns |= {"MHz": ".1f", "longest path": ""}
    return Result(title="Blocks of the machine", checks=tuple(checks), tables=(
        Table.of(f"{of.name}, {array.lanes} lanes", columns, rows),))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--target", {"choices": [name for name in targets() if target(name).family is ICE40],
                       "default": "icebreaker", "help": "(%(default)s)"}),
         ("--lanes", {"type": int, "default": 16, "help": "(%(default)s)"}),
         ("--no-residual", {"action": "store_true", "help": "an array without residual operands"}),
         ("--drain", {"type": int, "choices": (1, 2), "default": 2,
                      "help": "lanes whose sums leave a cycle (%(default)s)"}),
         ("--flash", {"type": int, "default": 4, "choices": (0, *FLASH), "help": "cycles of an "
                      "element from flash; 0: there is none (%(default)s)"}),
         ("--fill", {"type": int, "default": 4, "choices": (2, 4), "help": "elements that are "
                     "filled a cycle (%(default)s)"}),
         ("--blocks", {"nargs": "+", "metavar": "NAME", "help": "these ones only"}),
         ("--parts", {"action": "store_true", "help": "the blocks' parts, too"}),
         ("--place", {"action": "store_true", "help": "find each block's clock"}),
         ("--seeds", {"type": int, "default": 1, "help": "of placements, whose median counts "
                                                         "(%(default)s)"}))
