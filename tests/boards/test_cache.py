"""The build cache: whole or built again, once whoever asks, and nobody else's."""

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from celosia_boards.cache import cache_directory, cached, digest
from celosia_boards.processes import started
from celosia_sim.simulators.tools import run_tool
from celosia_spec.errors import CacheError, SimulationError


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CELOSIA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_directory(folder, monkeypatch, tmp_path):
    assert cache_directory() == folder
    assert folder.is_dir()
    monkeypatch.delenv("CELOSIA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "celosia"


def test_digest_sees_borders():
    assert digest("ab", "c") != digest("a", "bc")
    assert digest("ab", "c") == digest("ab", "c")


def test_failed_build_leaves_nothing(folder):
    def build(path):
        (path / "half").write_text("written")
        raise RuntimeError("no more")
    with pytest.raises(RuntimeError, match=r"^no more$"):
        cached("thing", build)
    assert [path.name for path in folder.iterdir()] == ["thing.lock"]
    assert (cached("thing", lambda path: (path / "half").write_text("whole"))
            / "half").read_text() == "whole"


SLOW_BUILD = """
import sys, time
from pathlib import Path
from celosia_boards.cache import cached

def build(path):
    with open(sys.argv[1], "a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    (path / "result").write_text("whole")

assert (cached("thing", build) / "result").read_text() == "whole"
"""


def test_waiting_for_another_process_is_told(folder):
    """As soon as it begins: the other is let go by the word."""
    cached("other", build_two)
    with (folder / "thing.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        stages = []

        def heard(*stage):
            stages.append(stage)
            fcntl.flock(held, fcntl.LOCK_UN)

        cached("thing", build_two, heard)
    assert stages == [("waiting for another process that builds the same", 0, 0)]


def test_two_processes_build_once(tmp_path):
    """The second of two processes waits for the first and builds nothing."""
    log = tmp_path / "log"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(log)], env=env)
                 for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert log.read_text() == "built\n"


def build_two(path):
    (path / "inner").mkdir()
    (path / "inner" / "library").write_bytes(b"library" * 1000)
    (path / "text").write_text("text")


def unbuildable(path):
    pytest.fail("built again")


def truncate(entry):
    os.truncate(entry / "inner" / "library", 4096)


def flip(entry):
    data = bytearray((entry / "inner" / "library").read_bytes())
    data[100] ^= 1
    (entry / "inner" / "library").write_bytes(data)


