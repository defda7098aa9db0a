"""Recorded stimulus and expected answers of one block, and the two simulators that play them.

A test builds the vectors from a model; Amaranth's simulator and generated Verilog in Icarus then
get the same inputs in the same cycles, and must give the same outputs in the same cycles.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

from celosia_sim.pysim import run

__all__ = ["Vectors", "pack", "play", "play_icarus"]

Step: TypeAlias = tuple[int, dict[str, int], dict[str, tuple[int, int]]]
"""Idle cycles before, inputs that change, and (value, mask) of every output that is checked."""


def pack(values: Iterable[int], bits: int) -> int:
    """Return ``values`` side by side, ``bits`` each, the first one in the lowest bits."""
    return sum((value & (1 << bits) - 1) << bits * at for at, value in enumerate(values))


class Vectors:
    """What a block gets and must answer in each cycle.

    All inputs are zero until they are set. An output is compared before the clock edge that ends
    the cycle, with the inputs of that cycle applied. Packed ports (arrays, structures) are
    integers, signed values may be given as such.
    """

    def __init__(self) -> None:
        self._levels: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self._pulses: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self._expected: defaultdict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.length = 0

    def hold(self, cycle: int, **values: int) -> None:
        """Set inputs from ``cycle`` on."""
        self._levels[cycle].update(values)
        self.length = max(self.length, cycle + 1)

    def pulse(self, cycle: int, **values: int) -> None:
        """Set inputs in ``cycle`` only; afterwards the held value is back."""
        self._pulses[cycle].update(values)
        self.length = max(self.length, cycle + 1)

    def expect(self, cycle: int, mask: int = -1, **values: int) -> None:
        """Compare outputs in ``cycle``, where ``mask`` is set. Two expectations of one port in one
        cycle add their masks."""
        for name, value in values.items():
            before, covered = self._expected[cycle].get(name, (0, 0))
            assert (before ^ value) & covered & mask == 0, f"{name} in cycle {cycle}: both values"
            self._expected[cycle][name] = (before & covered | value & mask, covered | mask)
        self.length = max(self.length, cycle + 1)

    def steps(self, widths: dict[str, int]) -> list[Step]:
        """Return the cycles in which something happens, as plain unsigned numbers.

        widths : bits of every port; ports of no bits are left out.
        """
        held: dict[str, int] = {}
        present: dict[str, int] = {}
        result: list[Step] = []
        idle = 0
        for cycle in range(self.length):
            held.update(self._levels[cycle])
            wanted = {**dict.fromkeys(present, 0), **held, **self._pulses[cycle]}
            limited = {name: value & (1 << widths[name]) - 1 for name, value in wanted.items()
                       if widths[name]}
            changes = {name: value for name, value in limited.items()
                       if present.get(name, 0) != value}
            present.update(changes)
            checks = {}
            for name, (value, mask) in self._expected[cycle].items():
                mask &= (1 << widths[name]) - 1
                if mask:
                    checks[name] = (value & mask, mask)
            if changes or checks or cycle == self.length - 1:
                result.append((idle, changes, checks))
                idle = 0
            else:
                idle += 1
        return result


def _ports(dut: Any) -> dict[str, Any]:
    from amaranth.hdl import Value
    return {name: Value.cast(getattr(dut, name)) for name in dut.signature.members}


def play(dut: Any, vectors: Vectors) -> None:
    """Play ``vectors`` on component ``dut`` in Amaranth's simulator; AssertionError at the first
    output that differs."""
    from amaranth.hdl import ClockDomain, Module

    ports = _ports(dut)
    steps = vectors.steps({name: len(port) for name, port in ports.items()})
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
                assert got == value, f"cycle {cycle}: {name} is {got:#x}, not {value:#x}"
            await ctx.tick()
            cycle += 1

    run(top, bench, max_cycles=vectors.length + 1)


def play_icarus(dut: Any, vectors: Vectors, folder: Path) -> None:
    """Play ``vectors`` on the Verilog of component ``dut`` in Icarus under cocotb, with ``folder``
    for its files; AssertionError at the first output that differs."""
    from amaranth.back import verilog
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    from celosia_sim.cosim import icarus_text

    ports = _ports(dut)
    inputs = [name for name, member in dut.signature.members.items()
              if member.flow.name == "In" and len(ports[name])]
    steps = vectors.steps({name: len(port) for name, port in ports.items()})
    (folder / "vectors.json").write_text(json.dumps({"inputs": inputs, "steps": steps}))
    source = folder / "block.v"
    source.write_text(icarus_text(verilog.convert(dut, name="block", emit_src=False,
                                                  strip_internal_attrs=True)))
    runner = get_runner("icarus")
    runner.build(sources=[source], hdl_toplevel="block", build_dir=folder,
                 timescale=("1ns", "1ps"), always=True, log_file=folder / "build.log")
    results = folder / "results.xml"
    try:
        runner.test(hdl_toplevel="block", test_module="celosia_sim.benches.vectors",
                    build_dir=folder, test_dir=folder, results_xml=str(results), seed=1,
                    extra_env={"CELOSIA_VECTORS": str(folder)}, log_file=folder / "run.log")
        passed = get_results(results) == (1, 0)
    except (RuntimeError, SystemExit):      # what the runner raises depends on its caller
        passed = False
    mismatch = folder / "mismatch.txt"
    if not passed:
        raise AssertionError(mismatch.read_text() if mismatch.is_file()
                             else (folder / "run.log").read_text())
