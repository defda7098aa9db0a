"""A port of a virtual board on loopback."""

import select
import socket
from contextlib import suppress
from ipaddress import ip_address

from celosia_sim.virtual.ends import BACKLOG
from celosia_spec.errors import SimulationError

__all__ = ["Socket"]


class Socket:
    """A TCP port on loopback, for one client at a time; others are closed at once.

    address : HOST:PORT; a PORT of 0 takes a free one. SimulationError where HOST is no loopback
              address: whoever reaches the port can load programs.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        try:
            alone, number = ip_address(host.strip("[]")), int(port)
            known = 0 <= number < 1 << 16
        except ValueError:
            known = False
        if not known:
            raise SimulationError(f"--listen {address!r}: give an address and a port, such as "
                                  f"127.0.0.1:2000; port 0 takes a free one")
        if not alone.is_loopback:
            raise SimulationError(f"--listen {address}: others could load and run programs there; "
                                  f"give 127.0.0.1:{port}, and reach it from elsewhere with: ssh "
                                  f"-L {port}:127.0.0.1:{port}")
        family = socket.AF_INET6 if alone.version == 6 else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((str(alone), number))
            self._listener.listen(4)
        except OSError as problem:
            self._listener.close()
            raise SimulationError(f"--listen {address}: {problem.strerror}; give another "
                                  f"port") from None
        self._listener.setblocking(False)
        shown = f"[{alone}]" if alone.version == 6 else str(alone)
        self.name = f"socket://{shown}:{self._listener.getsockname()[1]}"
        self._client: socket.socket | None = None
        self._waiting, self.lost, self.refused = bytearray(), 0, 0

    @property
    def client(self) -> bool:
        return self._client is not None

    def files(self) -> list[int]:
        return [self._listener.fileno()]

    def readable(self) -> list[int]:
        return [self._client.fileno()] if self._client else []

    def writable(self) -> list[int]:
        return self.readable() * bool(self._waiting)

    def read(self, limit: int) -> bytes:
        data = b""
        if self._client is not None and limit:
            try:
                data = self._client.recv(limit)
                gone = not data
            except BlockingIOError:
                gone = False
            except OSError:
                gone = True
            if gone:
                self._forget()
        self._accept()
        return data

    def write(self, data: bytes) -> None:
        if self._client is None:
            self.lost += len(data)
            return
        room = BACKLOG - len(self._waiting)
        self.lost += max(0, len(data) - room)
        self._waiting += data[:room]
        try:
            del self._waiting[:self._client.send(self._waiting)]
        except BlockingIOError:
            pass
        except OSError:
            self._forget()

    def close(self) -> None:
        self._forget()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(BlockingIOError):
            while True:
                other, _ = self._listener.accept()
                if self._client is None or not self._there():
                    self._forget()
                    other.setblocking(False)
                    other.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._client = other
                else:
                    self.refused += 1
                    with suppress(OSError):
                        other.sendall(b"celosia serve-sim: another client is connected\n")
                    other.close()

    def _there(self) -> bool:
        """Whether the client has not gone meanwhile."""
        assert self._client is not None
        try:
            return bool(select.select([self._client], [], [], 0)[0] == []
                        or self._client.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def _forget(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
        self._waiting.clear()
