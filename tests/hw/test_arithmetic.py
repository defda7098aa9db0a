# amaranth: UnusedElaboratable=no
"""Rounding, alignment and the block exponent against exact fractions."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from blocks.models import arithmetic
from blocks.players import play_pysim
from blocks.vectors import Vectors, pack
from celosia_hw.output.activation import Limits, limits_layout
from celosia_hw.output.align import AlignBias, AlignResidual
from celosia_hw.output.requantise import Requantise
from celosia_hw.parts.block_exponent import BlockExponent
from celosia_sim.golden.requantise import clip, scale_rne
from celosia_spec.isa import OUTPUT_BITS, ArrayConfig

ARRAYS = [ArrayConfig(lanes=8, acc_bits=acc_bits, deep=deep, beat=4, wide_elements=wide)
          for acc_bits, deep, wide in ((24, False, 1), (32, True, 4), (32, False, 4),
                                       (24, True, 1))]
ARRAYS.append(ArrayConfig(lanes=8, beat=2, wide_elements=2, activation_bits=5))
IDS = [f"acc{a.acc_bits}-{'deep' if a.deep else 'shallow'}-{a.activation_bits}bits" for a in ARRAYS]
FAR = (-512, -100, -11, 71, 100, 300, 511)


def _corners(bits):
    """Powers of two and their neighbours, of both signs, and ties."""
    values = {0, -(1 << bits - 1), (1 << bits - 1) - 1}
    for k in range(bits - 1):
        values |= {1 << k, (1 << k) - 1, (1 << k) + 1, 3 << k, (3 << k) + 1}
    both = values | {-value for value in values}
    return sorted(value for value in both if -(1 << bits - 1) <= value < 1 << bits - 1)


def _beats(values, beat, rng):
    """Cut ``values`` into beats of the right length, in random order."""
    values = list(values)
    rng.shuffle(values)
    values += rng.sample(values, -len(values) % beat)
    return [values[at:at + beat] for at in range(0, len(values), beat)]


def _requantise(array, shifts, randoms):
    """Return vectors of every corner at all ``shifts``, narrow and wide, and of ``randoms`` other
    accumulators each."""
    rng = random.Random(array.acc_bits + array.deep)
    latency, vectors, cycle = Requantise(array).latency, Vectors(), 1
    corners = _corners(array.acc_bits)
    half = 1 << array.acc_bits - 1
    for wide, shift in itertools.product((0, 1), shifts):
        vectors.hold(cycle, wide=wide)
        cycle += 4 * (shift == shifts[0])               # ``wide`` changes while nothing is inside
        values = corners + [rng.randrange(-half, half) >> rng.randrange(array.acc_bits)
                            for _ in range(randoms)]
        for a in _beats(values, array.beat, rng):
            vectors.pulse(cycle - 1, shift=shift)
            vectors.pulse(cycle, a=pack(a, array.acc_bits))
            results = [arithmetic.requantise(
                a[e], shift,
                OUTPUT_BITS if wide and e < array.wide_elements else array.activation_bits)
                for e in range(array.beat)]
            vectors.expect(cycle + latency, m=pack([m for m, _ in results], OUTPUT_BITS),
                           clipped=pack([clipped for _, clipped in results], 1))
            cycle += 1
        cycle += 4 * (shift == shifts[-1])
    return vectors


@pytest.mark.parametrize("array", ARRAYS[:2], ids=IDS[:2])
def test_requantise(array):
    play_pysim(Requantise(array), _requantise(array, [*range(-10, 71, 9), *FAR], 8))


@pytest.mark.parametrize("array", ARRAYS, ids=IDS)
def test_requantise_verilog(verilog_player, array):
    step = 1 if array in ARRAYS[:2] else 5
    verilog_player(Requantise(array), _requantise(array, range(-10, 71, step), 4))


CLAMPS = [ArrayConfig(lanes=8, clamp=True, **sizes) for sizes in (
    {"beat": 4, "wide_elements": 4, "acc_bits": 32, "deep": True},
    {"beat": 2, "wide_elements": 2, "activation_bits": 5}, {"beat": 4, "activation_bits": 9})]
CLAMP_IDS = ["acc32-deep-8bits", "shallow-5bits", "one-wide-9bits"]


def _limits(array, wide, clamping, bound):
    """Return the limits of a layer as a packed number; ``bound`` counts where it clamps."""
    bits = OUTPUT_BITS if wide else array.activation_bits
    high = bound << bits - array.activation_bits if clamping else (1 << bits - 1) - 1
    return limits_layout.const({"clamping": clamping, "bound": bound,
                                "low": -high, "high": high}).as_bits()


@pytest.mark.parametrize("array", CLAMPS, ids=CLAMP_IDS)
def test_limits(array):
    rng, vectors = random.Random(6), Vectors()
    for cycle in range(600):
        wide, clamping = rng.randrange(2), rng.randrange(2)
        bound = rng.randrange(1 << array.activation_bits - 1) if clamping else rng.randrange(256)
        vectors.pulse(cycle, wide=wide, clamping=clamping, bound=bound)
        vectors.expect(cycle + 1, limits=_limits(array, wide, clamping, bound))
    play_pysim(Limits(array), vectors)


def _around(bound, bits, shift, acc_bits):
    """Accumulators whose mantissas are next to a bound, of both signs, and ties there."""
    unit, half = Fraction(2) ** (shift - bits + 2), 1 << acc_bits - 1
    near = {math.floor((bound + Fraction(k, 4)) * unit) + step
            for k in range(-6, 7) for step in (0, 1)}
    return [a for a in near | {-a for a in near} if -half <= a < half]


def _clamped(array, shifts, bounds):
    """Return vectors of corners, of what is next to the bound and of random accumulators, at all
    ``shifts``, narrow and wide, for layers that clamp to ``bounds`` mantissas and that do not."""
    rng, vectors, cycle = random.Random(array.acc_bits), Vectors(), 1
    latency, narrow = Requantise(array).latency, array.activation_bits
    half = 1 << array.acc_bits - 1
    largest = (1 << narrow - 1) - 1
    for wide, clamping, _ in itertools.product((0, 1), (0, 1), range(bounds)):
        bound = rng.choice([0, 1, largest, *[rng.randrange(largest // 2, largest)] * 5])
        vectors.hold(cycle, wide=wide, limits=_limits(array, wide, clamping, bound))
        cycle += latency
        elements = array.wide_elements if wide else array.beat
        bits = OUTPUT_BITS if wide else narrow
        limit = bound << bits - narrow if clamping else None
        for shift in shifts:
            values = [*_around(bound << bits - narrow, bits, shift, array.acc_bits),
                      *rng.sample(_corners(array.acc_bits), 20),
                      *(rng.randrange(-half, half) >> rng.randrange(array.acc_bits)
                        for _ in range(8))]
            for a in _beats(values, array.beat, rng):
                vectors.pulse(cycle - 1, shift=shift)
                vectors.pulse(cycle, a=pack(a, array.acc_bits))
                results = [arithmetic.requantise(value, shift, bits, limit)
                           for value in a[:elements]]
                vectors.expect(cycle + latency, (1 << elements * OUTPUT_BITS) - 1,
                               m=pack([m for m, _ in results], OUTPUT_BITS))
                vectors.expect(cycle + latency, (1 << elements) - 1,
                               clipped=pack([clipped for _, clipped in results], 1))
                cycle += 1
        cycle += latency
    return vectors


@pytest.mark.parametrize("array", CLAMPS, ids=CLAMP_IDS)
def test_requantise_clamped(array):
    play_pysim(Requantise(array), _clamped(array, [*range(-9, 40, 8), *FAR[::3]], 2))


@pytest.mark.parametrize("array", CLAMPS, ids=CLAMP_IDS)
def test_requantise_clamped_verilog(verilog_player, array):
    verilog_player(Requantise(array), _clamped(array, range(-10, 50, 3), 3))


def test_golden_rounding():
    """The golden model's integer rounding is the exact one, for every corner and shift."""
    corners = np.array(_corners(32))
    for shift, bits in itertools.product(range(-10, 71), (8, 16)):
        exact = [arithmetic.requantise(int(a), shift, bits) for a in corners]
        got, _ = clip(scale_rne(corners, bits - 2 - shift, 32), (1 << bits - 1) - 1)
        assert got.tolist() == [m for m, _ in exact]
        assert [bool(clip(scale_rne(corners[i:i + 1], bits - 2 - shift, 32),
                          (1 << bits - 1) - 1)[1][0]) for i in range(0, len(corners), 9)] \
            == [clipped for _, clipped in exact[::9]]


