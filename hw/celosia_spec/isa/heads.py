"""Heads of rows: what their numbers become in control words, and are read as."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import EXCESS, HEAD, LONG_EXCESS, excess_record
from celosia_spec.isa.fields import Value
from celosia_spec.isa.numbers import EXPONENT_MIN, UNIT_MARGIN

_MOST = HEAD["right"].most
"""Largest field ``right``: from there on a bias rounds to zero."""

_LOW = LONG_EXCESS["low"]


def bias_left(array: Array) -> int:
    """Return how far to the left a bias can move: it is shifted from there to the right. Codes of
    residual operands go through the same shifter where one lane leaves a cycle; they begin with
    the highest bit of a word, and reach 2^(W - 3)."""
    if array.residual and array.drain == 1:
        return array.acc_bits - 18 + array.activation_bits
    return array.acc_bits - 17


def _unit(array: Array, *, signed_in: bool) -> int:
    """Return the exponent of the unit of mantissas of an input of exponent -16."""
    return EXPONENT_MIN - (array.activation_bits - 1) + signed_in


def pack(array: Array, *, signed_in: bool, sw: Value, sb: Value, bias: Value, sums: Value,
         word: Value, element: Value, real: Value) -> list[Any]:
    """Return the control words of heads, from ints or int64 arrays of one shape.

    sw : exponent s_w of the weight mantissas' unit.   sb : that of the bias mantissa's, less s_w.
    sums : of the row's mantissas, for inputs with signs.   Others are fields of `HEAD`.

    ValueError: what does not fit.
    """
    unit = _unit(array, signed_in=signed_in)
    right = np.minimum(bias_left(array) - sb + unit, _MOST)
    words = HEAD.pack(room=sw + unit + array.acc_bits + UNIT_MARGIN,
                      right=right if isinstance(sb, np.ndarray) else int(right), bias=bias,
                      word=word, element=element, real=real)
    if signed_in:
        record = excess_record(array)
        excess = -sums << array.activation_bits - 1
        words += (record.pack(sum=-sums) if record is EXCESS else
                  record.pack(low=_LOW.decode(excess), high=excess >> _LOW.bits))
    return words


def unpack(array: Array, words: Sequence[int], *, signed_in: bool) -> dict[str, int]:
    """Return the numbers of a head: the fields of `HEAD`, ``sw`` and ``sb`` as in `pack`, ``sb``
    so small at least that the bias rounds to zero, and ``excess``, what is added to sums of inputs
    with signs."""
    size = len(HEAD.words)
    found = HEAD.unpack(words[:size])
    unit = _unit(array, signed_in=signed_in)
    found["sw"] = found["room"] - unit - array.acc_bits - UNIT_MARGIN
    found["sb"] = bias_left(array) + unit - found["right"]
    excess = excess_record(array).unpack(words[size:]) if signed_in else {"sum": 0}
    found["excess"] = (excess["sum"] << array.activation_bits - 1 if "sum" in excess else
                       (excess["high"] << _LOW.bits) + excess["low"])
    return found
