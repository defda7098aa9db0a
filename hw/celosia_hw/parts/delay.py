"""Values some cycles later."""

from collections.abc import Collection, Mapping
from typing import Any

from amaranth.hdl import Module, Signal, Value


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


class Later:
    """Values of one block, any number of cycles later.

    values  : by their names.   cleared : names of those that a reset clears on their way.
    """

    def __init__(self, m: Module, values: Mapping[str, Any], cleared: Collection[str]) -> None:
        self.m, self.cleared = m, cleared
        self.chains = {name: [Value.cast(value)] for name, value in values.items()}

    def __call__(self, name: str, cycles: int) -> Value:
        """Return the value of that name as it was ``cycles`` cycles ago."""
        values = self.chains[name]
        values += chain(self.m, values[-1], cycles + 1 - len(values), f"{name}_{len(values)}",
                        reset_less=name not in self.cleared)[1:]
        return values[cycles]