def _align_bias(array, step):
    rng = random.Random(3)
    latency, vectors = AlignBias(array).latency, Vectors()
    shifts = [*range(-60, array.acc_bits - 16), -512, -256, -129, -64]
    for cycle, (shift, bias) in enumerate(itertools.islice(
            itertools.product(shifts, _corners(16) + [rng.randrange(-32768, 32768)]), 0, None,
            step)):
        vectors.pulse(cycle, bias=bias, shift=shift)
        vectors.expect(cycle + latency, aligned=arithmetic.scaled(bias, shift))
    return vectors


@pytest.mark.parametrize("array", ARRAYS[:2], ids=IDS[:2])
def test_align_bias(array):
    play_pysim(AlignBias(array), _align_bias(array, 5))


def test_align_bias_verilog(verilog_player):
    verilog_player(AlignBias(ARRAYS[1]), _align_bias(ARRAYS[1], 1))


def _align_residual(array, shifts):
    rng = random.Random(4)
    latency, vectors, cycle = AlignResidual(array).latency, Vectors(), 0
    half = 1 << array.activation_bits - 1
    corners = [value for value in _corners(array.activation_bits) if value >= -half]
    for shift in shifts:
        for r in _beats(corners, array.beat, rng):
            vectors.pulse(cycle, r=pack(r, array.activation_bits), shift=shift)
            vectors.expect(cycle + latency, aligned=pack(
                [arithmetic.align_residual(value, shift, array.acc_bits) for value in r],
                array.acc_bits))
            cycle += 1
    return vectors


