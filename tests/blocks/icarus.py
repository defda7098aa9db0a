"""Plays recorded vectors on any block.

``vectors.json`` in the folder that ``CELOSIA_VECTORS`` names holds them, as `blocks.vectors` writes
it; the first difference goes to ``mismatch.txt`` there.
"""

import json
import os
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, Timer

PERIOD = 10
"""Clock period, nanoseconds."""


def difference(handle: Any, value: int, mask: int) -> str | None:
    """Return the port's bits if, where ``mask`` is set, they differ from ``value`` or are X."""
    text = str(handle.value)
    known = int("".join("1" if bit in "01" else "0" for bit in text), 2)
    bits = int("".join("1" if bit == "1" else "0" for bit in text), 2)
    return text if (~known & mask) or (bits ^ value) & mask else None


@cocotb.test()
async def vectors(dut: Any) -> None:
    """Every output is as recorded, in its cycle."""
    folder = Path(os.environ["CELOSIA_VECTORS"])
    recorded = json.loads((folder / "vectors.json").read_text())
    clocked = hasattr(dut, "clk")
    for name in recorded["inputs"]:
        dut[name].value = 0
    if clocked:
        dut.rst.value = 0
        Clock(dut.clk, PERIOD, unit="ns").start(start_high=False)
    cycle = 0
    for idle, changes, checks in recorded["steps"]:
        if idle:
            await Timer(idle * PERIOD, unit="ns")
        cycle += idle
        for name, value in changes.items():
            dut[name].value = value
        await (RisingEdge(dut.clk) if clocked else Timer(PERIOD // 2, unit="ns"))
        for name, (value, mask) in checks.items():
            got = difference(dut[name], value, mask)
            if got is not None:
                text = (f"cycle {cycle}: {name} is {got}, not {value:#x} (binary {value:b}) "
                        f"under mask {mask:#x}")
                (folder / "mismatch.txt").write_text(text)
                raise AssertionError(text)
        await (FallingEdge(dut.clk) if clocked else Timer(PERIOD // 2, unit="ns"))
        cycle += 1
