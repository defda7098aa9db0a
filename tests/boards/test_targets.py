# amaranth: UnusedElaboratable=no
"""The table of targets agrees with itself and with the board descriptions."""

import re
from dataclasses import replace

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_boards.arrays import array_for
from celosia_boards.board_top import BoardTop
from celosia_boards.build import platform_of
from celosia_boards.clock import possible_clock
from celosia_boards.families.ecp5 import ECP5
from celosia_boards.families.ice40 import ICE40
from celosia_boards.targets import UnknownTarget, target, targets
from celosia_hw.memory.main_memory import MAIN_KINDS, MainMemory
from celosia_hw.parts.multiplier import KINDS
from celosia_hw.parts.uart import uart_divisor

NAMES = list(targets())
BOARDS = [name for name in NAMES if target(name).platform]


def test_names():
    assert {"icebreaker", "hx8k", "ecp5-25f", "ecp5-85f"} < set(NAMES)
    assert all(target(name).name == name for name in NAMES)
    with pytest.raises(TypeError):
        targets()["mine"] = None


@pytest.mark.parametrize("name", [None, ["hx8k"], 3, b"hx8k", {}, "x\n" * 200])
def test_what_is_no_name_is_an_unknown_target(name):
    with pytest.raises(UnknownTarget, match=rf"^unknown target .*; targets are {NAMES[0]}, ") as no:
        target(name)
    assert "\n" not in str(no.value) and len(str(no.value)) < 400
    with pytest.raises(UnknownTarget):
        array_for(name)


def test_unknown_target_lists_the_names():
    with pytest.raises(UnknownTarget) as caught:
        target("icebraker")
    assert str(caught.value) == (
        f"unknown target 'icebraker'; did you mean 'icebreaker'? targets are {', '.join(NAMES)}")


@pytest.mark.parametrize("name", NAMES)
def test_kinds(name):
    entry = target(name)
    assert entry.fabric.multiplier in KINDS
    assert (entry.fabric.multiplier == "generic") == (entry.fabric.served == 0)
    assert bool(entry.fabric.served) == bool(entry.resources.dsps)
    assert entry.main_memory in MAIN_KINDS
    assert possible_clock(entry, entry.clock_mhz) == entry.clock_mhz
    assert entry.clock_mhz % entry.clock_step_mhz == 0
    MainMemory(entry.array.main_words, entry.main_memory)


@pytest.mark.parametrize("name", NAMES)
def test_an_array_reads_the_flash_that_its_board_has(name):
    entry = target(name)
    assert entry.array.flash == (entry.flash.takes[0] if entry.flash else 0)
    assert entry.array == replace(entry.device.array, flash=entry.array.flash)


@pytest.mark.parametrize("name", NAMES)
def test_board_description(name):
    entry = target(name)
    if entry.platform is None:
        assert (entry.crystal_mhz, entry.loaders, entry.leds, entry.held, entry.usb) == (
            None, (), (), (), None)
        with pytest.raises(ValueError, match="is a bare device and has no platform"):
            platform_of(entry)
        return
    platform = platform_of(entry)
    assert platform.device.lower().removeprefix("ice40") == entry.device.name
    assert platform.default_clk_frequency == entry.crystal_mhz * 1e6
    packages = {"BG381": "CABGA381", "MG285": "CSFBGA285"}      # as nextpnr calls them
    assert packages.get(platform.package, platform.package.lower()) == entry.package
    assert int(getattr(platform, "speed", 0)) == entry.speed
    assert entry.loaders and entry.usb


@pytest.mark.parametrize("name", NAMES)
def test_bits_of_the_serial_line(name):
    """The gateware counts whole cycles; what is left over is far from what a receiver stands."""
    entry = target(name)
    divisor = uart_divisor(entry.clock_mhz * 1e6, entry.baud)
    assert abs(entry.clock_mhz * 1e6 / divisor / entry.baud - 1) < 0.002


def test_alike_targets_share_a_machine():
    for one, other in (("icebreaker", "icesugar"), ("ecp5-85f", "ecp5-evn"),
                       ("ecp5-25f", "colorlight-i5"), ("orangecrab-25f", "ecp5-25f")):
        assert target(one).machine == target(other).machine
    assert len({target(name).machine for name in NAMES}) < len(NAMES)


