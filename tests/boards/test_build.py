# amaranth: UnusedElaboratable=no
"""Builds: reports are read right, failures are clean, and small designs really build."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from celosia_boards import stages, toolchain
from celosia_boards.bitstream import device_of
from celosia_boards.board_top import BoardTop
from celosia_boards.build import SPARE, BuildError, build, sweep_seeds
from celosia_boards.families.ecp5 import ECP5
from celosia_boards.families.family import Resources
from celosia_boards.families.ice40 import ICE40
from celosia_boards.report import (
    BuildReport,
    Timing,
    circling,
    overfull,
    parse_timing,
    read_report,
)
from celosia_boards.stages import Job
from celosia_boards.synthesis import check_log
from celosia_boards.targets import target
from celosia_boards.toolchain import find_tool
from celosia_hw.memory.main_memory import MainMemory
from celosia_hw.parts.multiplier import Multipliers
from celosia_hw.parts.table_memory import TableMemory

DATA = Path(__file__).parent / "data"


class Chain(wiring.Component):
    """A shift register from rx feeds multipliers and memories; their parity leaves at tx."""

    def __init__(self, multiplier, main_memory):
        self.multiplier, self.main_memory = multiplier, main_memory
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "busy": Out(1), "error": Out(1),
                          "saturated": Out(1)})

    def elaborate(self, platform):
        m = Module()
        bits, out = Signal(160), Signal(64)
        m.submodules.mult = mult = Multipliers(4, 8, 8, self.multiplier)
        m.submodules.main = main = MainMemory(256, self.main_memory)
        m.submodules.table = table = TableMemory(256, 16)
        m.d.comb += [
            mult.w.as_value().eq(bits), mult.x.as_value().eq(main.data),
            Cat(main.fetcher.address, main.host.address, main.host.data, main.host.enable,
                main.host.request, main.fetcher.request).eq(bits[32:]),
            Cat(table.read.addr, table.write.addr, table.write.en,
                table.write.data).eq(bits[100:]),
        ]
        m.d.sync += [bits.eq(Cat(self.rx, bits)), out.eq(mult.p.as_value() ^ table.read.data),
                     self.tx.eq(out.xor()), self.busy.eq(out[0]), self.error.eq(out[1])]
        return m


class Tables(wiring.Component):
    """A ROM, a table, and a memory that promises the new data: one address for all."""

    def __init__(self):
        super().__init__({"read": In(8), "write": In(8), "enable": In(1), "data": In(16),
                          "out": Out(48)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.rom = rom = memory.Memory(shape=16, depth=256, init=range(7, 263))
        m.submodules.new = new = memory.Memory(shape=16, depth=256, init=[])
        m.submodules.table = table = TableMemory(256, 16)
        rom_read, new_write = rom.read_port(), new.write_port()
        new_read = new.read_port(transparent_for=(new_write,))
        m.d.comb += [
            rom_read.addr.eq(self.read), new_read.addr.eq(self.read),
            table.read.addr.eq(self.read), new_write.addr.eq(self.write),
            new_write.data.eq(self.data), new_write.en.eq(self.enable),
            table.write.addr.eq(self.write), table.write.data.eq(self.data),
            table.write.en.eq(self.enable),
            self.out.eq(Cat(rom_read.data, new_read.data, table.read.data)),
        ]
        return m


class Elements(wiring.Component):
    """An array whose elements are used one by one."""

    def __init__(self):
        super().__init__({"i": In(32), "enable": In(1), "y": Out(8),
                          "o": Out(data.ArrayLayout(8, 4))})

    def elaborate(self, platform):
        m = Module()
        sums, total = Signal(data.ArrayLayout(8, 4)), Signal(8)
        with m.If(self.enable):
            m.d.sync += sums.as_value().eq(self.i)
        m.d.comb += [self.o.eq(sums), self.y.eq(total)]
        m.d.sync += total.eq(sums[0] + sums[1] + (sums[2] ^ sums[3]))
        return m


def _design(entry):
    """A function that makes the small design of a target, for any clock."""
    def design(clock_mhz):
        core = Chain(entry.fabric.multiplier, entry.main_memory)
        return core if entry.platform is None else BoardTop(core, entry, clock_mhz)
    return design


def _captured(name):
    return json.loads((DATA / f"{name}.nextpnr.json").read_text())


def test_ice40_resources():
    log = (DATA / "icebreaker.nextpnr.log").read_text()
    assert ICE40.used(_captured("icebreaker"), log) == Resources(
        luts=272, ffs=230, brams=1, dsps=2, sprams=2)


def test_ice40_log_without_counts(tmp_path):
    (tmp_path / "celosia.nextpnr.json").write_text(json.dumps(_captured("icebreaker")))
    (tmp_path / "celosia.nextpnr.log").write_text("Info: nothing\n")
    with pytest.raises(BuildError, match=r"^nextpnr's log holds no 'LCs used as' lines"):
        read_report(tmp_path, "celosia", target("icebreaker"), seed=3, clock_mhz=24.0)


def test_ecp5_resources():
    assert ECP5.used(_captured("ulx3s-85f"), "") == Resources(
        luts=65, ffs=232, brams=3, dsps=4)


def test_timing():
    assert parse_timing(_captured("icebreaker"), 30.0) == Timing(fmax_mhz=72.4, met=True)
    two = {"fmax": {"a": {"achieved": 61.0, "constraint": 60.0},
                    "b": {"achieved": 9.0, "constraint": 12.0}}}
    assert parse_timing(two, 60.0) == Timing(fmax_mhz=61.0, met=False)
    assert parse_timing(two, 30.0) == Timing(fmax_mhz=9.0, met=False)
    assert parse_timing({}, 30.0) == Timing(fmax_mhz=None, met=True)


def _read(clock_mhz, tmp_path):
    for suffix in ("json", "log"):
        source = DATA / f"icebreaker.nextpnr.{suffix}"
        (tmp_path / f"celosia.nextpnr.{suffix}").write_text(source.read_text())
    return read_report(tmp_path, "celosia", target("icebreaker"), seed=3, clock_mhz=clock_mhz)


def test_hard_blocks_cap_the_clock(tmp_path):
    """nextpnr prints 72 MHz for a design with SB_MAC16, which stands 50."""
    report = _read(48.0, tmp_path)
    assert (report.fmax_mhz, report.routed_mhz, report.timing_met) == (50.0, 72.4, True)
    assert not _read(55.0, tmp_path).timing_met


def test_report_as_json(tmp_path):
    values = json.loads(json.dumps(_read(30.0, tmp_path).to_json()))
    assert {"bitstream", "luts", "ffs", "brams", "dsps", "sprams", "fmax_mhz", "clock_mhz",
            "timing_met", "available"} <= set(values)
    assert values["available"] == {"luts": 5280, "ffs": 5280, "brams": 30, "dsps": 8, "sprams": 4}


def test_driver_conflict_is_refused():
    """The log is Yosys's own, of ``synth_ice40 -dsp`` miscompiling two product registers."""
    with pytest.raises(BuildError, match=r"^yosys resolved conflicting drivers.*\n.*\\q \[0\]"):
        check_log((DATA / "conflict.yosys.log").read_text())
    check_log("Warning: Wire top.x is used but has no driver.\n")


