"""The table of targets: boards and bare devices.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from celosia_boards.description import Flash, LoaderCommand, Target, Usb
from celosia_boards.devices import HX8K, LFE5U, LFE5UM5G_85F, UP5K
from celosia_spec.errors import CelosiaError, quoted

__all__ = ["LoaderCommand", "Target", "UnknownTarget", "Usb", "target", "targets"]


class UnknownTarget(CelosiaError, ValueError):
    """No target has the name asked for; the message lists those that exist."""


_RED, _GREEN, _BLUE = 0, 1, 2
_COLOURS = (("error", _RED), ("busy", _GREEN), ("saturated", _BLUE))
"""What a LED of three colours shows, where the platform has it as LEDs 0 to 2."""
_ROW = (("busy", 0), ("error", 1), ("saturated", 2))
"""What a row of LEDs shows."""

_BYTES = ("--file-type", "bin", "--offset")
_ICE40 = LoaderCommand(program="openFPGALoader", options=("-b", "ice40_generic"), at=_BYTES)
_ICEPROG = LoaderCommand(program="iceprog", at=("-o",))


def _ecp5(board: str, *flash: str) -> tuple[LoaderCommand, ...]:
    """Return what loads a board over JTAG; ``flash``: what else it takes to write its flash."""
    return (LoaderCommand(program="openFPGALoader", options=("-b", board),
                          persistent=(*flash, "--write-flash"),
                          at=(*flash, "--write-flash", *_BYTES)),)


_DFU = (LoaderCommand(program="dfu-util", options=("-d", "1209:5af0", "-a", "0", "-D")),)

_WAKE, _QUAD = b"\xab", (b"\x50", b"\x31\x02")
"""Flash commands: out of power-down; the quad enable bit is set until power-off."""
_MIB = 1 << 20

_ICEBREAKER = Target(
    name="icebreaker", title="iCEBreaker", device=UP5K, package="sg48", main_memory="spram",
    platform="amaranth_boards.icebreaker:ICEBreakerPlatform", crystal_mhz=12.0, clock_mhz=42.0,
    clock_step_mhz=3.0, leds=(("error", 0), ("saturated", 0), ("busy", 1)),
    loaders=(_ICE40, _ICEPROG),
    usb=Usb(vendor=0x0403, product=0x6010, name="iCEBreaker", interface=1),
    flash=Flash(part="W25Q128JV-IM", base=_MIB, script=(_WAKE, *_QUAD)))

_HX8K = Target(
    name="hx8k", title="no board", device=HX8K, package="ct256", clock_mhz=40.0)

_ECP5_25F = Target(
    name="ecp5-25f", title="no board", device=LFE5U[25], package="CABGA381", speed=6,
    clock_mhz=60.0)

_ECP5_85F = replace(_ECP5_25F, name="ecp5-85f", device=LFE5U[85])


def _ulx3s(size: int, clock_mhz: float) -> Target:
    return replace(
        _ECP5_25F, name=f"ulx3s-{size}f", title=f"ULX3S {size}F", device=LFE5U[size],
        clock_mhz=clock_mhz, platform=f"celosia_boards.platforms.ulx3s:Ulx3s{size}F",
        crystal_mhz=25.0, leds=_ROW, held=("wifi_gpio0",), loaders=_ecp5("ulx3s"),
        usb=Usb(vendor=0x0403, product=0x6015, name=rf"ULX3S\D*{size}"),
        flash=Flash(part="IS25LP128F", base=4 * _MIB, script=(_WAKE,), takes=(16,)))


def _orangecrab(size: int, clock_mhz: float) -> Target:
    return replace(
        _ECP5_25F, name=f"orangecrab-{size}f", title=f"OrangeCrab r0.2 {size}F",
        device=LFE5U[size], package="CSFBGA285", speed=8, crystal_mhz=48.0, clock_mhz=clock_mhz,
        clock_step_mhz=4.0, leds=_COLOURS, loaders=_DFU,
        platform=f"celosia_boards.platforms.orangecrab:OrangeCrab{size}F",
        usb=Usb(vendor=0x1209, product=0x5af0, name="OrangeCrab"))


_TABLE = (
    _ICEBREAKER,
    replace(
        _ICEBREAKER, name="upduino", title="UPduino 3", pll_pad=False, leds=_COLOURS,
        platform="celosia_boards.platforms.upduino:UpduinoPlatform", held=("flash_cs_n",),
        loaders=(_ICEPROG, replace(_ICE40, options=(*_ICE40.options, "-c", "ft232"))),
        usb=Usb(vendor=0x0403, product=0x6014, name="UPduino"),
        flash=None),                # its pins are those of the serial line
    replace(
        _ICEBREAKER, name="icesugar", title="iCESugar 1.5", leds=_COLOURS,
        platform="amaranth_boards.icesugar:ICESugarPlatform", baud=115_200,
        loaders=(LoaderCommand(program="icesprog", at=("-o",)),),
        usb=Usb(vendor=0x1d50, product=0x602b, name="iCELink"),
        flash=Flash(part="W25Q64JV-IQ", base=_MIB, script=(_WAKE,))),
    _HX8K,
    replace(
        _HX8K, name="hx8k-b-evn", title="iCE40-HX8K breakout", crystal_mhz=12.0,
        pll_pad=False, leds=_ROW,
        platform="amaranth_boards.ice40_hx8k_b_evn:ICE40HX8KBEVNPlatform",
        loaders=(_ICE40, _ICEPROG), clock_mhz=66.0, clock_step_mhz=3.0,
        usb=Usb(vendor=0x0403, product=0x6010, name="Lattice FTUSB", interface=1),
        flash=Flash(part="N25Q32", base=_MIB, script=(_WAKE,), takes=(8,))),
    _ECP5_25F,
    _ECP5_85F,
    _ulx3s(85, 60.0),
    _ulx3s(45, 65.0),
    _ulx3s(25, 70.0),
    _ulx3s(12, 75.0),
    replace(
        _ECP5_85F, name="ecp5-evn", title="ECP5-5G evaluation",
        device=LFE5UM5G_85F, speed=8, crystal_mhz=12.0, clock_mhz=80.0, clock_step_mhz=4.0,
        leds=_ROW, loaders=_ecp5("ecp5_evn"),
        platform="amaranth_boards.ecp5_5g_evn:ECP55GEVNPlatform",
        usb=Usb(vendor=0x0403, product=0x6010, name="ECP5 Evaluation", interface=1)),
    _orangecrab(85, 80.0),
    _orangecrab(25, 84.0),
    replace(
        _ECP5_25F, name="colorlight-i5", title="Colorlight i5 7.0",
        crystal_mhz=25.0, clock_mhz=70.0, leds=(("busy", 0), ("error", 0)), baud=115_200,
        platform="celosia_boards.platforms.colorlight_i5:ColorlightI5Platform",
        loaders=_ecp5("colorlight-i5", "--unprotect-flash"),
        usb=Usb(vendor=0x0d28, product=0x0204, name="^(DAPLink )?CMSIS-DAP")),
)

_BY_NAME = MappingProxyType({entry.name: entry for entry in _TABLE})


def targets() -> Mapping[str, Target]:
    """Every target by its name, in the order of the table; read-only."""
    return _BY_NAME


def target(name: str) -> Target:
    """Return the target called ``name``; UnknownTarget where there is none, or it is no name."""
    if isinstance(name, str) and name in _BY_NAME:
        return _BY_NAME[name]
    near = difflib.get_close_matches(name, _BY_NAME, n=1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UnknownTarget(f"unknown target {quoted(repr(name))}; {hint}targets are "
                        f"{', '.join(_BY_NAME)}")