PINS = {
    "icebreaker": {"clk12_0__io": "35", "uart_0__rx__io": "6", "uart_0__tx__io": "9",
                   "led_0__io": "11", "led_1__io": "37"},
    "upduino": {"clk12_0__io": "20", "uart_0__rx__io": "15", "uart_0__tx__io": "14",
                "led_0__io": "41", "led_1__io": "39", "led_2__io": "40", "flash_cs_n_0__io": "16"},
    "icesugar": {"clk12_0__io": "35", "uart_0__rx__io": "4", "uart_0__tx__io": "6",
                 "led_0__io": "40", "led_1__io": "41", "led_2__io": "39"},
    "hx8k-b-evn": {"clk12_0__io": "J3", "uart_0__rx__io": "B10", "uart_0__tx__io": "B12",
                   "led_0__io": "C3", "led_1__io": "B3", "led_2__io": "C4"},
    "ecp5-evn": {"clk12_0__io": "A10", "uart_0__rx__io": "P2", "uart_0__tx__io": "P3",
                 "led_0__io": "A13", "led_1__io": "A12", "led_2__io": "B19"},
    "colorlight-i5": {"clk25_0__io": "P3", "uart_0__rx__io": "H18", "uart_0__tx__io": "J17",
                      "led_0__io": "U16"},
    "ulx3s": {"clk25_0__io": "G2", "uart_0__rx__io": "M1", "uart_0__tx__io": "L4",
              "led_0__io": "B2", "led_1__io": "C2", "led_2__io": "C1", "wifi_gpio0_0__io": "L2"},
    "orangecrab": {"clk_0__io": "A9", "uart_0__rx__io": "N17", "uart_0__tx__io": "M18",
                   "led_0__io": "K4", "led_1__io": "M3", "led_2__io": "J3"},
}
"""What every board's constraints say, and nothing besides: no pin is driven that is not named."""

DARK_AT_ONE = {"icebreaker", "upduino", "icesugar", "ecp5-evn", "colorlight-i5", "orangecrab"}
"""Boards whose LEDs are between the supply and the pin."""


class Core(wiring.Component):
    """As small as a core can be."""

    def __init__(self):
        super().__init__({"rx": In(1, init=1), "tx": Out(1), "busy": Out(1), "error": Out(1),
                          "saturated": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.tx.eq(self.rx)
        return m


def kind_of(name):
    return name if name in PINS else name.rpartition("-")[0]


def constraints(plan, name):
    """Return pin and, on ECP5, attributes, by the name of the port."""
    if "t.pcf" in plan.files:
        text = plan.files["t.pcf"]
        return dict(re.findall(r"^set_io (\S+) (\S+)$", text, re.MULTILINE)), {}
    text = plan.files["t.lpf"]
    return (dict(re.findall(r'^LOCATE COMP "(\S+)" SITE "(\S+)";$', text, re.MULTILINE)),
            dict(re.findall(r'^IOBUF PORT "(\S+)" (.*);$', text, re.MULTILINE)))


def test_every_board_has_its_pins_and_the_name_of_its_bridge():
    assert {kind_of(name) for name in BOARDS} == PINS.keys()
    assert set().union(*USB_NAMES.values()) == set(BOARDS)


@pytest.mark.parametrize("name", BOARDS)
def test_pins(name):
    entry = target(name)
    top = BoardTop(Core(), entry, entry.clock_mhz)
    plan = platform_of(entry).build(top, name="t", do_build=False)
    plan.files = {key: value if isinstance(value, str) else value.decode()
                  for key, value in plan.files.items()}
    pins, attributes = constraints(plan, name)
    kind = kind_of(name)
    assert pins == PINS[kind]
    assert {key for key in pins if key in attributes} == set(attributes)
    netlist = plan.files["t.il"]
    assert ("SB_PLL40_CORE" in netlist) == (entry.family is ICE40 and not entry.pll_pad)
    assert ("SB_PLL40_PAD" in netlist) == (entry.family is ICE40 and entry.pll_pad)
    assert ("EHXPLLL" in netlist) == (entry.family is ECP5)
    assert len({led for _, led in entry.leds}) == sum(key.startswith("led") for key in pins)
    for _, led in entry.leds:
        assert platform_of(entry).lookup("led", led).ios[0].invert == (kind in DARK_AT_ONE)
    for resource in entry.held:
        assert not platform_of(entry).lookup(resource, 0).ios[0].invert


USB_NAMES = {
    "iCEBreaker V1.0e": {"icebreaker"}, "UPduino v3.0": {"upduino"}, "iCELink": {"icesugar"},
    "Lattice FTUSB Interface Cable": {"hx8k-b-evn"}, "Lattice ECP5 Evaluation Board": {"ecp5-evn"},
    "ULX3S FPGA 12K v3.0.3": {"ulx3s-12f"}, "ULX3S FPGA 25K v2.1.2": {"ulx3s-25f"},
    "ULX3S FPGA 45K v3.1.25": {"ulx3s-45f"}, "ULX3S FPGA 85K v3.0.12": {"ulx3s-85f"},
    "OrangeCrab r0.2 DFU Bootloader v3.1": {"orangecrab-85f", "orangecrab-25f"},
    "DAPLink CMSIS-DAP": {"colorlight-i5"}, "BBC micro:bit CMSIS-DAP": set(),
    "Dual RS232-HS": set(), "Single RS232-HS": set(),
    "FT231X USB UART": set(), "Lattice ECP5_5G VERSA Board": set(),
}


@pytest.mark.parametrize("text", USB_NAMES)
def test_usb_names_tell_boards_apart(text):
    """Those of other boards, and what a bridge says as it leaves its maker, name none."""
    found = {name for name in BOARDS if re.search(target(name).usb.name, text)}
    assert found == USB_NAMES[text]
