"""The bytes between the host and a board: what the driver writes to and reads from.

A `Line` is all that the driver needs: real, or simulated with a time of its own. A `Link` is the
real one. A thread of it collects what arrives, so that nothing is lost while the host computes.
"""

import time
from threading import Condition, Thread
from types import TracebackType
from typing import Protocol, Self

from celosia_boards.host.ports import Port, find
from celosia_boards.host.wires import Gone, Wire, open_wire
from celosia_spec.errors import CelosiaError

__all__ = ["LINE_BITS", "UNREAD", "Line", "Link", "LinkError", "open_link"]

LINE_BITS = 10
"""Bits that a byte takes on a serial line: start, eight, stop."""

UNREAD = 1 << 20
"""Bytes that are kept for a host that does not read: ten seconds of a line at 1 Mbaud."""

_LOOK_S = 0.1
"""Seconds after which a write that waits looks whether the board is still there."""


class LinkError(CelosiaError):
    """The link does not carry bytes any more; the message is one line."""


class Line(Protocol):
    """What carries bytes to a board and back, with the time that its time-outs are counted in."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def baud(self) -> int:
        """Bits a second that it carries, for how long a transfer takes at least."""

    def now(self) -> float:
        """Return seconds since some moment; never fewer than before."""

    def write(self, data: bytes, timeout_s: float) -> None:
        """Hand all of ``data`` over within ``timeout_s``, or raise LinkError."""

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived, at once or within ``timeout_s``; b"" where nothing has."""


class Link:
    """A `Line` on a port that this process alone uses, from `open_link`; one thread calls it.

    name        : the port, as users name it.
    baud        : bits a second; of a socket or a pseudo-terminal without meaning.
    low_latency : whether the driver said that it hands bytes over at once.

    Time is time.monotonic's. It holds at most `UNREAD` bytes.
    """

    def __init__(self, wire: Wire, name: str, baud: int) -> None:
        self.name, self.baud, self.low_latency = name, baud, wire.low_latency
        self._wire = wire
        self._news = Condition()
        self._unread = bytearray()          # what stands here down to _closed changes under _news
        self._lost = 0                      # bytes that came when _unread was full
        self._gone = ""                     # what has become of the board
        self._closed = False
        self._shut = False
        self._reader = Thread(target=self._collect, name=f"celosia {name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def now(self) -> float:
        """Return the seconds of time.monotonic."""
        return time.monotonic()

    def write(self, data: bytes, timeout_s: float) -> None:
        """Hand all of ``data`` to the system, which sends it; at the line's speed where it is
        more than the system's buffer holds.

        LinkError where that takes longer than ``timeout_s``, or the board is gone; a part of
        ``data`` may have left then.
        """
        deadline = self.now() + timeout_s
        left = memoryview(data)
        while left:
            self._check()
            wait = min(deadline - self.now(), _LOOK_S)
            try:
                left = left[self._wire.send(left, max(wait, 0.0)):]
            except Gone as lost:
                self._loses(str(lost))
                continue
            if left and self.now() >= deadline:
                self._wire.forget()
                raise LinkError(f"the board at {self.name} takes no bytes: "
                                f"{len(data) - len(left)} of {len(data)} left in {timeout_s:g} s")

    def read(self, timeout_s: float) -> bytes:
        """Return what has arrived; b"" where nothing does within ``timeout_s``.

        LinkError where the board is gone and all that it sent has been read, or where more came
        than is kept, until `clear`.
        """
        with self._news:
            self._news.wait_for(self._anything, timeout_s)
            if self._lost and not self._closed:
                raise LinkError(f"the board at {self.name} sent {len(self._unread) + self._lost:,} "
                                f"bytes that nobody read, more than the {UNREAD:,} that are kept")
            if not self._unread:
                self._check()
            data = bytes(self._unread)
            self._unread.clear()
            return data

    def clear(self) -> None:
        """Drop what has arrived and was not read."""
        with self._news:
            self._unread.clear()
            self._lost = 0

    def close(self) -> None:
        """End the thread and give the port back; what was written leaves all the same."""
        if self._shut:
            return
        with self._news:
            self._closed = True
            self._unread.clear()
            self._news.notify_all()
        self._wire.wake()
        self._reader.join()
        self._wire.close()                  # not before: its number may become another file's
        self._shut = True

    def _anything(self) -> bool:
        return bool(self._unread or self._lost or self._gone or self._closed)

    def _check(self) -> None:
        """LinkError unless bytes can come and go."""
        if self._closed:
            raise LinkError(f"the link to the board at {self.name} is closed")
        if self._gone:
            raise LinkError(f"the board at {self.name} is gone ({self._gone})")

    def _loses(self, why: str) -> None:
        with self._news:
            self._gone = self._gone or why
            self._news.notify_all()

    def _collect(self) -> None:
        """Keep what arrives, until the link is closed or the board is gone."""
        try:
            while data := self._wire.receive():
                with self._news:
                    room = UNREAD - len(self._unread)
                    self._unread += data[:room]
                    self._lost += len(data[room:])
                    self._news.notify_all()
        except Gone as lost:
            self._loses(str(lost))


def open_link(port: Port | str, baud: int) -> Link:
    """Open a port for this process alone; PortError says why it cannot be.

    baud : bits a second, which the board's build was made for.
    """
    place = port if isinstance(port, Port) else find(port)
    return Link(open_wire(place, baud), place.name, baud)
