"""The build cache: whole or absent, built once whoever asks."""

import os
import subprocess
import sys

import pytest

from celosia_sim.cache import cache_directory, cached, digest


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
from celosia_sim.cache import cached

def build(path):
    with open(sys.argv[1], "a") as file:
        file.write("built\\n")
    time.sleep(0.5)
    (path / "result").write_text("whole")

assert (cached("thing", build) / "result").read_text() == "whole"
"""


def test_two_processes_build_once(tmp_path):
    """The second of two processes waits for the first and builds nothing."""
    log = tmp_path / "log"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(log)], env=env)
                 for _ in range(2)]
    assert [process.wait(30) for process in processes] == [0, 0]
    assert log.read_text() == "built\n"