@pytest.mark.parametrize("array", ARRAYS, ids=IDS)
def test_align_residual(array):
    play_pysim(AlignResidual(array), _align_residual(array, [*range(-70, 50, 3), *FAR]))


def test_align_residual_verilog(verilog_player):
    verilog_player(AlignResidual(ARRAYS[1]), _align_residual(ARRAYS[1], range(-40, 40)))


def _block_exponent(array, cycles):
    """Random elements of random size with gaps and clears; the result in every cycle."""
    rng = random.Random(5)
    latency, vectors = BlockExponent.LATENCY, Vectors()
    bits, since, seen, scale = array.acc_bits, -1, [], 0
    for cycle in range(cycles):
        clear, valid = rng.random() < 0.04, rng.random() < 0.6
        if clear:
            scale = rng.randrange(bits)
        size = max(0, scale - rng.randrange(6)) if rng.random() < 0.8 else 0
        a = [rng.choice([0, 0, -(1 << size), rng.randint(-(1 << size), (1 << size) - 1),
                         -(1 << size) + (size > 0)])
             for _ in range(array.beat)]
        sw = rng.randrange(-32, 32)
        vectors.pulse(cycle, clear=clear, valid=valid, a=pack(a, bits), sw=sw)
        seen.append([(value, sw) for value in a] if valid else [])
        vectors.expect(cycle, top=arithmetic.block_exponent(
            element for elements in seen[since + 1:max(cycle - latency + 1, 0)]
            for element in elements))
        if clear:
            since = cycle
    return vectors


@pytest.mark.parametrize("array", ARRAYS[:2], ids=IDS[:2])
def test_block_exponent(array):
    play_pysim(BlockExponent(array), _block_exponent(array, 1000))


def test_block_exponent_verilog(verilog_player):
    verilog_player(BlockExponent(ARRAYS[0]), _block_exponent(ARRAYS[0], 2500))
