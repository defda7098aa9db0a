"""Where clients of a virtual board connect: what a port is, and a pseudo-terminal."""

import ctypes
import os
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from celosia_spec.errors import SimulationError

__all__ = ["BACKLOG", "End", "Pty"]

BACKLOG = 1 << 16
"""Bytes from the board that wait for a client to read them; more are lost, as at a real port."""

_EVENTS = 4096
_OPENED, _CLOSED = 0x20, 0x18       # IN_OPEN; IN_CLOSE_WRITE | IN_CLOSE_NOWRITE
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")      # struct inotify_event


class End(Protocol):
    """One port, one client at a time. ``name`` is what a driver calls it, ``lost`` how many bytes
    nobody read."""

    name: str
    lost: int

    @property
    def client(self) -> bool:
        """Whether somebody has the port open."""

    def files(self) -> list[int]:
        """What to wait on for news, the client's bytes left out."""

    def readable(self) -> list[int]:
        """What to wait on for the client's bytes."""

    def writable(self) -> list[int]:
        """What to wait on until the client takes more."""

    def read(self, limit: int) -> bytes:
        """Return bytes of the client that are there, after its coming and going was noted."""

    def write(self, data: bytes) -> None:
        """Let the client have bytes; without one they are lost."""

    def close(self) -> None:
        """Free the port."""


class Pty:
    """A pseudo-terminal in raw mode. Clients may come and go: it is kept open here.

    link : a symbolic link to it to be made, and to be removed at the end.
    """

    def __init__(self, link: Path | None = None) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._device = self.name = os.ttyname(self._slave)
        self.lost, self._open, self._waiting = 0, 0, bytearray()
        self._watch = _watch(self._device)
        self._link = link
        if link is not None:
            _link(link, self._device)
            self.name = str(link)

    @property
    def client(self) -> bool:
        return self._open > 0

    def files(self) -> list[int]:
        return [self._watch]

    def readable(self) -> list[int]:
        return [self._master]

    def writable(self) -> list[int]:
        return [self._master] * bool(self._waiting)

    def read(self, limit: int) -> bytes:
        data = b""
        with suppress(BlockingIOError):
            data = os.read(self._master, limit) if limit else b""
        # After the bytes: a client that sent some has been seen to open the port by now.
        self._notice()
        return data

    def write(self, data: bytes) -> None:
        if not self.client:
            self.lost += len(data)
            return
        room = BACKLOG - len(self._waiting)
        self.lost += max(0, len(data) - room)
        self._waiting += data[:room]
        with suppress(BlockingIOError):
            del self._waiting[:os.write(self._master, self._waiting)]

    def close(self) -> None:
        for file in (self._watch, self._master, self._slave):
            os.close(file)
        if (self._link is not None and self._link.is_symlink()
                and str(self._link.readlink()) == self._device):
            self._link.unlink()

    def _notice(self) -> None:
        """Count who has opened and closed; what the last client did not read is for nobody."""
        for mask in _events(self._watch):
            self._open += bool(mask & _OPENED) - bool(mask & _CLOSED)
            if self._open <= 0:
                self._waiting.clear()
                termios.tcflush(self._slave, termios.TCIFLUSH)


def _watch(path: str) -> int:
    """Return a file that tells who opens and closes ``path``: inotify, of which Python knows
    nothing."""
    calls = ctypes.CDLL(None, use_errno=True)
    file: int = calls.inotify_init1(_NONBLOCK_CLOEXEC)
    if file < 0 or calls.inotify_add_watch(file, os.fsencode(path), _OPENED | _CLOSED) < 0:
        raise OSError(ctypes.get_errno(), "inotify does not work here", path)
    return file


def _events(file: int) -> Iterator[int]:
    with suppress(BlockingIOError):
        while data := os.read(file, _EVENTS):
            at = 0
            while at < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, at)
                yield mask
                at += _EVENT.size + length


def _link(link: Path, device: str) -> None:
    """Make a symbolic link, in place of one that an earlier board left there."""
    if link.is_symlink() and str(link.readlink()).startswith("/dev/pts/"):
        if link.exists():
            raise SimulationError(f"--link {link}: another board is served there, or was and its "
                                  f"pseudo-terminal is another program's now; give another path, "
                                  f"or remove the link")
        link.unlink()
    try:
        link.symlink_to(device)
    except OSError as problem:
        raise SimulationError(f"--link {link}: {(problem.strerror or '').lower()}; give another "
                              f"path") from None
