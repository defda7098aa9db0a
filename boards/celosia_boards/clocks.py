"""PLL settings for iCE40 and ECP5, and the module that makes domain ``sync`` from a crystal."""

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from amaranth.hdl import (
    ClockDomain,
    ClockSignal,
    Const,
    Elaboratable,
    Instance,
    Module,
    ResetSignal,
    Signal,
)
from amaranth.lib import io
from amaranth.lib.cdc import FFSynchronizer

from celosia_boards.targets import Target

__all__ = ["MARGIN", "STARTUP_SECONDS", "ClockError", "Ecp5Pll", "Ice40Pll", "PllClock",
           "ecp5_pll", "highest_clock", "ice40_pll", "pll_setting", "possible_clock"]

MARGIN = 0.05
"""How much faster than its clock a placed design must be for that clock to be chosen: the PLLs'
jitter below 100 MHz takes up to half of it (data sheets: 0.05 UI peak to peak), the other half is
for what the router's model of the device leaves out."""

STARTUP_SECONDS = 15e-6
"""Reset after lock: iCE40 block memories read zeros for about 3 us after configuration, and this
is the margin that Amaranth's own platforms take."""

_TOLERANCE = 0.03
_FILTER_LIMITS = (17, 26, 44, 66, 101)


class ClockError(ValueError):
    """No PLL setting comes near enough to the frequency asked for."""


@dataclass(frozen=True, kw_only=True)
class Ice40Pll:
    """Settings of SB_PLL40, simple feedback: ``mhz = in * (divf + 1) / (divr + 1) / 2**divq``."""

    divr: int
    divf: int
    divq: int
    filter_range: int
    mhz: float


@dataclass(frozen=True, kw_only=True)
class Ecp5Pll:
    """Settings of EHXPLLL with feedback from CLKOP: ``mhz = in * feedback_div / input_div``."""

    input_div: int
    feedback_div: int
    output_div: int
    mhz: float


Pll = TypeVar("Pll", Ice40Pll, Ecp5Pll)


def _nearest(candidates: list[Pll], in_mhz: float, out_mhz: float) -> Pll:
    """The fastest candidate that does not exceed ``out_mhz``; the first among equals."""
    fitting = [entry for entry in candidates if entry.mhz <= out_mhz * (1 + 1e-9)]
    best = max(fitting, key=lambda entry: entry.mhz, default=None)
    if best is None or best.mhz < out_mhz * (1 - _TOLERANCE):
        raise ClockError(f"no PLL setting makes {out_mhz} MHz (or up to {_TOLERANCE:.0%} less) "
                         f"from {in_mhz} MHz; choose another clock")
    return best


def ice40_pll(in_mhz: float, out_mhz: float) -> Ice40Pll:
    """Return the setting whose output is nearest below ``out_mhz``; ClockError beyond 3 %.

    Limits: phase detector 10 to 133 MHz, oscillator 533 to 1066 MHz, output 16 to 275 MHz. Among
    equal outputs the one with the fastest phase detector.
    """
    candidates = []
    for divr in range(16):
        detector = in_mhz / (divr + 1)
        if not 10 <= detector <= 133:
            continue
        for divf in range(128):
            oscillator = detector * (divf + 1)
            if not 533 <= oscillator <= 1066:
                continue
            for divq in range(1, 7):
                mhz = oscillator / (1 << divq)
                if 16 <= mhz <= 275:
                    filter_range = 1 + sum(detector >= limit for limit in _FILTER_LIMITS)
                    candidates.append(Ice40Pll(divr=divr, divf=divf, divq=divq,
                                               filter_range=filter_range, mhz=mhz))
    return _nearest(candidates, in_mhz, out_mhz)


def ecp5_pll(in_mhz: float, out_mhz: float) -> Ecp5Pll:
    """Return the setting whose output is nearest below ``out_mhz``; ClockError beyond 3 %.

    Limits: phase detector 3.125 to 400 MHz, oscillator 400 to 800 MHz, output 10 to 400 MHz,
    feedback divider up to 80. The output divider brings the oscillator nearest to 600 MHz.
    """
    candidates = []
    for input_div in range(1, 129):
        if not 3.125 <= in_mhz / input_div <= 400:
            continue
        for feedback_div in range(1, 81):
            mhz = in_mhz * feedback_div / input_div
            dividers = [div for div in range(1, 129) if 400 <= mhz * div <= 800]
            if 10 <= mhz <= 400 and dividers:
                output_div = min(dividers, key=lambda div: abs(mhz * div - 600))
                candidates.append(Ecp5Pll(input_div=input_div, feedback_div=feedback_div,
                                          output_div=output_div, mhz=mhz))
    return _nearest(candidates, in_mhz, out_mhz)


def pll_setting(family: str, in_mhz: float, out_mhz: float) -> Ice40Pll | Ecp5Pll:
    """Return the setting of the family's PLL, see `ice40_pll` and `ecp5_pll`."""
    if family not in ("ice40", "ecp5"):
        raise ValueError(f"family must be ice40 or ecp5, not {family!r}")
    return (ice40_pll if family == "ice40" else ecp5_pll)(in_mhz, out_mhz)


def possible_clock(target: Target, clock_mhz: float) -> float:
    """Return what the target makes of a clock asked for: the PLL's output on a board.

    ClockError where the PLL comes nowhere near, or the device's hard blocks do not stand it.
    """
    if not 0 < clock_mhz < math.inf:
        raise ClockError(f"clock_mhz must be a positive number, not {clock_mhz!r}")
    if target.ceiling_mhz is not None and clock_mhz > target.ceiling_mhz:
        raise ClockError(f"{target.name}: its hard blocks stand {target.ceiling_mhz:g} MHz, not "
                         f"{clock_mhz:g}; choose a lower clock")
    if target.crystal_mhz is None:
        return clock_mhz
    return pll_setting(target.family, target.crystal_mhz, clock_mhz).mhz


