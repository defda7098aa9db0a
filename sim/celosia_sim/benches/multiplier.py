"""Bench of `celosia_hw.multiplier.Multipliers`: corner values and random operands.

Environment: ``LANES``, ``WEIGHT_BITS``, ``ACTIVATION_BITS`` of the design; ``LATENCY`` it claims.
"""

import itertools
import os
import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

LANES, WEIGHT_BITS, ACTIVATION_BITS, LATENCY = (
    int(os.environ[name]) for name in ("LANES", "WEIGHT_BITS", "ACTIVATION_BITS", "LATENCY"))


def corners(bits: int) -> list[int]:
    """Smallest, largest and the values around zero of a signed number."""
    return [-(1 << bits - 1), 1 - (1 << bits - 1), -1, 0, 1, (1 << bits - 1) - 1]


def operands(rng: random.Random, count: int) -> list[tuple[list[int], list[int]]]:
    """Every pair of corner values in every lane, then ``count`` random operand sets."""
    pairs = list(itertools.product(corners(WEIGHT_BITS), corners(ACTIVATION_BITS)))
    sets = [[pairs[(step + lane) % len(pairs)] for lane in range(LANES)]
            for step in range(len(pairs))]
    half_w, half_x = 1 << WEIGHT_BITS - 1, 1 << ACTIVATION_BITS - 1
    sets += [[(rng.randrange(-half_w, half_w), rng.randrange(-half_x, half_x))
              for _ in range(LANES)] for _ in range(count)]
    return [([w for w, _ in lanes], [x for _, x in lanes]) for lanes in sets]


def pack(values: list[int], bits: int) -> int:
    return sum((value & (1 << bits) - 1) << bits * lane for lane, value in enumerate(values))


@cocotb.test(timeout_time=100, timeout_unit="us")
async def products(dut: Any) -> None:
    """A new operand set each cycle; its products appear LATENCY edges later, not one sooner."""
    sets = operands(random.Random(cocotb.RANDOM_SEED), 1000)
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 0
    seen = []
    for w, x in sets + [([0] * LANES, [0] * LANES)] * LATENCY:
        await FallingEdge(dut.clk)
        seen.append(dut.p.value)
        dut.w.value = pack(w, WEIGHT_BITS)
        dut.x.value = pack(x, ACTIVATION_BITS)
    bits = WEIGHT_BITS + ACTIVATION_BITS
    for step, (w, x) in enumerate(sets):
        expected = pack([a * b for a, b in zip(w, x, strict=True)], bits)
        got = seen[step + LATENCY].to_unsigned()
        assert got == expected, f"operand set {step}: w={w}, x={x}: p={got:#x}, not {expected:#x}"
