"""Counters of few bits."""

from amaranth.hdl import Cat, Value


def counted(count: Value, step: Value) -> Value:
    """Return a count of few bits, one more with ``step``, without a chain of carries."""
    return Cat(bit ^ (step & count[:k].all()) for k, bit in enumerate(count))
