"""Clocks that a target can have, and the module that makes domain ``sync`` from a crystal."""

import math
from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib.cdc import FFSynchronizer

from celosia_boards.description import Target
from celosia_boards.families.family import ClockError

__all__ = ["MARGIN", "STARTUP_SECONDS", "ClockError", "ClockSource", "highest_clock",
           "possible_clock"]

MARGIN = 0.05
"""How much faster than its clock a placed design must be for that clock to be chosen: the PLLs'
jitter below 100 MHz takes up to half of it (data sheets: 0.05 UI peak to peak), the other half is
for what the router's model of the device leaves out."""

STARTUP_SECONDS = 15e-6
"""Reset after lock: iCE40 block memories read zeros for about 3 us after configuration, and this
is the margin that Amaranth's own platforms take."""


def possible_clock(target: Target, clock_mhz: float) -> float:
    """Return what the target makes of a clock asked for: the PLL's output on a board.

    ClockError where the PLL comes nowhere near, or the device's hard blocks do not stand it.
    """
    if not 0 < clock_mhz < math.inf:
        raise ClockError(f"clock_mhz must be a positive number, not {clock_mhz!r}")
    ceiling = target.device.ceiling_mhz
    if ceiling is not None and clock_mhz > ceiling:
        raise ClockError(f"{target.name}: its hard blocks stand {ceiling:g} MHz, not "
                         f"{clock_mhz:g}; choose a lower clock")
    if target.crystal_mhz is None:
        return clock_mhz
    return target.family.pll(target.crystal_mhz, clock_mhz).mhz


def highest_clock(target: Target, fmax_mhz: float) -> float | None:
    """Return the fastest standard clock that a design of this Fmax meets with `MARGIN`.

    Standard are the multiples of ``target.clock_step_mhz``. None where Fmax is too low for any.
    """
    most = min(fmax_mhz / (1 + MARGIN), target.device.ceiling_mhz or math.inf)
    for steps in range(math.floor(most / target.clock_step_mhz), 0, -1):
        clock = steps * target.clock_step_mhz
        try:
            if possible_clock(target, clock) == clock:
                return clock
        except ClockError:
            break
    return None


class ClockSource(Elaboratable):
    """Drives domain ``sync`` from the board's clock pin; in reset until the PLL has locked.

    The module around it defines the domain.

    Parameters
    ----------
    target : Target
        A board: its family's PLL takes the platform's default clock.
    clock_mhz : float
        The clock wanted. ClockError where the PLL comes nowhere near.

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

    def __init__(self, target: Target, clock_mhz: float) -> None:
        if target.crystal_mhz is None:
            raise ValueError(f"target {target.name!r} is a bare device and has no clock")
        self.pad = target.pll_pad
        self.pll = target.family.pll(target.crystal_mhz, clock_mhz)

    @property
    def mhz(self) -> float:
        return self.pll.mhz

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        pin = platform.request(platform.default_clk, dir="-")
        clock, locked = Signal(name="pll_clk"), Signal()
        self.pll.instance(m, pin, clock, locked, pad=self.pad)
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
