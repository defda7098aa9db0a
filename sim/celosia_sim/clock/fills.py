"""The fill engine: records, and when it wants main memory's port for them.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque
from collections.abc import Sequence

from celosia_sim.clock.events import NEVER, Command


class FillEngine:
    """Records of fills.

    queued : records that are not done.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._records: deque[Command] = deque()
        self._lines: list[int] = []         # accesses of the lines to come, backwards
        self._channels: deque[list[int]] = deque()
        self._left = self._runs = self._goes = self._next = 0
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
        """Return a cycle, this one or a later one, before which it only waits or goes along a line.

        starved : another has main memory's port.
        """
        if not self._working:
            return max(now, self._next) if self.queued else NEVER
        if not self._left:
            return min(max(self._ended + 1, self._goes), self._done)
        if starved and not self.zero:
            return NEVER
        return max(now, self._runs) + self._left - 1

    def pass_over(self, start: int, until: int, taken: Sequence[int], *, starved: bool) -> None:
        """Let the cycles from one until another pass.

        taken : in which the port is not free.   starved : it never is.
        """
        if self._working and self._left and (self.zero or not starved):
            start = max(start, self._runs)
            lost = 0 if self.zero else sum(cycle >= start for cycle in taken)
            self._left -= max(until - start - lost, 0)

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
        self._line(now, 6, 4)

    def _turn(self, now: int) -> None:
        """A line ends."""
        if self._lines:
            self._line(now, 3, 4)
        elif self._channels:
            self._lines = self._channels.popleft()[::-1]
            self._line(now, 4, 4)
        else:
            self._ended, self._done = NEVER, now + 3

    def _line(self, now: int, prepared: int, rest: int) -> None:
        """Begin a line: its address is there after so many cycles, all else ``rest`` later."""
        self._left, self._ended = self._lines.pop(), NEVER
        self._goes = now + prepared + rest
        self._runs = self._goes if self._records[0].apart else now + prepared + 1
