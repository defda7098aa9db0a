"""Recorded stimulus and expected answers of one block.

A test builds the vectors from a model; the simulators of `blocks.players` play them.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TypeAlias

__all__ = ["Step", "Vectors", "pack"]

Step: TypeAlias = tuple[int, dict[str, int], dict[str, tuple[int, int]]]
"""Idle cycles before, inputs that change, and (value, mask) of every output that is checked."""


def pack(values: Iterable[int], bits: int) -> int:
    """Return ``values`` side by side, ``bits`` each, the first one in the lowest bits."""
    return sum((value & (1 << bits) - 1) << bits * at for at, value in enumerate(values))


class Vectors:
    """What a block gets and must answer in each cycle.

    All inputs are zero until they are set. An output is compared before the clock edge that ends
    the cycle, with the inputs of that cycle applied. Packed ports (arrays, structures) are
    integers, signed values may be given as such.
    """

    def __init__(self) -> None:
        self._levels: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self._pulses: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self._expected: defaultdict[int, dict[str, tuple[int, int]]] = defaultdict(dict)
        self.length = 0

    def hold(self, cycle: int, **values: int) -> None:
        """Set inputs from ``cycle`` on."""
        self._levels[cycle].update(values)
        self.length = max(self.length, cycle + 1)

    def pulse(self, cycle: int, **values: int) -> None:
        """Set inputs in ``cycle`` only; afterwards the held value is back."""
        self._pulses[cycle].update(values)
        self.length = max(self.length, cycle + 1)

    def expect(self, cycle: int, mask: int = -1, **values: int) -> None:
        """Compare outputs in ``cycle``, where ``mask`` is set. Two expectations of one port in one
        cycle add their masks."""
        for name, value in values.items():
            before, covered = self._expected[cycle].get(name, (0, 0))
            assert (before ^ value) & covered & mask == 0, f"{name} in cycle {cycle}: both values"
            self._expected[cycle][name] = (before & covered | value & mask, covered | mask)
        self.length = max(self.length, cycle + 1)

    def steps(self, widths: dict[str, int]) -> list[Step]:
        """Return the cycles in which something happens, as plain unsigned numbers.

        widths : bits of every port; ports of no bits are left out.
        """
        held: dict[str, int] = {}
        present: dict[str, int] = {}
        result: list[Step] = []
        idle = 0
        for cycle in range(self.length):
            held.update(self._levels[cycle])
            wanted = {**dict.fromkeys(present, 0), **held, **self._pulses[cycle]}
            limited = {name: value & (1 << widths[name]) - 1 for name, value in wanted.items()
                       if widths[name]}
            changes = {name: value for name, value in limited.items()
                       if present.get(name, 0) != value}
            present.update(changes)
            checks = {}
            for name, (value, mask) in self._expected[cycle].items():
                mask &= (1 << widths[name]) - 1
                if mask:
                    checks[name] = (value & mask, mask)
            if changes or checks or cycle == self.length - 1:
                result.append((idle, changes, checks))
                idle = 0
            else:
                idle += 1
        return result