def stand_in(monkeypatch, folder, nextpnr):
    """Let shell scripts stand for Yosys, which does nothing, and nextpnr."""
    monkeypatch.setenv("CELOSIA_CACHE", str(folder / "cache"))
    for name, words in (("YOSYS", "touch celosia.yosys.log celosia.json"),
                        ("NEXTPNR_ICE40", nextpnr)):
        tool = folder / name
        tool.write_text(f"#!/bin/sh\n{words}\n")
        tool.chmod(0o755)
        monkeypatch.setenv(name, str(tool))


def test_too_large_a_design_is_named(monkeypatch, tmp_path):
    """nextpnr's own words say which cell found no place; ours say how many are too many."""
    log = ("Info: \t         ICESTORM_LC:    8973/   5280   169%\n"
           "Info: \t        ICESTORM_RAM:      30/     30   100%\n")
    assert overfull(log) == ["8973 of 5280 ICESTORM_LC"]
    (tmp_path / "log").write_text(log)
    stand_in(monkeypatch, tmp_path, f"cat {tmp_path}/log > celosia.nextpnr.log; exit 125")
    entry = target("icebreaker")
    with pytest.raises(BuildError, match=r"^the design needs 8973 of 5280 ICESTORM_LC of the up5k; "
                                         r"choose fewer lanes or a larger target\nlog: "):
        build(_design(entry), entry, tmp_path / "out")


