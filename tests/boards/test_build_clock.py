# amaranth: UnusedElaboratable=no
"""The clock of a build: a miss is an error, seeds compete, and the board runs what is met."""

import json
from dataclasses import replace

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_boards.board_top import BoardTop
from celosia_boards.build import BuildError, build, sweep_seeds
from celosia_boards.clock import MARGIN, ClockError, highest_clock, possible_clock
from celosia_boards.report import BuildReport
from celosia_boards.stages import CirclingError, Job
from celosia_boards.targets import target

BOARD = target("icebreaker")
CLOCK = BOARD.clock_mhz


class Wire(wiring.Component):
    """The smallest core that a board takes."""

    def __init__(self):
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "busy": Out(1), "error": Out(1),
                          "saturated": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


def design(clock_mhz):
    return BoardTop(Wire(), BOARD, clock_mhz)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_missed_clock_is_an_error(placer, tmp_path):
    """Not even an older build's bitstream and report are left."""
    placer({(0, CLOCK): CLOCK - 4.0})
    out = tmp_path / "out"
    out.mkdir()
    for stale in ("celosia.bin", "celosia.bit", "celosia.report.json"):
        (out / stale).write_text("{}")
    with pytest.raises(BuildError) as caught:
        build(design, BOARD, out)
    lower = highest_clock(BOARD, CLOCK - 4.0)
    assert str(caught.value) == (
        f"icebreaker: seed 0 reaches {CLOCK - 4:.1f} MHz and misses the clock of {CLOCK:g} MHz; "
        f"place more seeds (--seeds 5), build for the clock that it meets with 5% to spare "
        f"(--clock {lower:g}), or keep it as it is (--allow-timing-failure)\n"
        f"log: {out / 'celosia.nextpnr.log'}")
    assert names(out) == ["celosia.nextpnr.log", "celosia.yosys.log"]


def test_a_miss_may_be_kept_but_not_forgotten(placer, tmp_path):
    calls = placer({(0, CLOCK): CLOCK - 4.0})
    report = build(design, BOARD, tmp_path / "out", allow_timing_failure=True)
    assert (report.timing_met, report.clock_mhz) == (False, CLOCK)
    assert build(design, BOARD, tmp_path / "out", allow_timing_failure=True) == report
    assert len(calls()) == 1, "the same design is not placed again"
    with pytest.raises(BuildError, match="misses the clock"):
        build(design, BOARD, tmp_path / "out")
    assert len(calls()) == 1
    assert not report.bitstream.exists()


def test_best_of_the_seeds_is_kept(placer, tmp_path):
    """Seed 6 finds no routes and is passed over; none is fast enough for a higher clock."""
    calls = placer({(4, CLOCK): CLOCK - 1.0, (5, CLOCK): CLOCK + 1.5, (7, CLOCK): CLOCK + 0.5})
    said = []
    report = build(design, BOARD, tmp_path / "out", seed=4, seeds=4, progress=said.append)
    assert report.bitstream.read_text() == f"seed 5, {CLOCK} MHz\n"
    assert [(p.seed, p.fmax_mhz, p.timing_met) for p in report.placements] == [
        (4, CLOCK - 1, False), (5, CLOCK + 1.5, True), (7, CLOCK + 0.5, True)]
    assert report.placement == report.placements[1]
    assert calls() == [f"{seed} {CLOCK}" for seed in range(4, 8)]
    assert f"seed 4: {CLOCK - 1:.1f} MHz, clock of {CLOCK:g} MHz missed" in said
    assert "seed 6: failed" in said
    values = json.loads((tmp_path / "out" / "celosia.report.json").read_text())
    values.pop("inputs")
    assert BuildReport.from_json(values) == report


def test_further_seeds_are_tried_where_the_router_goes_in_circles(placer, tmp_path, monkeypatch):
    calls = placer({(2, CLOCK): CLOCK + 1.0, (3, CLOCK): CLOCK + 2.0})
    place = Job.place

    def circles(job, seed, clock_mhz):
        if seed < 2:
            raise CirclingError("it goes in circles")
        return place(job, seed, clock_mhz)

    monkeypatch.setattr(Job, "place", circles)
    said = []
    report = build(design, BOARD, tmp_path / "out", progress=said.append)
    assert report.seed == 2 and calls() == [f"2 {CLOCK}"]
    assert "seed 1: the router goes in circles" in said
    reports = sweep_seeds(design, BOARD, tmp_path / "sweep", [0, 2, 1, 3], progress=said.append)
    assert [entry.seed for entry in reports] == [2, 3]
    with pytest.raises(BuildError, match="circles"):
        sweep_seeds(design, BOARD, tmp_path / "sweep", [0, 1])
    calls = placer({})
    with pytest.raises(BuildError, match="status 1"):
        build(design, BOARD, tmp_path / "other", seed=5)
    assert len(calls()) == 1, "what fails otherwise is not tried again"


