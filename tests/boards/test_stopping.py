"""Builds that are stopped: tools end, folders go, and the next build clears what was left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from celosia_boards.processes import stoppable
from celosia_boards.toolchain import run_tool
from celosia_boards.workplace import workplace

BUILD = """
import sys
from pathlib import Path
from celosia_boards.toolchain import run_tool
from celosia_boards.workplace import workplace
with workplace(Path(sys.argv[1]), "celosia") as work:
    run_tool("yosys", [], work, "celosia.yosys.log")
"""


def until(condition):
    """Wait for something; True once it is so, False after a while without it."""
    end = time.monotonic() + 20
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return bool(found)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
        return file.read().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def running(tmp_path, fake_tool):
    """A build in a process of its own, its tool, and a process that the tool started; the tool
    never ends."""
    pids = tmp_path / "pids"
    fake_tool("YOSYS", f"sleep 600 & echo $$ $! > {pids}.part; mv {pids}.part {pids}; wait")
    out = tmp_path / "out"
    builder = subprocess.Popen([sys.executable, "-c", BUILD, str(out)], stderr=subprocess.DEVNULL)
    assert until(pids.exists)
    tools = [int(pid) for pid in pids.read_text().split()]
    yield out, builder, tools
    builder.kill()
    builder.wait()
    for pid in filter(alive, tools):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_stopped_build_leaves_nothing(running, number):
    out, builder, tools = running
    assert len(list(out.iterdir())) == 1
    builder.send_signal(number)
    builder.wait(timeout=20)
    assert builder.returncode != 0
    if number != signal.SIGINT:
        assert builder.returncode == 128 + number
    assert until(lambda: not any(alive(pid) for pid in tools))
    assert list(out.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's parent-death signal")
def test_killed_build_is_cleared_up_after(running):
    """Nothing can be done in a process that is killed outright: Linux ends its tool, and the next
    build removes its folder, but not that of a build that lives."""
    out, builder, tools = running
    with workplace(out, "celosia") as work:
        assert work in out.iterdir()
        assert len(list(out.iterdir())) == 2, "the other build lives"
    builder.kill()
    builder.wait()
    assert until(lambda: not alive(tools[0]))
    assert len(list(out.iterdir())) == 1
    with workplace(out, "celosia") as work:
        assert list(out.iterdir()) == [work]
    assert list(out.iterdir()) == []


def test_other_files_stay(tmp_path):
    """Only work folders of builds of this name are cleared."""
    kept = [".celosia-notes", ".other-x.build", "celosia-y.build"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / ".celosia-z.build").symlink_to(tmp_path / ".celosia-notes")
    with workplace(tmp_path, "celosia"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, ".celosia-z.build"])


def test_tool_ends_with_any_exception(tmp_path, fake_tool):
    """A time-out of a caller's own, say: the tool is killed, and the exception comes through."""
    fake_tool("YOSYS", "sleep 600")

    def give_up(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    started = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            run_tool("yosys", [], tmp_path, "log")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - started < 60


def test_signals_are_given_back():
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        with pytest.raises(SystemExit) as caught:
            signal.raise_signal(signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_program_s_own_handler_stays():
    def mine(*_):
        """Do nothing."""

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)
