"""The simulators that play recorded vectors on a block: Amaranth's own, Verilator, Icarus.

All get the same inputs in the same cycles and must give the same outputs in the same cycles; the
last two read the Verilog that Amaranth generates. Icarus also shows what nobody gave a value to.
"""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import cells

from blocks.icarus_bench import PLAYED, bench, steps_file
from blocks.pysim import run
from blocks.vectors import Step, Vectors
from blocks.verilated_block import Block
from celosia_sim.simulators import rtl
from celosia_sim.simulators.cosim import icarus_text
from celosia_sim.simulators.tools import run_tool

__all__ = ["PLAYERS", "play_icarus", "play_pysim", "play_verilator", "verilog_of"]


def _ports(dut: Any) -> dict[str, Any]:
    """Return the ports of component ``dut`` by their names in Verilog: those of a nested signature
    have its path before them, with two underscores in between."""
    from amaranth.hdl import Value
    return {"__".join(map(str, path)): Value.cast(value)
            for path, _, value in dut.signature.flatten(dut)}


def _inputs(dut: Any) -> list[str]:
    """Return the names of those ports that the block reads."""
    return ["__".join(map(str, path)) for path, member, _ in dut.signature.flatten(dut)
            if member.flow.name == "In"]


def _widths(dut: Any) -> dict[str, int]:
    return {name: len(port) for name, port in _ports(dut).items()}


def verilog_of(dut: Any) -> str:
    """Return the Verilog of component ``dut``; its module is called ``block``."""
    return rtl.verilog_of(dut, "block")


def _renamed(dut: Any, prefix: str) -> Any:
    """Return ``dut`` in a component whose ports have its ports' names behind ``prefix``."""
    from amaranth.hdl import Module
    from amaranth.lib.wiring import Component

    class Renamed(Component):
        def elaborate(self, platform: Any) -> Any:
            m = Module()
            m.submodules.block = dut
            inputs, inside, outside = _inputs(dut), _ports(dut), _ports(self)
            for name in inside:
                inner, outer = inside[name], outside[prefix + name]
                m.d.comb += inner.eq(outer) if name in inputs else outer.eq(inner)
            return m

    return Renamed({prefix + name: member for name, member in dut.signature.members.items()})


def _mismatch(cycle: int, name: str, got: str, value: int, mask: int) -> str:
    return (f"cycle {cycle}: {name} is {got}, not {value:#x} (binary {value:b}) "
            f"under mask {mask:#x}")


def _checks(steps: Sequence[Step], wanted: int) -> dict[str, tuple[int, int]]:
    """Return what is checked in a cycle."""
    cycle = -1
    for idle, _, checks in steps:
        cycle += idle + 1
        if cycle == wanted:
            return checks
    raise AssertionError(f"nothing is checked in cycle {wanted}")


def play_pysim(dut: Any, vectors: Vectors) -> None:
    """Play ``vectors`` on component ``dut`` in Amaranth's simulator; AssertionError at the first
    output that differs. Cell models are Verilog: a block that holds cells cannot be played."""
    from amaranth.hdl import ClockDomain, Module

    ports = _ports(dut)
    steps = vectors.steps(_widths(dut))
    top = Module()
    top.domains.sync = ClockDomain()                    # a combinational block has none
    top.submodules.block = dut

    async def bench(ctx: Any) -> None:
        cycle = 0
        for idle, changes, checks in steps:
            for _ in range(idle):
                await ctx.tick()
            cycle += idle
            for name, value in changes.items():
                ctx.set(ports[name], value)
            for name, (value, mask) in checks.items():
                got = ctx.get(ports[name]) & mask
                assert got == value, _mismatch(cycle, name, f"{got:#x}", value, mask)
            await ctx.tick()
            cycle += 1

    run(top, bench, max_cycles=vectors.length + 1)


def play_verilator(dut: Any, vectors: Vectors, sources: Sequence[Path] = ()) -> None:
    """Play ``vectors`` on the Verilog of component ``dut``, compiled by Verilator; AssertionError
    at the first output that differs.

    sources : models of the cells that the block holds.
    """
    steps = vectors.steps(_widths(dut))
    cycle = 0
    with Block(verilog_of(_renamed(dut, "port_")), sources, "port_") as block:
        for idle, changes, checks in steps:
            block.tick(idle)
            cycle += idle
            for name, value in changes.items():
                block.set(name, value)
            block.settle()
            for name, (value, mask) in checks.items():
                got = block.get(name) & mask
                assert got == value, _mismatch(cycle, name, f"{got:#x}", value, mask)
            block.tick()
            cycle += 1


def play_icarus(dut: Any, vectors: Vectors, sources: Sequence[Path] = ()) -> None:
    """Play ``vectors`` on the Verilog of component ``dut`` in Icarus; AssertionError at the first
    output that differs, or that is unknown. Arguments as for `play_verilator`."""
    widths = {name: bits for name, bits in _widths(dut).items() if bits}
    inputs = [name for name in _inputs(dut) if name in widths]
    steps, text = vectors.steps(_widths(dut)), verilog_of(dut)
    clocked = re.search(r"^module block\([^;]*\bclk\b", text, re.M) is not None
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        (folder / "bench.v").write_text(bench(widths, inputs, clocked=clocked))
        (folder / "block.v").write_text(icarus_text(text))
        (folder / "steps").write_text(steps_file(steps, widths, inputs))
        defines = [f"-D{macro}={value}" for macro, value in cells.DEFINES]
        run_tool("iverilog", ["iverilog", "-g2012", "-s", "bench", "-o", "bench", *defines,
                              "bench.v", *map(str, sources), "block.v"], cwd=folder)
        *_, printed = run_tool("vvp", ["vvp", "bench"], cwd=folder).splitlines()
    if printed != PLAYED:
        cycle, port, got = printed.split()
        [value, mask] = _checks(steps, int(cycle))[port]
        raise AssertionError(_mismatch(int(cycle), port, got, value, mask))


PLAYERS = {"pysim": play_pysim, "verilator": play_verilator, "icarus": play_icarus}
