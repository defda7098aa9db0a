"""What the parameters of an array may be: whole numbers of any type, and switches."""

from dataclasses import fields

import numpy as np
import pytest

from celosia_spec.isa import ACCUMULATORS, MANTISSA_BITS, ArrayConfig
from celosia_spec.stream.array import Array

ARRAYS = [ArrayConfig(lanes=16), Array()]
NUMBERS = [pytest.param(array, part.name, id=f"{type(array).__name__}-{part.name}")
           for array in ARRAYS for part in fields(array) if part.type is int]
SWITCHES = [pytest.param(array, part.name, id=f"{type(array).__name__}-{part.name}")
            for array in ARRAYS for part in fields(array) if part.type is bool]


def changed(array, **changes):
    return type(array)(**{part.name: getattr(array, part.name)
                          for part in fields(array)} | changes)


@pytest.mark.parametrize(("array", "name"), NUMBERS)
def test_a_number_may_be_of_any_whole_type(array, name) -> None:
    value = getattr(array, name)
    again = changed(array, **{name: np.int64(value)})
    assert again == array and type(getattr(again, name)) is int
    for wrong in (value + 0.5, float(value), str(value), None, [value], np.array([value, value])):
        with pytest.raises(ValueError, match=rf"^{name} must be a whole number, not .*$"):
            changed(array, **{name: wrong})


@pytest.mark.parametrize(("array", "name"), SWITCHES)
def test_a_switch_is_a_bool(array, name) -> None:
    for wrong in ("x", 1, None):
        with pytest.raises(ValueError, match=rf"^{name} must be True or False, not {wrong!r}$"):
            changed(array, **{name: wrong})


def test_the_hash_is_that_of_the_numbers() -> None:
    assert ArrayConfig(lanes=np.uint8(16)).hash == ArrayConfig(lanes=16).hash


@pytest.mark.parametrize("array", ARRAYS, ids=["ArrayConfig", "Array"])
def test_widths(array) -> None:
    assert (MANTISSA_BITS[0], MANTISSA_BITS[-1], ACCUMULATORS) == (4, 9, (24, 32))
    for name in ("weight_bits", "activation_bits"):
        for bits in MANTISSA_BITS:
            assert getattr(changed(array, **{name: bits}), name) == bits
        for bits in (3, 10):
            with pytest.raises(ValueError, match=rf"^{name} must be 4 to 9, not {bits}$"):
                changed(array, **{name: bits})
    with pytest.raises(ValueError, match=r"^acc_bits must be 24 or 32, not 28$"):
        changed(array, acc_bits=28)
