# amaranth: UnusedElaboratable=no
"""Multipliers: all kinds give the exact products, two edges later."""

import itertools
import random

import pytest
from harness import cells

from blocks.players import verilog_of
from blocks.vectors import Vectors, pack
from celosia_boards.families.ice40 import ICE40
from celosia_hw.parts.multiplier import KINDS, Multipliers


def _sources(kind):
    return {"generic": [], "mac16": [cells.models(ICE40)],
            "mult18": [cells.own("mult18x18d.v")]}[kind]


SHAPES = [(4, 8, 8), (3, 6, 5), (1, 4, 8), (2, 9, 9)]


def _corners(least, end):
    """Smallest, largest and the values around zero and the middle of a range."""
    middle = (least + end) // 2
    return sorted({least, least + 1, middle - 1, middle, middle + 1, end - 1})


def _products(lanes, weight_bits, activation_bits):
    """Every pair of corner values in every lane, then random operands: a new set each cycle, whose
    products appear LATENCY edges later, not one sooner."""
    rng, vectors = random.Random(1), Vectors()
    ranges = [(-(1 << weight_bits - 1), 1 << weight_bits - 1), (0, 1 << activation_bits)]
    pairs = list(itertools.product(*(_corners(*limits) for limits in ranges)))
    sets = [[pairs[(step + lane) % len(pairs)] for lane in range(lanes)]
            for step in range(len(pairs))]
    sets += [[tuple(rng.randrange(*limits) for limits in ranges) for _ in range(lanes)]
             for _ in range(1000)]
    for cycle, operands in enumerate(sets):
        vectors.pulse(cycle, w=pack((w for w, _ in operands), weight_bits),
                      x=pack((x for _, x in operands), activation_bits))
        vectors.expect(cycle + Multipliers.LATENCY, p=pack(
            (w * x for w, x in operands), weight_bits + activation_bits))
    return vectors


@pytest.mark.parametrize(("kind", "lanes", "weight_bits", "activation_bits"),
                         [(kind, *shape) for kind in KINDS for shape in SHAPES
                          if kind != "mac16" or shape[1] <= 8])
def test_products(verilog_player, kind, lanes, weight_bits, activation_bits):
    dut = Multipliers(lanes, weight_bits, activation_bits, kind)
    text = verilog_of(dut)
    block = {"mac16": "SB_MAC16", "mult18": "MULT18X18D", "generic": None}[kind]
    if block is not None:
        assert text.count(f"  {block} ") == (-(-lanes // 2) if kind == "mac16" else lanes)
    verilog_player(dut, _products(lanes, weight_bits, activation_bits), _sources(kind))


@pytest.mark.parametrize(("arguments", "message"), [
    ((4, 8, 8, "mac8"), "kind must be one of generic, mac16, mult18, not 'mac8'"),
    ((0, 8, 8, "generic"), "lanes must be at least 1, not 0"),
    ((4, 9, 8, "mac16"), "weight_bits must be 2 to 8 for kind 'mac16', not 9"),
    ((4, 8, 1, "mult18"), "activation_bits must be 2 to 17 for kind 'mult18', not 1"),
])
def test_rejects(arguments, message):
    with pytest.raises(ValueError) as caught:
        Multipliers(*arguments)
    assert str(caught.value) == message


def test_a_sign_takes_a_bit():
    with pytest.raises(ValueError, match="activation_bits must be 2 to 17 for kind 'mult18'"):
        Multipliers(4, 8, 18, "mult18")
