"""A virtual board behind a link that is not perfect: the same calls, with faults on the way."""

import math

from celosia_sim.virtual.board import VirtualBoard
from celosia_sim.virtual.faults import TO_BOARD, TO_HOST, Damage, Faults

__all__ = ["Wire"]


class Wire:
    """A board and the faults on the way to it and back. It sends, runs and resets as the board.

    board  : the host's bytes go to it. Nobody else should send to it or run it.
    faults : what happens on the way; nothing without them. Stalls are not done here: they take
             wall time, and this has none (`damage`.stalled tells them).
    resets : how often the board has been configured anew.
    """

    def __init__(self, board: VirtualBoard, faults: Faults | None = None) -> None:
        self.board, self.damage, self.resets = board, Damage(faults or Faults()), 0
        self._every = self.damage.faults.reset_after
        self._before_reset = self._every
        self._queue = bytearray()

    @property
    def pending(self) -> int:
        """Bytes that are not yet on the board's line."""
        return len(self._queue) + self.board.pending

    @property
    def quiet(self) -> bool:
        return self.board.quiet and not self._queue

    def send(self, data: bytes) -> None:
        """Let bytes set out for the board."""
        arrived = self.damage.damage(data, TO_BOARD)
        if self._every:
            self._queue += arrived
        else:
            self.board.send(arrived)

    def run(self, cycles: int) -> bytes:
        """Let so many cycles pass; return what comes back."""
        return self._advance(cycles, until_quiet=False)

    def run_until_quiet(self, max_cycles: int) -> bytes:
        """Let time pass until nothing can change any more, at most so many cycles."""
        return self._advance(max_cycles, until_quiet=True)

    def reset(self) -> None:
        """Configure the board anew; bytes that have not reached it are still to come."""
        self.board.reset(keep_pending=True)
        self.resets += 1

    def _advance(self, cycles: int, *, until_quiet: bool) -> bytes:
        end, came = self.board.cycles + cycles, bytearray()
        while self._every and self.board.cycles < end and (self._queue or not self._before_reset):
            came += self._feed(end)
        left = max(0, end - self.board.cycles)
        came += self.board.run_until_quiet(left) if until_quiet else self.board.run(left)
        return self.damage.damage(bytes(came), TO_HOST)

    def _feed(self, end: int) -> bytes:
        """Let the board have bytes up to the next reset, and then that reset."""
        board, came = self.board, bytearray()
        if not board.pending:
            due, self._queue = self._queue[:self._before_reset], self._queue[self._before_reset:]
            self._before_reset -= len(due)
            board.send(bytes(due))
        while board.pending and board.cycles < end:
            step = math.ceil(board.pending * board.byte_cycles) or 32
            came += board.run(min(step, end - board.cycles))
        if not board.pending and not self._before_reset:
            came += board.run(math.ceil(board.byte_cycles))     # the last one arrives
            self.reset()
            self._before_reset = self._every
        return bytes(came)