def test_more_than_the_maker_vouches_for_is_too_much(monkeypatch, tmp_path):
    """nextpnr fills the whole die of a 12F; what is promised of it is less."""
    entry = target("icebreaker")
    device = replace(entry.device, resources=replace(entry.resources, luts=271))
    entry = replace(entry, device=device)
    copies = "; ".join(f"cp {DATA}/icebreaker.nextpnr.{suffix} celosia.nextpnr.{suffix}"
                       for suffix in ("log", "json"))
    stand_in(monkeypatch, tmp_path, f"{copies}; touch celosia.asc")
    with pytest.raises(BuildError, match=r"^the design needs 272 of 271 look-up tables of the "
                                         r"up5k; choose fewer lanes or a larger target\nlog: "):
        build(_design(entry), entry, tmp_path / "out")


def test_options_of_placement_reach_nextpnr(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, 'echo "ERROR: given $*" > celosia.nextpnr.log; exit 1')
    entry = target("icebreaker")
    with pytest.raises(BuildError, match="given --up5k .*--opt-timing --package "):
        build(_design(entry), entry, tmp_path / "out", placement=("--opt-timing",))
    jobs = [Job(entry, tmp_path, "celosia", options) for options in ((), ("--opt-timing",))]
    for job in jobs:
        job.elaborate(_design(entry)(entry.clock_mhz))
    assert len({job.digest("") for job in jobs}) == 2, "such a build is another one"


CIRCLES = "".join(f"Info: {n}000 | {n - 4}341   36738 | 1000     0 |   2509|   1.46  {n}.39|\n"
                  for n in range(500, 600))


def test_a_router_that_goes_in_circles_is_told_from_one_that_gets_on():
    assert circling(CIRCLES) == (
        "the router goes in circles, 2,509 connections are left; another seed may find routes "
        "(--seed, --seeds)")
    for line in (" 600000 | 562341   36739 | 999     1 |   2509|   1.46  600.39|",
                 " 600000 | 562341   36738 | 1000    0 |   2508|   1.46  600.39|"):
        assert circling(f"{CIRCLES}Info:{line}\n") is None
    assert circling(CIRCLES[:5000]) is None and circling("") is None


def test_a_router_that_goes_in_circles_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(toolchain, "_LOOK_SECONDS", 0.1)
    (tmp_path / "log").write_text(CIRCLES)
    stand_in(monkeypatch, tmp_path, f"cat {tmp_path}/log > celosia.nextpnr.log; sleep 600")
    entry = target("icebreaker")
    for folder in "out", "again":
        said = []
        with pytest.raises(BuildError, match="^nextpnr-ice40: the router goes in circles, 2,509 c"):
            build(_design(entry), entry, tmp_path / folder, seeds=2, progress=said.append)
        assert [line for line in said if "circles" in line] == [
            f"seed {seed}: the router goes in circles" for seed in range(2 + SPARE)]
        monkeypatch.setattr(stages, "run_tool",     # once is enough: the cache has it
                            lambda name, *_: pytest.fail(f"{name} was started"))


def test_core_must_have_the_board_s_members():
    entry = replace(target("icebreaker"), leds=(("warm", 0),))
    with pytest.raises(ValueError, match=r"^the core for 'icebreaker' lacks warm$"):
        _design(entry)(24)
    with pytest.raises(ValueError, match=r"^target 'hx8k' is a bare device and has no pins$"):
        BoardTop(Chain("generic", "bram"), target("hx8k"), 30)


def test_tool_named_wrongly(monkeypatch):
    monkeypatch.setenv("NEXTPNR_ICE40", "no-such-nextpnr")
    with pytest.raises(BuildError, match=r"^environment variable NEXTPNR_ICE40 names "
                                         "'no-such-nextpnr', which is no command"):
        find_tool("nextpnr-ice40")


