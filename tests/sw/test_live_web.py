"""The page of `celosia live`: what its server hands out and to whom, that it holds up nobody, and
how a real browser shows it."""

from __future__ import annotations

import base64
import html
import http.client
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import celosia
from celosia import Preprocessing
from celosia.live import web
from celosia.live.runner import Answer, Scale
from celosia.live.shots import Shot
from celosia.live.web import Newest, Page, address
from celosia.models import LENET5_PREPROCESSING, load_lenet5
from celosia_spec.errors import CelosiaError

EVIL = '<img src=x onerror="document.title=1">', "</script><script>document.title=2</script>", "a&b"
SCALE = Scale(kind="softmax", about="the network's own softmax")
PIXELS = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def shot(name: str = "a.png", pixels: np.ndarray | None = PIXELS) -> Shot:
    return Shot(name=name, inputs=np.zeros((1, 1, 6, 8), np.float32),
                picture=lambda: None if pixels is None else Image.fromarray(pixels))


def answered(name: str = "a.png", shares: tuple[float, ...] = (0.2, 0.7, 0.1),
             labels: tuple[str, ...] = EVIL, cycles: int | None = 24_000) -> Answer:
    best = int(np.argmax(shares))
    return Answer(input=name, number=best, label=labels[best], score=max(shares),
                  scores=np.array(shares), shares=np.array(shares), cycles=cycles, ms_board=1.0,
                  ms_link=None if cycles is None else 4.25, saturated=False)


@pytest.fixture
def newest() -> Newest:
    found = Newest(SCALE, EVIL)
    found.about = "icebreaker at /dev/ttyUSB1"
    return found


@pytest.fixture
def page(newest: Newest) -> Iterator[Page]:
    with Page(newest, "127.0.0.1", 0) as served:
        yield served


def port_of(page: Page) -> int:
    return int(page.url.rstrip("/").rpartition(":")[2])


