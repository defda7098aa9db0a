"""The flash reader: when sections are in main memory, and when it wants the port for them.

It has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import count

from celosia_sim.clock.events import NEVER
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS, FLASH, Array
from celosia_spec.isa.image import HEADER_BYTES, READ_CLOCKS, TAIL_BYTES, UNIT_BYTES

_ELEMENT = CONTROL_BITS // 8
_ASKS, _COPIED, _FREE = 4, 6, 10
"""Cycles from the last clock of an element until it is to be written; of a section until it is
copied; of the last one until the reader is free."""


class FlashReader:
    """Elements of sections that are copied one after the other."""

    def __init__(self, array: Array) -> None:
        _, self._clock = FLASH.get(array.flash, (0, 0))
        self._element = array.flash
        self._bodies: deque[tuple[int, int]] = deque()  # first element behind a header, and the end
        self._number = 0                    # of the element that comes
        self._pulse = self._asks = NEVER    # its last clock; when the one before is to be written
        self._copied: deque[int] = deque()  # strobes to come
        self._free = 0

    def busy(self, now: int) -> bool:
        """Return whether no other section can be asked for."""
        return now < self._free

    def wants(self, now: int) -> bool:
        """Return whether the port is wanted."""
        return now >= self._asks

    @property
    def odd(self) -> bool:
        """Whether the word that it wants has an odd number."""
        return (self._number - 1 - self._bodies[0][0]) // ENTRY_WORDS % 2 == 1

    def copied(self, now: int) -> bool:
        """Return whether a section is in main memory."""
        return bool(self._copied) and self._copied[0] == now

    @property
    def reads(self) -> bool:
        """Whether it reads, or has something to write."""
        return bool(self._bodies) or self._asks != NEVER

    @property
    def next(self) -> int:
        """A cycle before which nobody sees a change, if the port is free until then."""
        times = [self._copied[0] if self._copied else NEVER, self._free or NEVER]
        if self._bodies:
            times.append(self._pulse + (self._last - self._number) * self._element + _COPIED)
        return min(times)

    @property
    def asks(self) -> int:
        """A cycle before which the port is not wanted."""
        return min(self._asks, self._pulse + _ASKS)

    def clash(self, writes: Iterable[int], until: int) -> int:
        """Return the first of the cycles in which another writes, before one, from which on it may
        want the port and not have it before the next element comes; NEVER if there is none."""
        asks, first, last = self._pulse + _ASKS, 0, NEVER       # first, last: of those it may wait
        for write in writes:
            if write >= until:
                break
            if write == self._asks:
                return write
            if write != last + 1:
                first = NEVER
            if first == NEVER and not (write - asks) % self._element:
                first = write
            if first != NEVER and write - first + 1 >= self._element - _ASKS:
                return first
            last = write
        return NEVER

    def pass_over(self, until: int, taken: Collection[int]) -> list[int]:
        """Let the cycles before one pass; return those in which it had the port.

        taken : cycles in which another has it, before the next element comes another one each time.
        """
        found = [self._asks] if self._asks < until else []
        if found:
            self._asks = NEVER
        while self._bodies and self._pulse < until:
            (first, end), number = self._bodies[0], self._number
            if number == self._last:
                self._comes(self._pulse)
                continue
            ahead = (first if number < first else end if number < end else self._last) - number
            ahead = min(ahead, -((self._pulse - until) // self._element))
            behind = self._pulse + ahead * self._element
            if first <= number < end:
                found += range(self._pulse + _ASKS, behind + _ASKS, self._element)
            self._number, self._pulse = number + ahead, behind
        if taken:
            lost = frozenset(taken)
            found = [next(cycle for cycle in count(asks) if cycle not in lost) for asks in found]
        if found and found[-1] >= until:
            self._asks = found.pop()
        return found

    @property
    def _last(self) -> int:
        """Number of a section's last element."""
        return self._bodies[0][1] + TAIL_BYTES // _ELEMENT - 1

    def step(self, now: int, granted: bool, asked: Sequence[int] | None) -> None:
        """Let a cycle pass, with an access or not; asked : sections to be copied, their units."""
        wanted = self.wants(now)
        if wanted:
            self._asks = NEVER if granted else now + 1
        if self._pulse == now:
            if wanted and not granted:
                self._pulse += self._clock
            else:
                self._comes(now)
        if self.copied(now):
            self._copied.popleft()
        if self._free == now:
            self._free = 0
        if asked is not None:
            self._begin(now, asked)

    def _begin(self, now: int, sections: Sequence[int]) -> None:
        at = 0
        for units in sections:
            first = at + HEADER_BYTES // _ELEMENT
            self._bodies.append((first, first + units * UNIT_BYTES // _ELEMENT))
            at += (units + 1) * UNIT_BYTES // _ELEMENT
        self._number, self._free = 0, NEVER
        self._pulse = now + 1 + READ_CLOCKS * self._clock + self._element

    def _comes(self, now: int) -> None:
        """An element's last clock."""
        first, end = self._bodies[0]
        if first <= self._number < end:
            self._asks = now + _ASKS
        if self._number == self._last:
            self._copied.append(now + _COPIED)
            self._bodies.popleft()
            if not self._bodies:
                self._free = now + _FREE
        self._number += 1
        self._pulse = now + self._element if self._bodies else NEVER