def test_no_seed_works(placer, tmp_path):
    placer({})
    with pytest.raises(BuildError, match=r"^nextpnr-ice40 failed with status 1:\n  ERROR: no rout"):
        build(design, BOARD, tmp_path / "out", seeds=3)
    assert "celosia.nextpnr.log" in names(tmp_path / "out")


def test_clock_is_the_highest_that_is_met(placer, tmp_path):
    """48 MHz leave 45 with the margin; the design is made for it, and placed as the best was."""
    calls = placer({(0, CLOCK): CLOCK + 1, (1, CLOCK): 48.0, (1, 45.0): 46.0})
    made = []
    report = build(lambda mhz: (made.append(mhz), design(mhz))[1], BOARD, tmp_path, seeds=2)
    assert made == [CLOCK, 45.0]
    assert calls() == [f"0 {CLOCK}", f"1 {CLOCK}", "1 45.0"]
    assert (report.clock_mhz, report.fmax_mhz, report.seed) == (45.0, 46.0, 1)
    assert report.bitstream.read_text() == "seed 1, 45.0 MHz\n"
    assert [p.clock_mhz for p in report.placements] == [CLOCK, CLOCK, 45.0]


@pytest.mark.parametrize("at_45", [{(1, 45.0): 44.0}, {}], ids=["missed", "failed"])
def test_higher_clock_that_does_not_close(placer, tmp_path, at_45):
    placer({(0, CLOCK): CLOCK + 1, (1, CLOCK): 48.0} | at_45)
    report = build(design, BOARD, tmp_path, seeds=2)
    assert (report.clock_mhz, report.fmax_mhz, report.timing_met) == (CLOCK, 48.0, True)
    assert report.bitstream.read_text() == f"seed 1, {CLOCK} MHz\n"


def test_clock_asked_for_stays(placer, tmp_path):
    calls = placer({(0, 30.0): 48.0, (1, 30.0): 47.0})
    report = build(design, BOARD, tmp_path, seeds=2, clock_mhz=30)
    assert (report.clock_mhz, report.fmax_mhz) == (30.0, 48.0)
    assert len(calls()) == 2


def test_one_seed_is_placed_once(placer, tmp_path):
    calls = placer({(0, CLOCK): 48.0})
    assert build(design, BOARD, tmp_path).clock_mhz == CLOCK
    assert len(calls()) == 1


@pytest.mark.parametrize("damage", ["{", "[]", '{"inputs": 3}', "\xff"])
def test_damaged_report_is_made_anew(placer, tmp_path, damage):
    calls = placer({(0, CLOCK): 48.0})
    report = build(design, BOARD, tmp_path)
    (tmp_path / "celosia.report.json").write_text(damage, encoding="latin-1")
    assert build(design, BOARD, tmp_path) == replace(report, cached=True)
    (tmp_path / "celosia.report.json").write_text(damage, encoding="latin-1")
    assert build(design, BOARD, tmp_path, fresh=True) == report
    report.bitstream.write_text("something else")
    assert build(design, BOARD, tmp_path) == replace(report, cached=True)
    assert report.bitstream.read_text() == f"seed 0, {CLOCK} MHz\n"
    assert len(calls()) == 2


@pytest.mark.parametrize(("name", "fmax", "clock"), [
    ("icebreaker", 31.5, 30.0), ("icebreaker", 31.4, 27.0), ("icebreaker", 400.0, 48.0),
    ("icebreaker", 15.0, None), ("ulx3s-85f", 63.0, 60.0), ("ulx3s-85f", 62.9, 55.0),
    ("ulx3s-85f", 9.0, None), ("hx8k", 64.8, 60.0), ("hx8k", 3.0, None)])
def test_highest_clock(name, fmax, clock):
    assert MARGIN == 0.05
    assert highest_clock(target(name), fmax) == clock


@pytest.mark.parametrize(("name", "clock", "message"), [
    ("icebreaker", 54, "icebreaker: its hard blocks stand 50 MHz, not 54; choose a lower clock"),
    ("icebreaker", 0, "clock_mhz must be a positive number, not 0"),
    ("hx8k", float("nan"), "clock_mhz must be a positive number, not nan"),
    ("ulx3s-85f", 5, "no PLL setting makes 5 MHz (or up to 3% less) from 25.0 MHz; choose another "
                     "clock"),
])
def test_impossible_clocks(name, clock, message, tmp_path):
    with pytest.raises(ClockError) as caught:
        build(design, target(name), tmp_path, clock_mhz=clock)
    assert str(caught.value) == message
    assert possible_clock(target(name), 60 if name != "icebreaker" else 30) in (60, 30)


def test_seeds_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match=r"^seeds must be at least 1, not 0$"):
        build(design, BOARD, tmp_path, seeds=0)