def ask(page: Page, path: str, method: str = "GET",
        headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    try:
        connection.request(method, path, headers=headers or {})
        reply = connection.getresponse()
        return reply.status, {key.lower(): value for key, value in reply.getheaders()}, reply.read()
    finally:
        connection.close()


def state(page: Page) -> dict:
    status, _, body = ask(page, "/state.json")
    assert status == 200
    return json.loads(body)


def test_four_paths_and_no_more(page: Page) -> None:
    kinds = {"/": "text/html", "/page.css": "text/css", "/page.js": "text/javascript",
             "/state.json": "application/json"}
    for path, kind in kinds.items():
        status, headers, body = ask(page, path)
        assert (status, headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert int(headers["content-length"]) == len(body) > 0
    for path in ("/page.html", "/../web.py", "//etc/passwd", "/%2e%2e/web.py", "/?x", "/page.js?1",
                 "/state.json/", "/x" * 5000):
        assert ask(page, path)[0] == 404, path
    for method in ("HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        status, headers, _ = ask(page, "/", method)
        assert (status, headers["allow"]) == (405, "GET")
    assert ask(page, "/", "BREW")[0] == 501


@pytest.mark.parametrize("path", ["/", "/state.json", "/nowhere", "/page.js"])
def test_nothing_from_elsewhere_and_nothing_for_elsewhere(path: str, page: Page) -> None:
    _, headers, body = ask(page, path)
    policy = dict(part.strip().split(" ", 1)
                  for part in headers["content-security-policy"].split(";"))
    assert policy == {"default-src": "'none'", "script-src": "'self'", "style-src": "'self'",
                      "img-src": "data:", "connect-src": "'self'", "base-uri": "'none'",
                      "form-action": "'none'", "frame-ancestors": "'none'"}
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers
    assert not re.search(rb"https?:|style=|<script>|innerHTML|\son[a-z]+=", body)


@pytest.mark.parametrize(("host", "good"), [
    ("127.0.0.1:8000", True), ("localhost", True), ("LOCALHOST:1", True), ("[::1]:8000", True),
    ("evil.example", False), ("evil.example:8000", False), ("127.0.0.1.evil.example", False),
    ("localhost.evil.example", False), ("", False), ("[evil.example]", False)])
def test_only_those_who_name_this_machine_are_answered(host: str, good: bool, page: Page) -> None:
    """A page elsewhere whose name was made to lead here sends that name."""
    for path in ("/", "/state.json"):
        assert ask(page, path, headers={"Host": host})[0] == (200 if good else 421)


def test_a_request_without_a_host_or_with_two(page: Page) -> None:
    for lines in (b"", b"Host: localhost\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port_of(page)), timeout=10) as link:
            link.sendall(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            assert link.makefile("rb").readline().split()[1] == b"421"


def test_the_newest_answer(page: Page, newest: Newest) -> None:
    first = state(page)
    assert (first["about"], first["count"]) == ("icebreaker at /dev/ttyUSB1", 0)
    assert "bars" not in first and first["per_second"] is None
    for number in range(3):
        newest.show(answered(f"{number}.png"), shot(f"{number}.png"))
        time.sleep(0.02)
    newest.skip()
    said = state(page)
    assert (said["input"], said["count"], said["skipped"]) == ("2.png", 3, 1)
    assert 0 < said["per_second"] < 50
    assert (said["class"], said["label"], said["ms_board"], said["ms_link"], said["cycles"]) == (
        1, EVIL[1], 1.0, 4.25, 24_000)
    assert said["bars"] == [
        {"name": name, "length": share, "text": f"{100 * share:.1f} %", "best": name == EVIL[1]}
        for name, share in zip(EVIL, (0.2, 0.7, 0.1), strict=True)]
    data = said["picture"].removeprefix("data:image/png;base64,")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), PIXELS)
    assert ask(page, f"/state.json?{said['mark']}")[0] == 204
    newest.show(answered("next"), shot("next", None))
    assert ask(page, f"/state.json?{said['mark']}")[0] == 200
    assert state(page)["picture"] is None


def test_bars_of_many_classes_of_a_tanh_and_of_a_number() -> None:
    many = Newest(SCALE, ())
    shares = np.linspace(0, 0.02, 100)
    many.show(answered(shares=tuple(shares), labels=("x",) * 100), shot())
    found = json.loads(many.as_json())["bars"]
    assert [bar["name"] for bar in found] == [f"class {99 - at}" for at in range(web.BARS)]
    assert [bar["best"] for bar in found] == [True] + [False] * (web.BARS - 1)
    tanh = Newest(Scale(kind="tanh", about=""), ())
    plain = {"label": None, "cycles": 1, "ms_board": 1.0, "ms_link": 0.0, "saturated": False}
    tanh.show(Answer(input="x", number=1, score=0.5, scores=np.array([-1, 0.5]), shares=None,
                     **plain), shot())
    assert [(bar["length"], bar["text"]) for bar in json.loads(tanh.as_json())["bars"]] == [
        (0.0, "-1.000"), (0.75, "0.500")]
    number = Newest(Scale(kind="value", about=""), ())
    number.show(Answer(input="x", number=None, score=7.5, scores=np.array([7.5]), shares=None,
                       **plain), shot())
    said = json.loads(number.as_json())
    assert (said["bars"], said["score"], said["class"]) == ([], 7.5, None)


def test_slow_browsers_hold_up_neither_answers_nor_others_nor_the_end(newest: Newest) -> None:
    """Some send half a request, some never read what is megabytes long."""
    noise = np.random.default_rng(1).integers(0, 256, (2000, 2000), np.uint8)
    with Page(newest, "127.0.0.1", 0) as page:
        newest.show(answered(), shot(pixels=noise))
        place, links = ("127.0.0.1", port_of(page)), []
        try:
            for number in range(10):
                links.append(socket.create_connection(place, timeout=10))
                links[-1].sendall(b"GET /state.json HTTP/1.0\r\nHost: localhost\r\n"
                                  + b"\r\n" * (number % 2))
            time.sleep(0.2)
            begun = time.monotonic()
            for _ in range(1000):
                newest.show(answered(), shot())
            assert time.monotonic() - begun < 0.5
            assert state(page)["count"] == 1001
            begun = time.monotonic()
            page.close()
            assert time.monotonic() - begun < 1
        finally:
            for link in links:
                link.close()


def test_more_browsers_than_there_are_threads_are_turned_away(page: Page) -> None:
    links = []
    try:
        for _ in range(web._AT_ONCE):
            links.append(socket.create_connection(("127.0.0.1", port_of(page)), timeout=10))
        time.sleep(0.2)
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(page, "/")
        for link in links:
            link.close()
        end = time.monotonic() + 10
        while True:
            try:
                assert ask(page, "/")[0] == 200
                break
            except (http.client.HTTPException, OSError):
                assert time.monotonic() < end
                time.sleep(0.05)
    finally:
        for link in links:
            link.close()


@pytest.mark.parametrize(("text", "place"), [
    ("127.0.0.1:8000", ("127.0.0.1", 8000)), ("localhost:0", ("127.0.0.1", 0)),
    ("[::1]:80", ("::1", 80)), ("127.1.2.3:9", ("127.1.2.3", 9))])
def test_addresses_of_this_machine(text: str, place: tuple[str, int]) -> None:
    assert address(text) == place


@pytest.mark.parametrize("text", ["0.0.0.0:8000", "192.168.1.5:80", "[::]:80", "example.org:80",
                                  ":8000"])
def test_other_addresses_are_refused_with_the_reason(text: str) -> None:
    port = text.rpartition(":")[2]
    with pytest.raises(CelosiaError, match="others on the network could see") as why:
        address(text)
    assert f"ssh -L {port}:127.0.0.1:{port} " in str(why.value)


@pytest.mark.parametrize("text", ["8000", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000",
                                  "127.0.0.1:-1", "127.0.0.1:", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(CelosiaError, match="give an address and a port"):
        address(text)


def test_a_port_that_is_taken(page: Page, newest: Newest) -> None:
    with pytest.raises(CelosiaError, match="address already in use; give another port"):
        Page(newest, "127.0.0.1", port_of(page))


def browse(url: str, folder: Path, *options: str) -> str:
    """Return the page as Chromium has it after some seconds of its own clock."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=3000", *options, url],
        capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium here; install it: apt-get install chromium")


@needs_browser
def test_a_real_browser_shows_names_as_text(page: Page, newest: Newest, tmp_path: Path) -> None:
    name = "<b onmouseover=alert(1)>.png"
    newest.show(answered(name), shot(name))
    shown = browse(page.url, tmp_path, "--dump-dom")
    text = {part: html.unescape(found)
            for part, found in re.findall(r'id="([a-z-]+)"[^>]*>([^<]*)<', shown)}
    assert text["label"] == EVIL[1] and text["input"] == name
    assert (text["score"], text["board"], text["link"]) == ("70.0 %", "1.00 ms", "4.25 ms")
    assert text["about"] == "icebreaker at /dev/ttyUSB1"
    assert "the network's own softmax" in text["scale"]
    assert "<title>Celosia live</title>" in shown       # no name was obeyed
    assert shown.count("<script") == 1 and "<b onmouse" not in shown
    bars = re.findall(r'<li class="([a-z]*)">.*?title="([^"]*)".*?width: ([0-9.]+)%.*?'
                      r'class="value">([^<]*)<', shown)
    assert [(best, html.unescape(name), float(width), value) for best, name, width, value in
            bars] == [("", EVIL[0], 20, "20.0 %"), ("best", EVIL[1], 70, "70.0 %"),
                      ("", EVIL[2], 10, "10.0 %")]
    source = re.search(r'<img[^>]* src="data:image/png;base64,([^"]+)"', shown)
    assert source is not None
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(source[1])))), PIXELS)


@needs_browser
@pytest.mark.parametrize(("scheme", "paper"), [(1, (0xF6, 0xF5, 0xF2)), (0, (0x15, 0x17, 0x1C))])
def test_light_and_dark(scheme: int, paper: tuple[int, int, int], page: Page, newest: Newest,
                        tmp_path: Path) -> None:
    """The browser's own choice of colours decides; the best bar stands out in both."""
    newest.show(answered(), shot())
    browse(page.url, tmp_path, f"--blink-settings=preferredColorScheme={scheme}",
           "--window-size=500,900", f"--screenshot={tmp_path / 'page.png'}")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(int)
    assert tuple(pixels[2, 2]) == paper and tuple(pixels[-100, -2]) == paper
    best = (0xB3, 0x26, 0x5E) if scheme else (0xF0, 0x64, 0x9B)
    assert (np.abs(pixels - best).max(axis=2) < 3).sum() > 500


@needs_browser
def test_from_the_command_to_the_browser_and_ctrl_c(tmp_path: Path) -> None:
    """A picture that appears while the command runs; it ends at once though browsers hang on."""
    (tmp_path / "in").mkdir()
    program = celosia.compile(load_lenet5(pruned=True), np.zeros((1, 1, 28, 28), np.float32),
                              preprocessing=LENET5_PREPROCESSING)
    assert isinstance(program.preprocessing, Preprocessing)
    program.save(tmp_path / "net.celo")
    command = [sys.executable, "-m", "celosia", "live", str(tmp_path / "net.celo"), "--watch",
               str(tmp_path / "in"), "--backend", "golden", "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as running:
        try:
            assert running.stdout is not None and running.stderr is not None
            url = json.loads(running.stdout.readline())["page"]
            pixels, _ = celosia.datasets.shipped_test_images()
            Image.fromarray(pixels[0]).save(tmp_path / "in" / "boot.png")
            said = json.loads(running.stdout.readline())
            shown = browse(url, tmp_path, "--dump-dom")
            assert f'id="label">{said["label"]}<' in shown and ">boot.png<" in shown
            assert shown.count("<li ") == 10 and "on the board, predicted" in shown
            place = "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])
            with socket.create_connection(place, timeout=10) as hanging:
                hanging.sendall(b"GET / HTTP/1.0\r\n")
                begun = time.monotonic()
                running.send_signal(signal.SIGINT)
                assert running.wait(10) == 130
                assert time.monotonic() - begun < 2
            assert running.stderr.read() == "celosia: interrupted\n"
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(place, timeout=10)
        finally:
            running.kill()
