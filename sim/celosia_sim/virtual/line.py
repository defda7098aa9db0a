"""A line to a virtual board in the same process, in simulated time: what the driver is measured and
tried on. The host computes in no time; what the link delays and damages is said."""

from collections import deque
from collections.abc import Callable, Sequence

from celosia_sim.virtual.board import VirtualBoard

__all__ = ["Killed", "SimulatedLine"]

_STEP_S = 1e-4      # how far time goes at once while the board is at work, without a latency

Damage = Callable[[bytes], bytes]


class Killed(Exception):
    """The host ended in the middle of a write."""


def _whole(data: bytes) -> bytes:
    return data


class SimulatedLine:
    """The host's end of a line to ``board``, a `celosia_boards.host.link.Line`.

    Parameters
    ----------
    board : VirtualBoard
        What is at the other end.
    latency_s : float
        Seconds that a byte takes between the host and the board's line, each way; what comes from
        the board is delivered once in so many seconds, as USB bridges do.
    to_board, to_host : function of bytes
        What becomes of bytes on their way.
    stalled : function of a number of bytes
        Seconds for which the board's side holds so many bytes up.
    byte_s : float
        Seconds between two bytes of the host; 0 sends them as they are written.
    resets : sequence of float
        Moments, seconds from now on, at which the board is configured anew: its memories are zero
        then.
    down_s : float
        Seconds that this takes; bytes that come meanwhile are lost.
    most : int
        Bytes that one read brings at most, as of a USB packet; 0 is no limit.
    dies_after : int or None
        Bytes after which the host ends, with `Killed`.

    Attributes
    ----------
    sent, received : bytes that the host wrote and read.
    """

    def __init__(self, board: VirtualBoard, *, latency_s: float = 0.001,
                 to_board: Damage = _whole, to_host: Damage = _whole,
                 stalled: Callable[[int], float] = lambda count: 0.0, byte_s: float = 0.0,
                 resets: Sequence[float] = (), down_s: float = 0.0, most: int = 0,
                 dies_after: int | None = None) -> None:
        self.name, self.baud = "the virtual board", board.baud
        self.board, self.latency_s, self.byte_s = board, latency_s, byte_s
        self.sent = self.received = 0
        self._to_board, self._to_host, self._stalled = to_board, to_host, stalled
        self._down_s = down_s
        self._dies_after, self._most = dies_after, most
        self._skipped = 0.0             # seconds in which the board had nothing to do
        self._up = 0.0                  # when the board is configured
        self._resets = deque(self.now() + moment for moment in sorted(resets))
        self._going: deque[tuple[float, bytes]] = deque()
        self._coming: deque[tuple[float, bytes]] = deque()

    def now(self) -> float:
        """Return simulated seconds."""
        return self.board.seconds + self._skipped

    def write(self, data: bytes, timeout_s: float) -> None:
        """Hand bytes to the link, which takes any number."""
        ends = self._dies_after is not None and self.sent + len(data) > self._dies_after
        if self._dies_after is not None and ends:
            data = data[:max(self._dies_after - self.sent, 0)]
        self.sent += len(data)
        at = max(self.now() + self.latency_s, self._going[-1][0] if self._going else 0.0)
        at += self._stalled(len(data))
        data = self._to_board(data)
        if self.byte_s:
            self._going.extend((at + (place + 1) * self.byte_s, data[place:place + 1])
                               for place in range(len(data)))
        else:
            self._going.append((at, data))
        if ends:
            self.read(self.latency_s)       # what was written leaves all the same
            raise Killed

    def read(self, timeout_s: float) -> bytes:
        """Let time pass until bytes come, at most ``timeout_s``; return them."""
        end = self.now() + timeout_s
        while not (self._coming and self._coming[0][0] <= self.now()):
            if self.now() >= end:
                return b""
            self._step(end)
        came = bytearray()
        while self._coming and self._coming[0][0] <= self.now():
            at, data = self._coming.popleft()
            left = self._most - len(came) if self._most else len(data)
            came += data[:left]
            if data[left:]:
                self._coming.appendleft((at, data[left:]))
                break
        self.received += len(came)
        return bytes(came)

    def _step(self, end: float) -> None:
        """Let time pass until the next thing happens on either way, or to ``end``."""
        if self._resets and self._resets[0] <= self.now():
            self._resets.popleft()
            self.board.reset(keep_pending=not self._down_s)
            self._up = self.now() + self._down_s
        while self._going and self._going[0][0] <= self.now():
            data = self._going.popleft()[1]
            if self.now() >= self._up:
                self.board.send(data)
        until = min([end, *(queue[0][0] for queue in (self._going, self._coming) if queue),
                     *list(self._resets)[:1]])
        if self.board.pending or not self.board.quiet:
            until = min(until, self.now() + max(self.latency_s, _STEP_S))
        before = self.now()
        came = self.board.run_until_quiet(max(int((until - before) * self.board.clock_hz), 1))
        if came and self.now() >= self._up:
            self._coming.append((self.now() + self.latency_s, self._to_host(came)))
        if self.board.quiet and not self.board.pending:
            self._skipped += max(until - self.now(), 0.0)
