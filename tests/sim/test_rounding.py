"""Rounding and block exponents against exact rational arithmetic."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocks.models.arithmetic import requantise
from celosia_sim.golden.requantise import clip, scale_rne
from celosia_spec.block import Format, bfp, block_exponents, floor_log2
from celosia_spec.errors import ArgumentError

FINITE = st.floats(min_value=-65535.9, max_value=65535.9, allow_nan=False)
TIES = st.builds(lambda m, s: math.ldexp(m + 0.5, s), st.integers(-130, 130), st.integers(-22, 8))
ROUND = {"nearest-even": round, "zero": math.trunc, "up": math.ceil, "down": math.floor}


def exact_floor_log2(x: Fraction) -> int:
    power = 0
    while Fraction(2) ** power > abs(x):
        power -= 1
    while Fraction(2) ** (power + 1) <= abs(x):
        power += 1
    return power


def exact_exponent(block: list[float], smallest: int = -16) -> int:
    largest = max(abs(Fraction(x)) for x in block)
    return max(exact_floor_log2(largest), smallest) if largest else smallest


@settings(max_examples=300)
@given(st.integers(-(2**31) + 1, 2**31 - 1), st.integers(-80, 30))
def test_scaling_rounds_to_nearest_even(value: int, shift: int) -> None:
    got = scale_rne(np.array([value]), np.array([shift]), 32)[0]
    assert got == round(Fraction(value) * Fraction(2) ** shift)


@given(st.integers(-300, 300), st.integers(1, 8))
def test_ties_go_to_the_even_neighbour(quotient: int, shift: int) -> None:
    tie = quotient * 2**shift + 2 ** (shift - 1)
    got = int(scale_rne(np.array([tie]), np.array([-shift]), 32)[0])
    assert got % 2 == 0
    assert abs(Fraction(tie, 2**shift) - got) == Fraction(1, 2)


@given(st.integers(-(2**15) + 1, 2**15 - 1), st.integers(0, 100))
def test_left_shifts_beyond_the_cut_still_leave_every_range(value: int, shift: int) -> None:
    largest = 2**29
    got = clip(scale_rne(np.array([value]), np.array([shift]), 16), largest)[0][0]
    assert got == max(-largest, min(largest, value << shift))


def test_scaling_mixes_directions_in_one_call() -> None:
    values, shifts = np.array([[5, -5, 7, 0]]), np.array([[-1], [0], [3], [-62]])
    wanted = [[round(Fraction(int(v)) * Fraction(2) ** int(s)) for v in values[0]]
              for s in shifts[:, 0]]
    assert scale_rne(values, shifts, 32).tolist() == wanted


def test_clip_tells_which_images_changed() -> None:
    clipped, changed = clip(np.array([[127, -127], [128, 0], [0, -128]]), 127)
    assert clipped.tolist() == [[127, -127], [127, 0], [0, -127]]
    assert changed.tolist() == [False, True, True]


@settings(max_examples=300)
@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) > 1e-200))
def test_floor_log2_is_exact(x: float) -> None:
    assert floor_log2(np.array([x]))[0] == exact_floor_log2(Fraction(x))


@pytest.mark.parametrize("x", [2.0**-16, np.nextafter(2.0, 0), 2.0, 65535.99, 5e-324])
def test_exponents_at_the_edges(x: float) -> None:
    assert block_exponents(np.array([[0.0, -x]]))[0] == exact_exponent([x])


@settings(max_examples=300)
@given(st.lists(FINITE | TIES | st.just(0.0), min_size=1, max_size=8), st.integers(4, 16),
       st.sampled_from(sorted(ROUND)))
@example([8.0, -5e-324, 5e-324], 4, "down")
@example([8.0, -5e-324, 5e-324], 4, "up")
def test_bfp_is_the_rule(block: list[float], bits: int, rounding: str) -> None:
    got, exponent = bfp(np.array(block), bits, rounding=rounding)
    assert exponent == exact_exponent(block)
    unit, limit = Fraction(2) ** (int(exponent) - bits + 2), 2 ** (bits - 1) - 1
    wanted = [max(-limit, min(limit, ROUND[rounding](Fraction(x) / unit))) for x in block]
    assert got.tolist() == wanted


@given(st.lists(FINITE, min_size=1, max_size=6), st.integers(-16, 15), st.integers(4, 9))
def test_mantissas_at_a_given_exponent_tell_of_clipping(block: list[float], exponent: int,
                                                         bits: int) -> None:
    got, clipped = Format(bits=bits).mantissas(np.array([block]), np.array([exponent]))
    limit = 2 ** (bits - 1) - 1
    exact = [round(Fraction(x) / Fraction(2) ** (exponent - bits + 2)) for x in block]
    assert got[0].tolist() == [max(-limit, min(limit, m)) for m in exact]
    assert clipped[0] == any(abs(m) > limit for m in exact)


def test_bfp_makes_one_block_of_each_index_of_the_axis() -> None:
    array = np.array([[1.0, 0.5, 100.0], [0.0, 0.0, 0.0], [-3e-5, 1e-5, 0.0]])
    by_row, exponents = bfp(array, 8, axis=0)
    assert exponents.tolist() == [6, -16, -16]
    for row, m, exponent in zip(array, by_row, exponents, strict=True):
        alone, own = bfp(row, 8)
        assert own == exponent
        assert alone.tolist() == m.tolist()
    by_column, exponents = bfp(array.T, 8, axis=1)
    assert exponents.tolist() == [6, -16, -16]
    assert by_column.tolist() == by_row.T.tolist()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"array": [65536.0], "bits": 8}, "^block 0 needs the exponent 16, above 15; scale the array "
                                      "down$"),
    ({"array": [np.inf], "bits": 8}, "^array must be finite"),
    ({"array": [1.0], "bits": 1}, "^bits must be 2 to 24, not 1$"),
    ({"array": [1.0], "bits": 8, "rounding": "away"}, "^rounding must be one of nearest-even, "
                                                      "zero, up, down, not 'away'$"),
    ({"array": [1.0], "bits": 8, "axis": 1}, r"^axis must be None or an axis of the shape \(1,\)"),
])
def test_bfp_refuses(arguments: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bfp(**arguments)


def _corners(bits: int) -> list[int]:
    """Powers of two and their neighbours, of both signs, and ties."""
    values = {0, -(1 << bits - 1), (1 << bits - 1) - 1}
    for k in range(bits - 1):
        values |= {1 << k, (1 << k) - 1, (1 << k) + 1, 3 << k, (3 << k) + 1}
    both = values | {-value for value in values}
    return sorted(value for value in both if -(1 << bits - 1) <= value < 1 << bits - 1)


def test_scaling_and_clipping_of_every_corner() -> None:
    """The golden model's integer rounding is the exact one, for every corner and shift."""
    corners = np.array(_corners(32))
    for shift, bits in itertools.product(range(-10, 71), (8, 16)):
        exact = [requantise(int(a), shift, bits) for a in corners]
        got, _ = clip(scale_rne(corners, bits - 2 - shift, 32), (1 << bits - 1) - 1)
        assert got.tolist() == [m for m, _ in exact]
        assert [bool(clip(scale_rne(corners[i:i + 1], bits - 2 - shift, 32),
                          (1 << bits - 1) - 1)[1][0]) for i in range(0, len(corners), 9)] \
            == [clipped for _, clipped in exact[::9]]
