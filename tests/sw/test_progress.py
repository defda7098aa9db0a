"""What long work shows: a line a stage where stderr is a file, a bar where it is a terminal."""

import io
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from celosia.cli.progress import stages, work

STAGED = """
from celosia.cli.progress import work
with work("inputs") as shown:
    shown.stage("translating")
    shown.stage("compiling", 3, 41)
    shown.count(2, 5)
"""


@pytest.fixture
def seconds(monkeypatch):
    """The clock, in a list that the test sets."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_lines(capsys, seconds):
    with work("inputs") as shown:
        shown.stage("translating")
        assert capsys.readouterr().err == "translating"     # is there while the work goes on
        seconds[0] = 6.0
        shown.stage("compiling", 1, 3)
        shown.stage("compiling", 2, 3)
        seconds[0] = 1806.4
        shown.count(1, 2)
        shown.count(2, 2)
    captured = capsys.readouterr()
    assert captured.err == ": 6 s\ncompiling: 1,800 s\n"
    assert captured.out == ""


def test_quick_work_shows_nothing(capsys):
    with work("inputs") as shown:
        shown.count(1, 1)
    assert capsys.readouterr() == ("", "")


def test_line_ends_where_the_work_fails(capsys, seconds):
    def fail():
        with stages() as say:
            say("seed 0: 28.0 MHz")
            say("bitstream")
            seconds[0] = 2.0
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert capsys.readouterr().err == "seed 0: 28.0 MHz\nbitstream: 2 s\n"


def test_work_goes_on_where_nobody_reads(monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    with work() as shown:
        shown.stage("translating")


def test_bar_on_a_terminal():
    """One line that changes and is gone at the end; stdout stays empty."""
    parent, child = pty.openpty()
    done = subprocess.run([sys.executable, "-c", STAGED], stderr=child, stdout=subprocess.PIPE,
                          env=os.environ | {"TERM": "xterm", "COLUMNS": "80"}, check=True)
    os.close(child)
    text = b""
    try:
        while part := os.read(parent, 65536):
            text += part
    except OSError:         # the end, as Linux tells it
        pass
    os.close(parent)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode())
    assert done.stdout == b""
    assert re.search(r"inputs .* 2 of 5 0:00:00", shown)
    assert all(len(line.rstrip()) <= 80 for line in re.split(r"[\r\n]+", shown))
