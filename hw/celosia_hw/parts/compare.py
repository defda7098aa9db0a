"""Comparisons written so that each becomes a small table, not a carry chain."""

from amaranth.hdl import Const, Mux, Value


def below(constant: int, value: Value) -> Value:
    """Return ``constant < value`` for an unsigned ``value``; 0 <= constant."""
    result = Const(0, 1)
    for i in range(len(value)):
        result = (value[i] & result) if constant >> i & 1 else (value[i] | result)
    return Const(0, 1) if constant >> len(value) else result


def at_least(value: Value, constant: int) -> Value:
    """Return ``value >= constant`` for an unsigned ``value``; 0 <= constant."""
    return Const(1, 1) if constant == 0 else below(constant - 1, value)


def larger(one: Value, other: Value) -> Value:
    """Return ``one > other`` for short unsigned values of the same width."""
    result: Value = Const(0, 1)
    for own, its in zip(one, other, strict=True):
        result = Mux(own ^ its, own, result)
    return result
