# amaranth: UnusedElaboratable=no
"""The pins of a board's flash: which they are, and the registers in them."""

import json
import re

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_boards.arrays import ArrayRefused, require
from celosia_boards.board_top import BoardTop, top_for
from celosia_boards.stages import Job
from celosia_boards.targets import target
from celosia_spec.isa.array import Array

BOTH, OUT, TWICE = "110100", "110101", "110001"
"""PIN_TYPE of SB_IO: registers in and out; out; out, in each half of a cycle."""

FOUR = {"cs": ("16", OUT), "clk": ("15", TWICE), "dq[0]": ("14", BOTH), "dq[1]": ("17", BOTH),
        "dq[2]": ("12", BOTH), "dq[3]": ("13", BOTH)}
TWO = FOUR | {"dq[2]": ("12", OUT), "dq[3]": ("13", OUT)}
HX8K = {"cs": ("R12", OUT), "clk": ("R11", TWICE), "dq[0]": ("P12", BOTH), "dq[1]": ("P11", BOTH)}


class Core(wiring.Component):
    """What reads a flash, and shows what it read."""

    def __init__(self, wires):
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "busy": Out(1), "error": Out(1),
                          "saturated": Out(1), "flash_i": In(wires),
                          **{f"flash_{name}": Out(1) for name in ("cs", "clock", "copi", "drive")}})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.tx.eq(self.rx ^ self.flash_i.xor()), self.flash_cs.eq(self.rx),
                     self.flash_clock.eq(self.tx), self.flash_copi.eq(~self.flash_copi),
                     self.flash_drive.eq(self.flash_copi ^ self.rx)]
        return m


@pytest.mark.parametrize(("name", "wires", "wanted"), [
    ("icebreaker", 4, FOUR), ("icesugar", 4, FOUR), ("icebreaker", 2, TWO),
    ("hx8k-b-evn", 2, HX8K)])
def test_pins(name, wires, wanted, tmp_path):
    entry = target(name)
    job = Job(target=entry, work=tmp_path, name="t")
    job.elaborate(BoardTop(Core(wires), entry, entry.clock_mhz))
    job.synthesise()
    text, = (path.read_text() for path in tmp_path.glob("*.pcf"))
    netlist = json.loads((tmp_path / "t.json").read_text())["modules"]["t"]
    kinds = {cell["connections"]["PACKAGE_PIN"][0]: cell["parameters"]["PIN_TYPE"]
             for cell in netlist["cells"].values() if cell["type"] == "SB_IO"}
    found = {}
    for port, part, index, pin in re.findall(
            r"^set_io (spi_flash_\dx_0__(\w+)__io)(?:\[(\d)\])? (\S+)$", text, re.MULTILINE):
        bit = netlist["ports"][port]["bits"][int(index or 0)]
        found[part + f"[{index}]" * bool(index)] = pin, kinds[bit]
    assert found == wanted


def test_the_machine_on_a_board_reads_its_flash(tmp_path):
    entry = target("icebreaker")
    job = Job(target=entry, work=tmp_path, name="t")
    job.elaborate(top_for(entry, Array(lanes=8, main_words=1024, bank_rows=64, flash=4)))
    text, = (path.read_text() for path in tmp_path.glob("*.pcf"))
    assert {pin for pin, _ in FOUR.values()} <= set(re.findall(r"spi_flash\S* (\d+)$", text,
                                                              re.MULTILINE))


def test_a_board_without_a_flash_is_told():
    with pytest.raises(ArrayRefused, match="there is no flash that it could read; use "):
        require(target("colorlight-i5"), Array(main_words=1024, flash=4))


@pytest.mark.parametrize(("name", "takes", "flash"), [("ulx3s-25f", "16", 8),
                                                     ("icebreaker", "4 or 8", 16)])
def test_elements_come_as_the_pins_allow(name, takes, flash):
    with pytest.raises(ArrayRefused,
                       match=f"flash must be {takes} for its pins, not {flash}; use "):
        require(target(name), Array(lanes=8, main_words=1024, bank_rows=64, flash=flash))


def test_the_clock_of_an_ecp5s_flash_is_that_of_its_configuration(tmp_path):
    entry = target("ulx3s-25f")
    job = Job(target=entry, work=tmp_path, name="t")
    job.elaborate(BoardTop(Core(2), entry, entry.clock_mhz))
    job.synthesise()
    text, = (path.read_text() for path in tmp_path.glob("*.lpf"))
    found = dict(re.findall(r'^LOCATE COMP "spi_flash_4x_0__(\S+)" SITE "(\w+)";$', text,
                            re.MULTILINE))
    assert found == {"cs__io": "R2", **{f"dq__io[{k}]": pin
                                        for k, pin in enumerate(("W2", "V2", "Y2", "W1"))}}
    cells = json.loads((tmp_path / "t.json").read_text())["modules"]["t"]["cells"].values()
    clock, = (cell["connections"]["USRMCLKI"] for cell in cells if cell["type"] == "USRMCLK")
    assert [cell["type"] for cell in cells if cell["connections"].get("Q") == clock] == [
        "TRELLIS_FF"]
