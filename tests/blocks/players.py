"""The simulators that play recorded vectors on a block: Amaranth's own, Verilator, Icarus.

All get the same inputs in the same cycles and must give the same outputs in the same cycles; the
last two read the Verilog that Amaranth generates. Icarus also shows what nobody gave a value to.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blocks.pysim import run
from blocks.vectors import Vectors
from blocks.verilated_block import Block
from celosia_sim import cells

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
    from amaranth.back import verilog
    return verilog.convert(dut, name="block", emit_src=False, strip_internal_attrs=True)


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
    """Play ``vectors`` on the Verilog of component ``dut`` in Icarus under cocotb; AssertionError
    at the first output that differs, or that is unknown. Arguments as for `play_verilator`."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    from celosia_sim.simulators.cosim import icarus_text

    widths = _widths(dut)
    inputs = [name for name in _inputs(dut) if widths[name]]
    with tempfile.TemporaryDirectory(prefix="celosia-") as name:
        folder = Path(name)
        (folder / "vectors.json").write_text(
            json.dumps({"inputs": inputs, "steps": vectors.steps(widths)}))
        source = folder / "block.v"
        source.write_text(icarus_text(verilog_of(dut)))
        runner = get_runner("icarus")
        runner.build(sources=[*sources, source], hdl_toplevel="block", build_dir=folder,
                     build_args=list(cells.ICARUS_ARGS), timescale=("1ns", "1ps"), always=True,
                     log_file=folder / "build.log")
        results = folder / "results.xml"
        try:
            runner.test(hdl_toplevel="block", test_module="blocks.icarus",
                        build_dir=folder, test_dir=folder, results_xml=str(results), seed=1,
                        extra_env={"CELOSIA_VECTORS": str(folder)}, log_file=folder / "run.log")
            passed = get_results(results) == (1, 0)
        except (RuntimeError, SystemExit):      # what the runner raises depends on its caller
            passed = False
        mismatch = folder / "mismatch.txt"
        if not passed:
            raise AssertionError(mismatch.read_text() if mismatch.is_file()
                                 else (folder / "run.log").read_text())


PLAYERS = {"pysim": play_pysim, "verilator": play_verilator, "icarus": play_icarus}
