"""Writes of a cluster that wait for main memory's port.

It has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque

from celosia_spec.isa.memories import WRITES, WRITES_AHEAD

_ROOM = WRITES - WRITES_AHEAD       # writes with which it lets passes end


class WriteQueue:
    """What an output path writes, where several share the port.

    waiting : writes that wait, whether each has a word with an odd number.
    """

    def __init__(self) -> None:
        self.waiting: deque[bool] = deque()
        self._room = self.lets = True

    @property
    def level(self) -> int:
        """How many wait."""
        return len(self.waiting)

    @property
    def rests(self) -> bool:
        """Whether nothing changes before something is written."""
        return not self.waiting and self.lets and self._room

    def lets_all(self, writes: int) -> bool:
        """Whether it lets passes end whenever they do, while no more than so many are written."""
        return self.lets and self._room and self.level + writes < _ROOM

    def step(self, *, written: bool | None, granted: bool) -> None:
        """Let a cycle pass.

        written : whether a word with an odd number is written; None without one.
        lets : a pass may end in it, as the sequencer saw room in the cycle before.
        """
        self.lets, self._room = self._room, self.level < _ROOM
        if granted:
            self.waiting.popleft()
        if written is not None:
            self.waiting.append(written)
