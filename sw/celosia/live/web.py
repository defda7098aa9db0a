"""The newest answer as a page in a browser on this machine.

The server hands out four things, whoever asks: the page, its style, its script, and what there is
to show as JSON. It takes nothing in. Requests run in threads of their own and read the newest
answer only: a browser that is slow, or that stops in the middle, holds up nobody but itself.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import json
import secrets
import socket
import socketserver
import sys
import time
from collections import deque
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import BoundedSemaphore, Lock, Thread
from typing import TYPE_CHECKING, Any

from celosia.exits import words_of
from celosia_spec.errors import CelosiaError

if TYPE_CHECKING:
    from celosia.live.runner import Answer, Scale
    from celosia.live.shots import Shot

__all__ = ["BARS", "Newest", "Page", "address"]

BARS = 20
"""Most bars that are shown; of more classes the best ones."""
_RATE_S, _RATE_MOST = 3.0, 1000
"""Answers of so many seconds, and so many of them at most, tell how many there are a second."""
_AT_ONCE = 32
"""Requests that are answered at the same time; further ones are turned away."""
_REQUEST_S = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css"),
          "/page.js": ("page.js", "text/javascript")}
_STATE = "/state.json"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "img-src data:; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Newest:
    """The newest answer, kept by whoever runs inputs and read by whoever shows it.

    scale : of the scores.   labels : of the classes, or ().
    about : what answers, in words; may be set until the first answer.
    """

    def __init__(self, scale: Scale, labels: tuple[str, ...]) -> None:
        self._scale, self._labels = scale, labels
        self._about = ""
        self._lock, self._drawing = Lock(), Lock()
        self._run = secrets.token_hex(4)        # tells one command from the next
        self._times: deque[float] = deque(maxlen=_RATE_MOST)   # this and the next under _lock
        self._count = self._skipped = 0
        self._answer: Answer | None = None
        self._shot: Shot | None = None
        self._drawn: tuple[str, bytes] = ("", b"")          # under _drawing

    @property
    def about(self) -> str:
        return self._about

    @about.setter
    def about(self, words: str) -> None:
        with self._lock:
            self._about = words
            self._run = secrets.token_hex(4)

    def show(self, answer: Answer, shot: Shot) -> None:
        """Take an answer in; at once, whoever is looking."""
        with self._lock:
            self._times.append(time.monotonic())
            self._count += 1
            self._answer, self._shot = answer, shot

    def skip(self) -> None:
        """Count an input that was refused."""
        with self._lock:
            self._skipped += 1

    @property
    def mark(self) -> str:
        """Another one whenever there is something else to show."""
        return f"{self._run}-{self._count}-{self._skipped}"

    def as_json(self) -> bytes:
        """Return what the page shows, drawn once for all that ask."""
        with self._drawing:
            with self._lock:
                mark, answer, shot = self.mark, self._answer, self._shot
                state = {"mark": mark, "about": self._about, "per_cent": self._scale.about,
                         "count": self._count, "skipped": self._skipped,
                         "per_second": self._per_second()}
            if self._drawn[0] != mark:
                found = {} if answer is None or shot is None else {
                    **answer.as_json(), "bars": self._bars(answer), "picture": _data(shot)}
                self._drawn = mark, json.dumps(state | found, allow_nan=False).encode()
            return self._drawn[1]

    def _per_second(self) -> float | None:
        """Return the answers a second of late; None before the second one."""
        last = self._times[-1] if self._times else 0.0
        while self._times and self._times[0] < last - _RATE_S:
            self._times.popleft()
        if len(self._times) < 2:
            return None
        return (len(self._times) - 1) / max(last - self._times[0], 1e-9)

    def _bars(self, answer: Answer) -> list[dict[str, Any]]:
        """Return a name, a length of 0 to 1 and a text for each class, or the best ones."""
        if self._scale.kind == "value":
            return []
        count = len(answer.scores)
        shown = range(count) if count <= BARS else (-answer.scores).argsort(kind="stable")[:BARS]
        bars = []
        for number in map(int, shown):
            score = float(answer.scores[number])
            if answer.shares is None:       # of a tanh: -1 to 1
                length, text = (score + 1) / 2, f"{score:.3f}"
            else:
                length = float(answer.shares[number])
                text = f"{length:.1%}".replace("%", " %")
            bars.append({"name": self._labels[number] if self._labels else f"class {number}",
                         "length": length, "text": text, "best": number == answer.number})
        return bars


def _data(shot: Shot) -> str | None:
    """Return an input's picture, made a PNG here, as a data URL; None where it has none."""
    picture = shot.picture()
    if picture is None:
        return None
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def address(text: str) -> tuple[str, int]:
    """Return host and port of "127.0.0.1:8000"; CelosiaError unless they are of this machine."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise CelosiaError(f"--listen {text[:60]!r}: give an address and a port, 127.0.0.1:8000; "
                           f"127.0.0.1:0 is any that is free")
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise CelosiaError(
            f"--listen {text[:60]!r}: others on the network could see what your board sees, and "
            f"nothing asks them who they are; listen on 127.0.0.1:{port}, and look at it from "
            f"elsewhere through ssh -L {port}:127.0.0.1:{port} THIS-MACHINE")
    return "127.0.0.1" if host == "localhost" else host, int(port)


class Page:
    """Serves the page of ``newest`` until it is closed. A context manager.

    url : of the page.   CelosiaError where the port is not free.
    """

    def __init__(self, newest: Newest, host: str, port: int) -> None:
        try:
            self._server = _Server((host, port), newest)
        except OSError as problem:
            raise CelosiaError(f"the page at {host}:{port}: {words_of(problem)}; give another "
                               f"port, or 0 for any that is free: --listen {host}:0") from None
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http://{shown}:{self._server.server_address[1]}/"
        self._thread = Thread(target=partial(self._server.serve_forever, poll_interval=0.05),
                              name="celosia page", daemon=True)
        self._thread.start()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more requests, and cut off those that are being answered."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _AT_ONCE

    def __init__(self, place: tuple[str, int], newest: Newest) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        self.newest, self.hosts = newest, {*_LOOPBACK, place[0]}
        self.files = {path: ((files("celosia.live") / name).read_bytes(), kind)
                      for path, (name, kind) in _FILES.items()}
        self._free = BoundedSemaphore(_AT_ONCE)
        super().__init__(place, _Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)    # HTTPServer's asks DNS for this machine's name
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):        # a browser that went away is no fault
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of fixed paths, to browsers that name this machine."""

    server: _Server
    timeout = _REQUEST_S
    server_version, sys_version = "celosia", ""

    def do_GET(self) -> None:
        if not self._at_home():
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        path, _, query = self.path.partition("?")
        if path == _STATE:
            if query == self.server.newest.mark:
                self._answer(HTTPStatus.NO_CONTENT, b"", "")
            else:
                self._answer(HTTPStatus.OK, self.server.newest.as_json(), "application/json")
        elif path in self.server.files and not query:
            self._answer(HTTPStatus.OK, *self.server.files[path])
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _other(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = do_TRACE = do_CONNECT = _other

    def _at_home(self) -> bool:
        """Whether the request names this machine: a page elsewhere whose own name was made to lead
        here (DNS rebinding) sends that name. The port may be another one: of a tunnel."""
        named = self.headers.get_all("Host") or []
        if len(named) != 1:
            return False
        host = named[0].strip()
        if host.startswith("["):
            return host[1:].partition("]")[0] in self.server.hosts
        return host.partition(":")[0].lower() in self.server.hosts

    def _refuse(self, status: HTTPStatus) -> None:
        self._answer(status, f"{status.phrase}\n".encode(), "text/plain")

    def _answer(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *values: Any) -> None:
        """Write nothing: stderr is for the user."""
