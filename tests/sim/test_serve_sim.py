"""``celosia serve-sim`` as a user runs it: a process that ends by a signal."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import serial

import celosia
from celosia.cli.serve_sim import _shown
from celosia_boards.targets import target
from celosia_sim.virtual import Lights, Status
from celosia_sim.virtual.leds import leds
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Decoder, Kind, Reply
from celosia_spec.isa.memories import Space
from host_frames import encode_read, encode_status


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A small program for the board, in a file."""
    torch = pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("served") / "a net.celo"
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    celosia.compile(model, np.zeros((1, 1, 4, 4), np.float32), target="icebreaker").save(path)
    return path


@contextlib.contextmanager
def served(program, *options):
    """The process, and the first line that it printed."""
    with subprocess.Popen([sys.executable, "-m", "celosia", "serve-sim", program, *options],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline()
        finally:
            process.kill()


def ended(process):
    """Return what else it printed until its end, on stdout and stderr."""
    process.wait(timeout=20)
    return process.stdout.read(), process.stderr.read()


def ask(port, request):
    with serial.serial_for_url(port, timeout=20) as line:
        line.write(protocol.paced(request))
        decoder, found = Decoder(), []
        while not found:
            found = decoder.feed(line.read(1))
        return found[0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_a_board_with_the_image_in_its_flash_until_a_signal(program, number, tmp_path):
    link = tmp_path / "port"
    stream = celosia.load(program).program.entries.view("<u2")
    with served(program, "--link", link) as (process, first):
        assert first == f"port: {link}\n"
        assert ask(str(link), encode_status(tag=3)) == Reply(tag=3, kind=Kind.IDLE)
        held = ask(str(link), encode_read(Space.MAIN, 0, element_bytes=2))
        assert held.elements(2) == stream[:4].tolist()
        with serial.serial_for_url(str(link)):
            told = next(line for line in process.stderr if "client" in line)    # behind the stages
            assert re.match(r"a client is here: 0\.00\d s simulated, ", told)
        process.send_signal(number)
        rest, _ = ended(process)
    assert process.returncode == 0 and not os.path.lexists(link)
    assert f"celosia run '{program}' --input FILE --port {link}" in rest
    assert rest.splitlines()[-1].endswith("s simulated, 31 bytes in, 16 out, 0 runs")


def test_json_tells_the_port_first(program):
    with served(program, "--json", "--byte-level", "--listen", "127.0.0.1:0") as (process, first):
        ready = json.loads(first)
        assert ready["port"].startswith("socket://127.0.0.1:")
        assert ready["board"] == "icebreaker" and ready["byte_level"]
        assert ready["clock_mhz"] == target("icebreaker").clock_mhz
        assert ready["bytes"] == 0 and ready["seconds"] > 0
        assert ask(ready["port"], encode_status(tag=1)).tag == 1
        process.send_signal(signal.SIGINT)
        assert ended(process)[0] == ""
    assert process.returncode == 0


@pytest.mark.parametrize("options, words", [
    (["--byte-level", "--baud-error", "1"], "leave byte_level out"),
    (["--flip", "1.5"], "flip must be a rate from 0 to 1, not 1.5"),
    (["--listen", "0.0.0.0:2000"], "give 127.0.0.1:2000"),
    (["--listen", "127.0.0.1:0", "--link", "x"], "--link: it leads to a pseudo-terminal"),
    (["--board", "arty"], "unknown target 'arty'"), (["--board", "hx8k"], "compile it for hx8k")])
def test_refusals(program, options, words):
    with served(program, *options) as (process, first):
        assert first == ""
        errors = ended(process)[1]
    assert process.returncode == 1 and words in errors and errors.count("\n") == 1


def test_leds_are_those_of_the_board():
    seen = Lights(busy=True, saturated=True)
    assert list(leds(target("icebreaker"), seen)) == [("LED 0 error/saturated", True),
                                                      ("LED 1 busy", True)]
    assert list(leds(target("ecp5-25f"), Lights(busy=True))) == [
        ("busy", True), ("error", False), ("saturated", False)]


def test_a_terminal_shows_the_leds_in_one_line(monkeypatch):
    shown = io.StringIO()
    shown.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.ExitStack() as stack:
        show = _shown(target("icebreaker"), stack)
        for busy in (True, False):
            show(Status(seconds=1.25, bytes_in=1234, bytes_out=56, starts=3, resets=0,
                        seen=Lights(busy=busy), client=True, damage={}, lost=0))
    first, second = shown.getvalue().rstrip("\n").split("\r\x1b[2K")[1:]
    assert first == ("○ LED 0 error/saturated  ● LED 1 busy   "
                     "1.250 s, 1,234 bytes in, 56 out, 3 runs")[:79]
    assert "○ LED 1 busy" in second and "\n" not in second
