"""What carries a link's bytes: a serial device or a socket, opened so that neither end blocks.

A wire is read by one thread and written by another. `Gone` is raised by either where the other
end is not there any more.
"""

import os
import select
import socket
from contextlib import suppress
from typing import Any, Protocol

from celosia_boards.host.ports import Port, PortError
from celosia_boards.host.refusals import refusal

__all__ = ["Gone", "Wire", "open_wire"]

CONNECT_S = 5.0
"""Seconds within which a socket must be answered."""

_CHUNK = 1 << 16
_EMPTY = 3
"""Reads in a row that return nothing although there is something: the device has gone."""


class Gone(Exception):
    """The other end is not there any more; the message says what that means, in words."""


class Wire(Protocol):
    """What a link needs of what carries its bytes.

    low_latency : whether the driver hands bytes over at once; False where it does not say so.
    """

    low_latency: bool

    def receive(self) -> bytes:
        """Wait for bytes, and return what is there; b"" after `wake`. Gone."""

    def send(self, data: memoryview, timeout_s: float) -> int:
        """Return how many of the bytes were taken, which is 0 after ``timeout_s``. Gone."""

    def wake(self) -> None:
        """Let `receive` return."""

    def forget(self) -> None:
        """Drop what was taken and is not yet sent, so that closing does not wait for it."""

    def close(self) -> None:
        """Close it, and give the lock back. Not while `receive` waits."""


def open_wire(port: Port, baud: int) -> Wire:
    """Open what a port names; PortError says why it cannot be."""
    if port.address is not None:
        return _Socket(port)
    return _Device(port, baud)


class _Polled:
    """A file descriptor that never blocks, and a pair of sockets that wakes its reader.

    It is select that waits: poll knows no terminals on some systems.
    """

    low_latency = False
    lost = "unplugged?"
    """What has become of the other end where it is gone."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._woken, self._waker = socket.socketpair()
        self._empty = 0

    def receive(self) -> bytes:
        woken = self._woken.fileno()
        while True:
            try:
                ready, _, _ = select.select([self._number, woken], [], [])
                if woken in ready:
                    return b""
                data = self._read()
            except (BlockingIOError, InterruptedError):
                continue
            except (OSError, ValueError) as problem:    # ValueError: closed meanwhile
                raise Gone(self.lost) from problem
            if data:
                self._empty = 0
                return data
            self._empty += 1
            if self._empty >= _EMPTY:
                raise Gone(self.lost)

    def send(self, data: memoryview, timeout_s: float) -> int:
        try:
            return self._write(data[:_CHUNK])
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as problem:
            raise Gone(self.lost) from problem
        try:
            select.select([], [self._number], [], timeout_s)
        except (OSError, ValueError) as problem:
            raise Gone(self.lost) from problem
        return 0

    def wake(self) -> None:
        self._waker.send(b"x")

    def close(self) -> None:
        self._woken.close()
        self._waker.close()

    def _read(self) -> bytes:
        return os.read(self._number, _CHUNK)

    def _write(self, data: memoryview) -> int:
        return os.write(self._number, data)


class _Device(_Polled):
    """A serial port or a pseudo-terminal: raw, 8 bits, no parity, one stop bit, no flow control,
    locked. DTR and RTS stay as opening sets them, and no break is ever sent: it resets boards
    whose bridge is a DAPLink.

    pyserial opens and sets it up. Its own write would wait until nearly everything has left, and
    the line would then stand still while the host makes the next bytes.
    """

    def __init__(self, port: Port, baud: int) -> None:
        import termios

        import serial

        self._errors = (OSError, termios.error)         # SerialException is an OSError
        try:
            self._serial: Any = serial.Serial(port.name, baudrate=baud, exclusive=True)
        except (*self._errors, ValueError) as problem:
            raise refusal(port.name, baud, problem) from problem
        if port.virtual:
            self.lost = "what served it has ended"
        super().__init__(self._serial.fileno())
        # a pseudo-terminal, and many a driver, knows no such mode
        with suppress(OSError, ValueError, AttributeError, NotImplementedError):
            self._serial.set_low_latency_mode(True)
            self.low_latency = True

    def forget(self) -> None:
        with suppress(*self._errors):       # where the device is gone, so is what it held
            self._serial.reset_output_buffer()

    def close(self) -> None:
        self._serial.close()
        super().close()


class _Socket(_Polled):
    """A connection of TCP whose small writes leave at once."""

    lost = "the other end has closed the connection"

    def __init__(self, port: Port) -> None:
        assert port.address is not None
        host, number = port.address
        try:
            self._socket = socket.create_connection((host, number), timeout=CONNECT_S)
        except (OSError, UnicodeError) as problem:
            why = getattr(problem, "strerror", None) or str(problem)
            raise PortError(f"nothing answers at {port.name} ({why}); is a board served there? "
                            f"celosia serve-sim P.celo --listen {host}:{number} serves one"
                            ) from None
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().__init__(self._socket.fileno())

    def forget(self) -> None:
        """Nothing: closing a connection does not wait."""

    def _read(self) -> bytes:
        return self._socket.recv(_CHUNK)

    def _write(self, data: memoryview) -> int:
        return self._socket.send(data)

    def close(self) -> None:
        self._socket.close()
        super().close()
