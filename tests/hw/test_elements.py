# amaranth: UnusedElaboratable=no
"""Normaliser and finisher against the definition of stored elements, over all exponents and
rounding cases."""

import numpy as np
import pytest

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.fill.finisher import Finisher
from celosia_hw.output.normalise import Normalise
from celosia_spec.floats import code, exponent_of, finish, to_odd
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS, UNIT_MARGIN


def play(dut, inputs, outputs):
    """Return the outputs that belong to each value of ``inputs``."""
    latency = dut.LATENCY
    padded = {name: np.concatenate([values, np.repeat(values[-1:], latency)])
              for name, values in inputs.items()}
    with Block(verilog_of(dut)) as block:
        found = block.stream(padded, outputs)
    return [found[name][latency:].astype(np.int64) for name in outputs]


@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(4, 10))
def test_finisher(bits, signed):
    """Every element at every exponent. A zero has the smallest one."""
    every = np.arange(1 << 16)
    every = every[(every & (1 << SIGNIFICAND_BITS - signed) - 1 > 0) | (exponent_of(every)
                                                                        == EXPONENT_MIN)]
    elements = np.tile(every, EXPONENT_MAX - EXPONENT_MIN + 1)
    exponents = np.repeat(np.arange(EXPONENT_MIN, EXPONENT_MAX + 1), len(every))
    got, clipped = play(Finisher(bits), {
        "element": elements, "exponent": exponents - EXPONENT_MIN,
        "signed": np.full(len(elements), signed)}, ["code", "clipped"])
    wanted, flags = finish(elements, exponents, bits, signed=bool(signed))
    assert np.array_equal(got, code(wanted, bits, signed=bool(signed)))
    assert np.array_equal(clipped.astype(bool), flags)


def rounding_cases(width, uppers):
    """Return magnitudes of every length with these highest 12 bits, and below them nothing, one,
    half and all; and the short ones."""
    found = [np.arange(1 << 6), uppers]
    for low in range(1, width - 11):
        upper = uppers << low
        found += [upper, upper | 1, upper | (1 << low) - 1, upper | 1 << low - 1]
    return np.unique(np.concatenate(found))


@pytest.mark.parametrize("signed", [0, 1], ids=["unsigned", "signed"])
@pytest.mark.parametrize("acc_bits", [24, 32])
def test_normaliser(acc_bits, signed):
    """Every length of a sum, all that may lie below what is kept, at every unit, so that results
    go through all exponents; and at some units all bits that are kept."""
    least = -(acc_bits + UNIT_MARGIN)
    every = np.arange(1 << 11, 1 << 12)
    some = np.unique([1 << 11, (1 << 12) - 1, *np.random.default_rng(1).choice(every, 30)])
    for uppers, units in ((some, np.arange(least, 30)), (every, [least, least + 9, -16])):
        sums = rounding_cases(acc_bits - 1, uppers)
        sums = np.concatenate([sums, -sums]) if signed else sums
        unit, value = np.repeat(units, len(sums)), np.tile(sums, len(units))
        room = unit + acc_bits + UNIT_MARGIN
        got, = play(Normalise(acc_bits), {
            "sum": value & (1 << acc_bits) - 1, "unit__room": np.roll(room, 1),
            "unit__near": np.roll(room, 2) >> 1 & 3, "unit__last": np.roll(room, 3),
            "signed": np.full(len(value), signed)}, ["element"])
        assert np.array_equal(got, to_odd(value, unit, signed=bool(signed)))
