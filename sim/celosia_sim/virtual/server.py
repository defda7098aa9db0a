"""A virtual board behind a port that any program can open."""

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celosia_sim.virtual.board import Lights
from celosia_sim.virtual.ends import End, Pty
from celosia_sim.virtual.wire import Wire

__all__ = ["Server", "Status", "serving"]

PENDING_MAX = 4096
"""Bytes for the board that wait here; a client that sends more has to wait, as at a real port."""

_SLICE, _SLICE_BYTES = 20_000, 4_000     # cycles between two looks at the port: 2 ms of work
_SHOW = 0.2             # seconds between two reports


@dataclass(frozen=True, kw_only=True)
class Status:
    """A virtual board as of now.

    seconds   : simulated time.   bytes_in, bytes_out, starts, resets : so far.
    seen      : indicators that were on at some time since the last status.
    client    : whether somebody has the port open.   damage : faults so far, by kind.
    lost      : bytes from the board that nobody read.
    """

    seconds: float
    bytes_in: int
    bytes_out: int
    starts: int
    resets: int
    seen: Lights
    client: bool
    damage: dict[str, int]
    lost: int


class Server:
    """Carries bytes between a port and a board, and lets the board's time pass.

    Simulated time passes as fast as it can while bytes are on the line or the machine works, and
    then not at all: the process sleeps until a client sends something.

    wire  : the board. Only the server uses it while it serves.
    end   : the port; a pseudo-terminal of its own unless given. Closed with the server.
    show  : called from `serve` with a `Status`, at most five times a second, as long as something
            happens.
    """

    def __init__(self, wire: Wire, end: End | None = None,
                 show: Callable[[Status], None] | None = None) -> None:
        self._wire, self._end, self._show = wire, end or Pty(), show
        self._wake, self._woken = os.pipe()
        self._stopped = self._reset = False
        self._news = True       # something that `show` has not been told
        self._shown = 0.0

    @property
    def port(self) -> str:
        """What a driver calls the port."""
        return self._end.name

    def serve(self) -> None:
        """Serve until `stop` is called, or an exception such as Ctrl-C comes."""
        while not self._stopped:
            arrived = self._arrived()
            if self._reset:
                self._reset = False
                self._wire.reset()
            self._pass_time(arrived)
            self._report()

    def stop(self) -> None:
        """Let `serve` return; from any thread or signal handler."""
        self._stopped = True
        os.write(self._woken, b"s")

    def reset(self) -> None:
        """Configure the board anew, before the next byte; from any thread."""
        self._reset = True
        os.write(self._woken, b"r")

    def close(self) -> None:
        self._end.close()
        os.close(self._wake)
        os.close(self._woken)

    def status(self) -> Status:
        board, wire = self._wire.board, self._wire
        return Status(seconds=board.seconds, bytes_in=board.bytes_in, bytes_out=board.bytes_out,
                      starts=board.starts, resets=wire.resets, seen=board.seen_lights(),
                      client=self._end.client, damage=dict(wire.damage.done), lost=self._end.lost)

    def _arrived(self) -> int:
        """Wait for bytes as long as there is nothing else to do; return how many came."""
        end, wire = self._end, self._wire
        room = wire.pending < PENDING_MAX
        wait = 0.0 if not wire.quiet else _SHOW if self._news and self._show else None
        files = [self._wake, *end.files(), *(end.readable() if room else [])]
        ready, writable, _ = select.select(files, end.writable(), [], wait)
        if writable:
            end.write(b"")
        if self._wake in ready:
            os.read(self._wake, 64)
        if not set(ready) - {self._wake}:
            return 0
        self._news = True
        data = end.read(max(0, PENDING_MAX - wire.pending))
        if data:
            wire.send(data)
            if stalled := wire.damage.stalled(len(data)):
                select.select([self._wake], [], [], stalled)
        return len(data)

    def _pass_time(self, arrived: int) -> None:
        wire = self._wire
        if wire.quiet and not arrived and not wire.pending:
            return
        self._news = True
        came = wire.run_until_quiet(_SLICE_BYTES if wire.board.byte_level else _SLICE)
        if came:
            self._end.write(came)

    def _report(self) -> None:
        now = time.monotonic()
        if self._show is not None and self._news and now - self._shown >= _SHOW:
            self._shown, self._news = now, False
            self._show(self.status())


@contextmanager
def serving(wire: Wire, end: End | None = None) -> Iterator[Server]:
    """Serve a board from a thread while the block runs."""
    server = Server(wire, end)
    ended: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve()
        except BaseException as problem:
            ended.append(problem)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
        server.close()
    if ended:
        raise ended[0]
