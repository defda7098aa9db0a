"""Values some cycles later."""

from typing import Any

from amaranth.hdl import Module, Signal


def chain(m: Module, value: Any, cycles: int, name: str, *,
          reset_less: bool = True) -> list[Any]:
    """Return ``value`` as it is, one cycle later, ..., ``cycles`` later."""
    values = [value]
    for k in range(cycles):
        after = Signal.like(value, name=f"{name}_{k}", reset_less=reset_less)
        m.d.sync += after.eq(values[-1])
        values.append(after)
    return values


def delayed(m: Module, value: Any, cycles: int, name: str) -> Any:
    """Return ``value`` as it was ``cycles`` cycles ago; nothing clears it."""
    return chain(m, value, cycles, name)[-1]
