"""Comparisons with constants, written so that each becomes a small table, not a carry chain."""

from amaranth.hdl import Const, Value


def below(constant: int, value: Value) -> Value:
    """Return ``constant < value`` for an unsigned ``value``; 0 <= constant."""
    result = Const(0, 1)
    for i in range(len(value)):
        result = (value[i] & result) if constant >> i & 1 else (value[i] | result)
    return Const(0, 1) if constant >> len(value) else result


def at_least(value: Value, constant: int) -> Value:
    """Return ``value >= constant`` for an unsigned ``value``; 0 <= constant."""
    return Const(1, 1) if constant == 0 else below(constant - 1, value)