def test_tool_missing(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("ICEPACK", raising=False)
    with pytest.raises(BuildError, match=r"^icepack is not installed; run: pip install"):
        find_tool("icepack")


def test_failed_build_leaves_logs_and_no_report(monkeypatch, tmp_path):
    """A tool that dies after some output: the message quotes it, the old report is gone."""
    tool = tmp_path / "broken-yosys"
    tool.write_text("#!/bin/sh\necho 'ERROR: out of patience'\nexit 3\n")
    tool.chmod(0o755)
    monkeypatch.setenv("YOSYS", str(tool))
    out = tmp_path / "out"
    out.mkdir()
    (out / "celosia.report.json").write_text("{}")
    entry = target("hx8k")
    with pytest.raises(BuildError) as caught:
        build(_design(entry), entry, out)
    assert str(caught.value) == ("yosys failed with status 3:\n  ERROR: out of patience\n"
                                 f"log: {out / 'celosia.yosys.log'}")
    assert [path.name for path in out.iterdir()] == ["celosia.yosys.log"]


@pytest.mark.parametrize("name", ["ecp5-25f", "hx8k"])
def test_elements_of_arrays_are_kept_apart(tmp_path, name):
    """Yosys 0.70 joins bit k of an array with element k's first bit where both have names."""
    job = Job(target(name), tmp_path, "celosia")
    job.elaborate(Elements())
    job.synthesise()
    cells = json.loads((tmp_path / "celosia.json").read_text())["modules"]["celosia"]["cells"]
    driven = [bit for cell in cells.values() for port, bits in cell["connections"].items()
              if cell["port_directions"][port] == "output" for bit in bits]
    assert len(driven) >= 40
    assert len(set(driven)) == len(driven), "two cells drive one bit"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "brams", "dsps", "sprams", "suffix"), [
    ("icebreaker", 1, 2, 2, "bin"),
    ("upduino", 1, 2, 2, "bin"),
    ("hx8k-b-evn", 3, 0, 0, "bin"),
    ("ecp5-25f", 2, 4, 0, None),
    ("ulx3s-85f", 2, 4, 0, "bit"),
    ("ulx3s-12f", 2, 4, 0, "bit"),
    ("ecp5-evn", 2, 4, 0, "bit"),
    ("orangecrab-25f", 2, 4, 0, "bit"),
])
def test_small_build(tmp_path, name, brams, dsps, sprams, suffix):
    entry = target(name)
    said = []
    report = build(_design(entry), entry, tmp_path, fresh=True, progress=said.append)
    assert (report.brams, report.dsps, report.sprams) == (brams, dsps, sprams)
    assert report.timing_met
    assert report.fmax_mhz > entry.clock_mhz
    assert said[:3] == ["elaboration", "synthesis", "placement and routing"]
    written = json.loads((tmp_path / "celosia.report.json").read_text())
    assert len(written.pop("inputs")) == 24
    assert written == report.to_json()
    said.clear()
    assert build(_design(entry), entry, tmp_path, progress=said.append) == report
    assert said == ["elaboration"], "the same design is not built again"
    assert not list(tmp_path.glob(".*"))
    assert report.log.is_file()
    assert "Derived frequency constraint" in report.log.read_text() or entry.platform is None
    if suffix is None:
        assert report.bitstream is None
    else:
        assert report.bitstream == tmp_path / f"celosia.{suffix}"
        assert report.bitstream.stat().st_size > 10_000
        assert device_of(report.bitstream) == entry.device.name


@pytest.mark.slow
def test_seeds_find_a_higher_clock(tmp_path):
    """The real tools: far faster than its clock, the small design gets what its hard blocks stand
    with the margin, and the PLL is set for it."""
    entry = target("icebreaker")
    report = build(_design(entry), entry, tmp_path, seeds=2, fresh=True)
    assert (report.clock_mhz, report.fmax_mhz, report.timing_met) == (45.0, 50.0, True)
    assert [p.clock_mhz for p in report.placements] == [entry.clock_mhz, entry.clock_mhz, 45.0]
    derived = re.search(r"Derived frequency constraint of ([\d.]+) MHz", report.log.read_text())
    assert float(derived[1]) == pytest.approx(45.0, rel=1e-3)


@pytest.mark.slow
def test_sweep_places_once_a_seed(tmp_path):
    entry = target("hx8k")
    stages = []
    reports = sweep_seeds(lambda _: Elements(), entry, tmp_path, [1, 2, 1], fresh=True,
                          progress=stages.append)
    assert stages.count("synthesis") == 1
    assert [report.seed for report in reports] == [1, 2, 1]
    assert reports[0].fmax_mhz == reports[2].fmax_mhz != reports[1].fmax_mhz
    assert len(json.loads((tmp_path / "celosia.sweep.json").read_text())) == 3


@pytest.mark.slow
def test_memories_carry_no_collision_logic(tmp_path):
    """Only the memory that promises new data has a bypass: its 16 bits and one select."""
    report = build(lambda _: Tables(), target("hx8k"), tmp_path, fresh=True)
    assert (report.brams, report.ffs) == (3, 17)


def test_report_survives_json() -> None:
    report = BuildReport(target="icebreaker", seed=3, luts=1, ffs=2, brams=3, dsps=4, sprams=0,
                         available=target("icebreaker").resources, clock_mhz=24.0, fmax_mhz=31.5,
                         routed_mhz=31.5, timing_met=True, bitstream=Path("a.bin"),
                         log=Path("a.log"))
    assert BuildReport.from_json(json.loads(json.dumps(report.to_json()))) == report
