"""Numbers that hang on a few bits, as the least logic."""

from collections.abc import Mapping

from amaranth.hdl import Const, Mux, Value


def lookup(index: Value, numbers: Mapping[int, int], bits: int) -> Value:
    """Return ``numbers[index]``, of so many bits; what of an index without a number does not
    matter."""
    if not len(index):
        return Const(next(iter(numbers.values())), bits)
    half = 1 << len(index) - 1
    low = {place: number for place, number in numbers.items() if place < half}
    high = {place - half: number for place, number in numbers.items() if place >= half}
    if not (low and high):
        return lookup(index[:-1], low or high, bits)
    return Mux(index[-1], lookup(index[:-1], high, bits), lookup(index[:-1], low, bits))