DAMAGES = {
    "truncated": truncate, "bit flipped": flip,
    "file missing": lambda entry: (entry / "text").unlink(),
    "no sums": lambda entry: (entry / "sums.json").unlink(),
    "sums cut": lambda entry: os.truncate(entry / "sums.json", 9),
    "sums of nothing": lambda entry: (flip(entry), (entry / "sums.json").write_text("{}")),
    "sums too deep": lambda entry: (entry / "sums.json").write_text("[" * 100_000),
    "sums of another kind": lambda entry: (entry / "sums.json").write_text("[3]"),
    "empty folder": lambda entry: (shutil.rmtree(entry), entry.mkdir()),
    "a file": lambda entry: (shutil.rmtree(entry), entry.write_text("")),
    "a link to nothing": lambda entry: (shutil.rmtree(entry), entry.symlink_to("nothing")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entries_are_built_again(folder, damage):
    entry = cached("thing", build_two)
    assert cached("thing", unbuildable) == entry
    DAMAGES[damage](entry)
    assert cached("thing", build_two) == entry
    assert (entry / "inner" / "library").read_bytes() == b"library" * 1000
    assert cached("thing", unbuildable) == entry
    assert sorted(path.name for path in folder.iterdir()) == ["thing", "thing.lock"]


def test_damaged_and_not_mended(folder):
    """A rebuild that fails leaves the damaged entry, which is never used."""
    def build(path):
        raise RuntimeError("no compiler")

    truncate(cached("thing", build_two))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no compiler"):
            cached("thing", build)


KILLED_BUILD = """
import sys, time
from celosia_boards.cache import cached

def build(path):
    (path / "half").write_text("half")
    print("building", flush=True)
    time.sleep(60)

cached("killed", build)
"""


def test_scratch_of_killed_builds_is_cleared(folder):
    """The next build, of whatever entry, removes it; that of a build at work stays."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", KILLED_BUILD], env=env,
                          stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"building\n"
        cached("first", build_two)
        assert len(list(folder.glob("killed.*/half"))) == 1
        process.kill()
    assert len(list(folder.glob("killed.*/half"))) == 1
    cached("second", build_two)
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["first", "second"]


def test_the_folder_is_the_users_alone(folder):
    assert stat.S_IMODE(cache_directory().stat().st_mode) == 0o700
    folder.chmod(0o755)
    assert cache_directory() == folder
    for mode in (0o775, 0o757, 0o777):
        folder.chmod(mode)
        with pytest.raises(CacheError, match=f"others may write .*run: chmod go-w {folder}$"):
            cached("thing", build_two)
    folder.chmod(0o755)     # as that command does
    cached("thing", build_two)


def test_somebody_elses_folder(folder, monkeypatch):
    cache_directory()
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(CacheError, match="belongs to another user.*; name a folder of your "
                                              "own in CELOSIA_CACHE$"):
        cached("thing", build_two)


@pytest.mark.parametrize("place", ["file", "file/inner", "/dev/null", "/proc/none/cache"])
def test_no_folder_to_be_had(monkeypatch, tmp_path, place):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CELOSIA_CACHE", place)
    with pytest.raises(CacheError, match="^no cache folder: .*; name a folder of your own in "
                                              "CELOSIA_CACHE$"):
        cached("thing", build_two)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; run as another user")
def test_a_cache_that_may_only_be_read(folder):
    entry = cached("thing", build_two)
    folder.chmod(0o500)
    assert cached("thing", unbuildable) == entry
    with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\); name a"):
        cached("other", build_two)
    folder.chmod(0o700)


@pytest.mark.parametrize(("owner", "name"), [
    (tempfile, "mkdtemp"), (os, "fsync"), (Path, "rename"), (fcntl, "flock")])
def test_a_cache_that_cannot_be_written_says_so(folder, monkeypatch, owner, name):
    """Wherever the system refuses: a full disk, a folder whose locks were made by another."""
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(owner, name, full)
    with pytest.raises(CacheError, match=rf"^the cache folder {folder} cannot be written \(No "
                                         r"space left on device\); name a folder of your own"):
        cached("thing", build_two)


def interrupted(work, after):
    """Do ``work`` and press Ctrl-C ``after`` seconds later, in this process alone."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        with pytest.raises(KeyboardInterrupt):
            work()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_ends_what_a_tool_has_started(folder, still_running):
    """Grandchildren too: the compilers that make has started. Nothing stays in the cache."""
    def build(path):
        run_tool("make", ["sh", "-c", "sleep 61 & sleep 61; touch late"], cwd=path)

    begun = time.monotonic()
    interrupted(lambda: cached("thing", build), 0.5)
    assert time.monotonic() - begun < 10
    assert still_running() == []
    assert [path.name for path in folder.iterdir()] == ["thing.lock"]


STOPPED_BUILD = """
from celosia_boards.cache import cached
from celosia_sim.simulators.tools import run_tool

def build(path):
    (path / "half").write_text("half")
    run_tool("sh", ["sh", "-c", "touch started; sleep 61 & sleep 61"], cwd=path)

cached("stopped", build)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stopped_build_leaves_nothing(folder, still_running, number):
    """Whoever ends the process: `kill`, a closed terminal, Ctrl-C."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", STOPPED_BUILD], env=env,
                          stderr=subprocess.DEVNULL) as process:
        while not list(folder.glob("stopped.*/started")):
            time.sleep(0.02)
        process.send_signal(number)
    assert process.returncode != 0
    assert still_running() == []
    assert [path.name for path in folder.iterdir()] == ["stopped.lock"]


def test_a_finished_tool_is_left_alone():
    with started(["true"]) as process:
        assert process.wait() == 0
    assert run_tool("echo", ["echo", "words"]) == "words\n"
    with pytest.raises(SimulationError, match="^sh failed with status 3: error: no"):
        run_tool("sh", ["sh", "-c", "echo fine; echo error: no >&2; exit 3"])