def highest_clock(target: Target, fmax_mhz: float) -> float | None:
    """Return the fastest standard clock that a design of this Fmax meets with `MARGIN`.

    Standard are the multiples of ``target.clock_step_mhz``. None where Fmax is too low for any.
    """
    most = min(fmax_mhz / (1 + MARGIN), target.ceiling_mhz or math.inf)
    for steps in range(math.floor(most / target.clock_step_mhz), 0, -1):
        clock = steps * target.clock_step_mhz
        try:
            if possible_clock(target, clock) == clock:
                return clock
        except ClockError:
            break
    return None


class PllClock(Elaboratable):
    """Drives domain ``sync`` from the board's clock pin; in reset until the PLL has locked.

    The module around it defines the domain.

    Parameters
    ----------
    family : str
        "ice40" or "ecp5".
    crystal_mhz, clock_mhz : float
        Frequency of the platform's default clock, and the one wanted.
    pad : bool
        Whether that clock's pin is the pad of a PLL. On iCE40 the PLL then takes the pin itself,
        and can be had in no other way; elsewhere the clock comes to it through a buffer.

    Attributes
    ----------
    mhz : float
        What the PLL makes: ``clock_mhz`` or up to 3 % less.

    Timing
    ------
    Reset of ``sync`` falls, on a clock edge, one to two `STARTUP_SECONDS` after lock; it rises
    again when the lock is lost. nextpnr derives the clock's constraint from the pin's and the
    settings.
    """

    def __init__(self, family: str, crystal_mhz: float, clock_mhz: float, *,
                 pad: bool = True) -> None:
        self.crystal_mhz, self.pad = crystal_mhz, pad
        self.setting = pll_setting(family, crystal_mhz, clock_mhz)

    @property
    def mhz(self) -> float:
        return self.setting.mhz

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pin = platform.request(platform.default_clk, dir="-")
        clock, locked = Signal(name="pll_clk"), Signal()
        if isinstance(self.setting, Ice40Pll):
            self._ice40(m, self.setting, pin, clock, locked)
        else:
            self._ecp5(m, self.setting, pin, clock, locked)
        m.domains += ClockDomain("settle", reset_less=True, local=True)
        m.d.comb += [ClockSignal("settle").eq(clock), ClockSignal("sync").eq(clock)]
        locked_here = Signal()
        m.submodules.lock_sync = FFSynchronizer(locked, locked_here, o_domain="settle")
        timer = Signal(math.ceil(STARTUP_SECONDS * self.mhz * 1e6).bit_length() + 1)
        with m.If(~locked_here):
            m.d.settle += timer.eq(0)
        with m.Elif(~timer[-1]):
            m.d.settle += timer.eq(timer + 1)
        m.d.comb += ResetSignal("sync").eq(~timer[-1])
        return m

    def _ice40(self, m: Module, setting: Ice40Pll, pin: Any, clock: Signal,
               locked: Signal) -> None:
        source: dict[str, Any]
        if self.pad:
            kind, source = "SB_PLL40_PAD", {"i_PACKAGEPIN": pin.io}
        else:
            m.submodules.pin_buffer = pin_buffer = io.Buffer(io.Direction.Input, pin)
            kind, source = "SB_PLL40_CORE", {"i_REFERENCECLK": pin_buffer.i}
        m.submodules.pll = Instance(
            kind, **source,
            p_FEEDBACK_PATH="SIMPLE", p_DIVR=Const(setting.divr, 4), p_DIVF=Const(setting.divf, 7),
            p_DIVQ=Const(setting.divq, 3), p_FILTER_RANGE=Const(setting.filter_range, 3),
            i_RESETB=Const(1), i_BYPASS=Const(0), o_PLLOUTGLOBAL=clock, o_LOCK=locked)

    def _ecp5(self, m: Module, setting: Ecp5Pll, pin: Any, clock: Signal,
              locked: Signal) -> None:
        m.submodules.pin_buffer = pin_buffer = io.Buffer(io.Direction.Input, pin)
        m.submodules.pll = Instance(
            "EHXPLLL",
            a_FREQUENCY_PIN_CLKI=str(self.crystal_mhz), a_FREQUENCY_PIN_CLKOP=str(setting.mhz),
            a_ICP_CURRENT="12", a_LPF_RESISTOR="8", a_MFG_ENABLE_FILTEROPAMP="1",
            a_MFG_GMCREF_SEL="2",
            p_PLLRST_ENA="DISABLED", p_INTFB_WAKE="DISABLED", p_STDBY_ENABLE="DISABLED",
            p_DPHASE_SOURCE="DISABLED", p_OUTDIVIDER_MUXA="DIVA", p_FEEDBK_PATH="CLKOP",
            p_CLKI_DIV=setting.input_div, p_CLKFB_DIV=setting.feedback_div,
            p_CLKOP_ENABLE="ENABLED", p_CLKOP_DIV=setting.output_div,
            p_CLKOP_CPHASE=setting.output_div - 1, p_CLKOP_FPHASE=0,
            i_CLKI=pin_buffer.i, i_CLKFB=clock, i_RST=Const(0), i_STDBY=Const(0),
            i_PHASESEL0=Const(0), i_PHASESEL1=Const(0), i_PHASEDIR=Const(1),
            i_PHASESTEP=Const(1), i_PHASELOADREG=Const(1), i_PLLWAKESYNC=Const(0),
            i_ENCLKOP=Const(0), o_CLKOP=clock, o_LOCK=locked)
