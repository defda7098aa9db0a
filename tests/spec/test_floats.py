"""Elements of stored maps: rounding to odd, and then to a mantissa, is one rounding."""

import numpy as np
import pytest

from celosia_sim.golden.requantise import clip, scale_rne
from celosia_spec.floats import SIGN, code, exponent_of, finish, halves, joined, to_odd
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN


def sums_of(rng, count, *, signed):
    """Return sums of all lengths: short ones, ones near a tie, and powers of two."""
    sums = rng.integers(0, 1 << 30, count) >> rng.integers(0, 30, count)
    ties = (2 * rng.integers(0, 1 << 9, count) + 1 << rng.integers(0, 18, count)) \
        + rng.integers(-1, 2, count)
    sums = np.concatenate([sums, ties, [0, 1, *(1 << np.arange(30)), *(1 << np.arange(30)) - 1]])
    return np.where(rng.random(len(sums)) < 0.5, -sums, sums) if signed else sums


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", range(4, 10))
def test_two_roundings_are_one(bits, signed):
    rng = np.random.default_rng(bits)
    sums = sums_of(rng, 20_000, signed=signed)
    for unit in (-46, -38, -30, -23, -16, -7, 0, 9):
        elements = to_odd(sums, unit, signed=signed)
        assert elements.min() >= 0
        assert elements.max() < 1 << 16
        exponents = rng.integers(EXPONENT_MIN, EXPONENT_MAX + 1, len(sums))
        found, clipped = finish(elements, exponents, bits, signed=signed)
        places = bits - signed
        exact, was = clip(scale_rne(sums, unit - (exponents - (places - 1)), 30),
                          (1 << places) - 1)
        assert np.array_equal(found, exact)
        assert was.any() == clipped.any()
        one_by_one = clip(scale_rne(sums, unit - (exponents - (places - 1)), 30)[:, None],
                          (1 << places) - 1)[1]
        assert np.array_equal(clipped, one_by_one)


def test_one_bit_less_is_not_enough():
    """Of p + 1 bits instead of p + 2, the second rounding is not always the one rounding."""
    sums = np.arange(1 << 12)
    short = sums >> 3 | (sums & 7 != 0)                  # 9 bits of 12, to odd
    assert not np.array_equal(scale_rne(short, -1, 20), scale_rne(sums, -4, 20))


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_order_and_exponent(signed):
    sums = np.sort(sums_of(np.random.default_rng(3), 5_000, signed=signed))
    for unit in (-38, -20, 0):
        elements = to_odd(sums, unit, signed=signed)
        signs = np.where(sums < 0, -1, 1)
        places = (1 << 11) - 1 if not signed else (1 << 10) - 1
        keys = signs * ((elements >> 11) * (places + 1) + (elements & places))
        assert (np.diff(keys) >= 0).all()
        live = sums != 0
        exact = np.floor(np.log2(np.abs(sums[live]))).astype(int) + unit
        assert np.array_equal(exponent_of(elements[live]),
                              exact.clip(EXPONENT_MIN, EXPONENT_MAX))
        assert (elements[~live] == 0).all()


def test_what_a_bank_holds():
    assert list(code(np.array([-127, 0, 127]), 8, signed=True)) == [1, 128, 255]
    assert list(code(np.array([0, 255]), 8, signed=False)) == [0, 255]


def test_halves_of_a_sum():
    sums = np.array([0, 1, -1, 0x1234_5678, -0x1234_5678, (1 << 31) - 1, -1 << 31])
    low, high = halves(sums)
    assert low.tolist() == [0, 1, 0xFFFF, 0x5678, 0xA988, 0xFFFF, 0]
    assert high.tolist() == [0, 0, 0xFFFF, 0x1234, 0xEDCB, 0x7FFF, 0x8000]
    assert joined(low, high).tolist() == sums.tolist()


def test_the_sign_of_an_element():
    found = to_odd(np.array([3, -3]), -10, signed=True)
    assert found[0] ^ found[1] == SIGN == 1 << 10
