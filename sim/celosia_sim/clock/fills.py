"""The fill engine: records, and when it wants main memory's port for them.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from celosia_sim.clock.events import NEVER, Command
from celosia_spec.isa.array import Array

_DONE = 3
"""Cycles from the last line's end until a record is done."""


@dataclass(frozen=True, kw_only=True)
class _Moves:
    """How an engine comes to its next line.

    line, channel, record : cycles from a line's end until the next one's address is there, where
    that is of the same channel or the next one; likewise from a record's begin.   behind : from
    then until all else is, of which an element is wanted behind a cycle, but with ``apart`` none.
    """

    line: int
    channel: int
    record: int
    behind: int


_NARROW, _WIDE = (_Moves(line=3, channel=4, record=6, behind=4),
                  _Moves(line=0, channel=0, record=2, behind=1))

class FillEngine:
    """Records of fills.

    queued : records that are not done.
    """

    def __init__(self, array: Array) -> None:
        self._moves = _WIDE if array.two_ports else _NARROW
        self.queued = 0
        self._records: deque[Command] = deque()
        self._lines: list[int] = []         # accesses of the lines to come, backwards
        self._channels: deque[list[int]] = deque()
        self._left = self._runs = self._goes = self._next = self._rest = 0
        self._ended, self._done, self._working = NEVER, NEVER, False

    @property
    def idle(self) -> bool:
        return not self.queued

    def wants(self, now: int) -> bool:
        """Return whether a word is wanted, or four zeros are written."""
        return self._working and self._left > 0 and now >= self._runs

    @property
    def zero(self) -> bool:
        return self._records[0].zero

    def next(self, now: int, *, starved: bool) -> int:
        """Return a cycle, this one or a later one, before which nobody sees a change: no record is
        done, and none begins.

        starved : another has main memory's port.
        """
        if not self._working:
            return max(now, self._next) if self.queued else NEVER
        if self._done != NEVER:
            return self._done
        if starved and not self.zero and (self._left or self._rest):
            return NEVER
        ends = max(now, self._runs) + self._left if self._left else self._ended + 1
        return max(ends, self._goes) + self._rest + _DONE

    def pass_over(self, start: int, until: int, taken: Sequence[int], *, starved: bool) -> None:
        """Let the cycles from one until another pass, before `next`.

        taken : in which the port is not free, in their order.   starved : it never is.
        """
        while self._working and self._done == NEVER:
            if self._left:
                start = max(start, self._runs)
                if start >= until or (starved and not self.zero):
                    return
                start = self._go_along(start, until, () if self.zero else taken)
            elif (turn := max(self._ended + 1, self._goes)) < until:
                self._turn(turn)
            else:
                return

    def _go_along(self, start: int, until: int, taken: Sequence[int]) -> int:
        """Go along a line in the cycles from one until another; return the cycle behind its end, or
        ``until``."""
        for at in range(bisect_left(taken, start), len(taken)):
            free = taken[at] - start
            if free >= self._left:
                break
            self._left -= free
            start = taken[at] + 1
        free = min(self._left, max(until - start, 0))
        self._left -= free
        if not self._left:
            self._ended = start + free - 1
        return start + free

    def step(self, now: int, granted: bool, loaded: Command | None) -> None:
        """Let a cycle pass, with an access or not; a record may be there from the next one on."""
        if not self._working:
            if self.queued and now >= self._next:
                self._begin(now)
        else:
            if granted:
                self._left -= 1
                if not self._left:
                    self._ended = now
            if now == max(self._ended + 1, self._goes):
                self._turn(now)
            if now == self._done:
                self._records.popleft()
                self.queued -= 1
                self._working, self._done, self._next = False, NEVER, now + 1
        if loaded is not None:
            self._records.append(loaded)
            self.queued += 1

    def _begin(self, now: int) -> None:
        record = self._records[0]
        assert record.lines is not None
        self._working = True
        self._channels = deque(record.lines)
        self._lines = self._channels.popleft()[::-1]
        self._rest = sum(self._least(left) for lines in record.lines for left in lines)
        self._line(now, self._moves.record)

    def _turn(self, now: int) -> None:
        """A line ends."""
        if self._lines:
            self._line(now, self._moves.line)
        elif self._channels:
            self._lines = self._channels.popleft()[::-1]
            self._line(now, self._moves.channel)
        else:
            self._ended, self._done = NEVER, now + _DONE

    def _line(self, now: int, prepared: int) -> None:
        """Begin a line: its address is there after so many cycles."""
        self._left, self._ended = self._lines.pop(), NEVER
        self._rest -= self._least(self._left)
        self._goes = now + prepared + self._moves.behind
        self._runs = self._goes if self._records[0].apart else now + prepared + 1

    def _least(self, left: int) -> int:
        """Return the cycles that a line takes at least, behind another one."""
        moves = self._moves
        return moves.line + max(
            moves.behind, (moves.behind if self._records[0].apart else 1) + left)
