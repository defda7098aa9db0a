"""Elements of stored maps: sums rounded to odd, before their tensor's exponent is known.

A sum is rounded once to the mantissas that a reader wants (numerics, section 4), but the exponent
of its tensor is known only when the last sum is there. So a map is stored as floating-point numbers
with two bits more than a mantissa has, the last of which is 1 where anything was cut off: rounded
to odd. Rounding such a number to nearest even gives what rounding the sum would have given (Boldo
and Melquiond, "Emulation of FMA and correctly rounded sums", IEEE TC 57, 2008, theorem 3).

| bits | tensors that are never below 0 | other tensors |
|---|---|---|
| 15 .. 11 | e + 16 | e + 16 |
| 10 | | sign |
| significand | 10 .. 0 | 9 .. 0 |

value = significand * 2^(e - 10), or 2^(e - 9) with a sign; e is floor(log2 abs value), -16 ... 15.
The leading one is explicit: below 2^-16 a significand has leading zeros. A number that needs an
exponent above 15 has the largest exponent and significand; every reader clips it. Order is kept.

The network's output is stored as its sums, in two elements each: the lower half first.
"""

import numpy as np

from celosia_spec.isa.numbers import ELEMENT_BITS, EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS

SIGN = 1 << SIGNIFICAND_BITS - 1
"""The sign of an element, where its tensor has numbers below 0."""


def to_odd(sums: np.ndarray, unit: np.ndarray | int, *, signed: bool) -> np.ndarray:
    """Return the elements that store sums, int64 of their shape, 0 ... 65535.

    sums : int64, abs < 2^52; not negative where not ``signed``.   unit : exponent of their least
    significant bit, broadcast.
    """
    sums = np.asarray(sums, dtype=np.int64)
    magnitude = np.abs(sums)
    bits = SIGNIFICAND_BITS - signed
    length = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    e = np.where(magnitude == 0, EXPONENT_MIN, length - 1 + unit).clip(min=EXPONENT_MIN)
    right = e - (bits - 1) - unit
    cut = right.clip(0, 62)
    kept = magnitude >> cut
    odd = kept | (magnitude != kept << cut)
    significand = np.where(right < 0, magnitude << np.minimum(-right, bits), odd)
    over = e > EXPONENT_MAX
    significand = np.where(over, (1 << bits) - 1, significand)
    sign = np.where(sums < 0, SIGN, 0) if signed else 0
    stored: np.ndarray = (np.minimum(e, EXPONENT_MAX) - EXPONENT_MIN << SIGNIFICAND_BITS
                          | sign | significand)
    return stored


def exponent_of(elements: np.ndarray) -> np.ndarray:
    """Return e of elements, int64, -16 ... 15; -16 of a zero."""
    found: np.ndarray = (np.asarray(elements, dtype=np.int64) >> SIGNIFICAND_BITS) + EXPONENT_MIN
    return found


def finish(elements: np.ndarray, exponent: np.ndarray | int, bits: int, *,
           signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas of a tensor at its exponent, int64, and which of them were clipped.

    exponent : of the tensor, -16 ... 15, broadcast.   bits : L, 4 to 9.
    Mantissas are -(2^(L-1) - 1) ... 2^(L-1) - 1 where ``signed``, else 0 ... 2^L - 1.
    """
    elements = np.asarray(elements, dtype=np.int64)
    places = SIGNIFICAND_BITS - signed
    significand = elements & (1 << places) - 1
    negative = elements & SIGN > 0 if signed else np.zeros(elements.shape, bool)
    distance = exponent - exponent_of(elements)
    cut = (SIGNIFICAND_BITS - bits + distance.clip(0)).clip(max=SIGNIFICAND_BITS + 2)
    rounded = significand + (1 << cut - 1) - 1 + (significand >> cut & 1) >> cut
    largest = (1 << bits - signed) - 1
    clipped = (rounded > largest) | ((distance < 0) & (significand > 0))
    magnitude = np.where(clipped, largest, rounded)
    return np.where(negative, -magnitude, magnitude), clipped


def code(mantissas: np.ndarray, bits: int, *, signed: bool) -> np.ndarray:
    """Return mantissas as a bank holds them, 0 ... 2^L - 1: those with a sign are moved up by
    2^(L-1), which the sums of a row take back."""
    return mantissas + ((1 << bits - 1) if signed else 0)


def halves(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the elements that store sums of 32 bits, int64 of their shape, 0 ... 65535."""
    half = (1 << ELEMENT_BITS) - 1
    return sums & half, sums >> ELEMENT_BITS & half


def joined(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the sums that elements store, int64 of their shape."""
    sign = 1 << ELEMENT_BITS - 1
    sums: np.ndarray = low | (high ^ sign) - sign << ELEMENT_BITS
    return sums
