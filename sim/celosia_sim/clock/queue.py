"""Writes of a cluster that wait for main memory's port.

It has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from celosia_spec.isa.memories import WRITES, WRITES_AHEAD

_ROOM = WRITES - WRITES_AHEAD       # writes with which it lets passes end


class WriteQueue:
    """What an output path writes, where several share the port.

    level : writes that wait.
    """

    def __init__(self) -> None:
        self.level = 0
        self._room = self.lets = True

    @property
    def rests(self) -> bool:
        """Whether nothing changes before something is written."""
        return not self.level and self.lets and self._room

    def lets_all(self, writes: int) -> bool:
        """Whether it lets passes end whenever they do, while no more than so many are written."""
        return self.lets and self._room and self.level + writes < _ROOM

    def step(self, *, written: bool, granted: bool) -> None:
        """Let a cycle pass.

        lets : a pass may end in it, as the sequencer saw room in the cycle before.
        """
        self.lets, self._room = self._room, self.level < _ROOM
        self.level += written - granted
