"""Bench of `celosia_hw.memory.WeightMemory`: random writes and reads against a dictionary.

Environment: ``ROWS``, ``WORDS``, ``WORD_BITS`` of the design; ``LATENCY`` it claims.
"""

import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

ROWS, WORDS, WORD_BITS, LATENCY = (
    int(os.environ[name]) for name in ("ROWS", "WORDS", "WORD_BITS", "LATENCY"))


async def write(dut: Any, row: int, slot: int, word: int) -> None:
    dut.write_enable.value = 1
    dut.write_row.value = row
    dut.write_slot.value = slot
    dut.write_data.value = word
    await FallingEdge(dut.clk)
    dut.write_enable.value = 0


async def read_burst(dut: Any, rows: list[int]) -> list[int]:
    """Return the data of ``rows``, one address a cycle; ends LATENCY cycles after the last."""
    seen = []
    for row in rows + [0] * LATENCY:
        seen.append(dut.read_data.value)
        dut.read_row.value = row
        await FallingEdge(dut.clk)
    return [value.to_unsigned() for value in seen[LATENCY:]]


@cocotb.test(timeout_time=2, timeout_unit="ms")
async def writes_and_reads(dut: Any) -> None:
    """Each row read gives the words last written to it; a write touches its own slot only."""
    rng = random.Random(cocotb.RANDOM_SEED)
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    for name in ("write_enable", "write_row", "write_data", "read_row", "write_slot"):
        if hasattr(dut, name):
            getattr(dut, name).value = 0
    await FallingEdge(dut.clk)
    used = sorted({0, ROWS - 1, *rng.sample(range(ROWS), min(ROWS, 40))})
    model = {}
    for row in used:
        for slot in range(WORDS):
            model[row, slot] = rng.getrandbits(WORD_BITS)
            await write(dut, row, slot, model[row, slot])
    for _ in range(20):
        for _ in range(rng.randrange(4)):
            at = rng.choice(used), rng.randrange(WORDS)
            model[at] = rng.getrandbits(WORD_BITS)
            await write(dut, *at, model[at])
        rows = [rng.choice(used) for _ in range(rng.randrange(1, 12))]
        for row, got in zip(rows, await read_burst(dut, rows), strict=True):
            expected = sum(model[row, slot] << WORD_BITS * slot for slot in range(WORDS))
            assert got == expected, f"row {row}: {got:#x}, not {expected:#x}"
