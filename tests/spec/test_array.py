"""What the parameters of an array may be: whole numbers of any type, and switches."""

from dataclasses import fields

import numpy as np
import pytest

from celosia_spec.isa.array import Array
from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS

ARRAY = Array()
NUMBERS = [part.name for part in fields(ARRAY) if part.type is int]
SWITCHES = [part.name for part in fields(ARRAY) if part.type is bool]


def changed(**changes):
    return Array(**{part.name: getattr(ARRAY, part.name) for part in fields(ARRAY)} | changes)


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_may_be_of_any_whole_type(name) -> None:
    value = getattr(ARRAY, name)
    again = changed(**{name: np.int64(value)})
    assert again == ARRAY and type(getattr(again, name)) is int
    for wrong in (value + 0.5, float(value), str(value), None, [value], np.array([value, value])):
        with pytest.raises(ValueError, match=rf"^{name} must be a whole number, not .*$"):
            changed(**{name: wrong})


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_is_a_bool(name) -> None:
    for wrong in ("x", 1, None):
        with pytest.raises(ValueError, match=rf"^{name} must be True or False, not {wrong!r}$"):
            changed(**{name: wrong})


def test_the_hash_is_that_of_the_numbers() -> None:
    assert Array(lanes=np.uint8(16)).hash == Array(lanes=16).hash


def test_widths() -> None:
    assert (MANTISSA_BITS[0], MANTISSA_BITS[-1], ACCUMULATORS) == (4, 9, (24, 32))
    for name in ("weight_bits", "activation_bits"):
        for bits in MANTISSA_BITS:
            assert getattr(changed(**{name: bits}), name) == bits
        for bits in (3, 10):
            with pytest.raises(ValueError, match=rf"^{name} must be 4 to 9, not {bits}$"):
                changed(**{name: bits})
    with pytest.raises(ValueError, match=r"^acc_bits must be 24 or 32, not 28$"):
        changed(acc_bits=28)
