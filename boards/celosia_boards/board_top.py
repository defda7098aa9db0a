"""The machine on a board: pins, LEDs and clock around it."""

import functools
import operator
from typing import TYPE_CHECKING, Any

from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.lib import io, wiring
from amaranth.lib.cdc import FFSynchronizer

from celosia_boards.arrays import require
from celosia_boards.clock import ClockSource, possible_clock
from celosia_boards.description import Target
from celosia_boards.flash_pins import FlashPins
from celosia_hw.signatures import connect_members
from celosia_spec.isa.array import Array

if TYPE_CHECKING:
    from celosia_hw.flash.reader import FlashReader

__all__ = ["BoardTop", "top_for"]


class BoardTop(Elaboratable):
    """A core with a serial port, on the board's ``uart`` pins and LEDs; what the board wants held
    high is held.

    Parameters
    ----------
    core : wiring.Component
        Members ``rx`` (In(1)), ``tx`` (Out(1)) and, as outputs of one bit, the indicators that the
        target's LEDs show; domain ``sync``. A core with ``flash_cs`` reads the board's flash, see
        `FlashPins`.
    target : Target
        A board.
    clock_mhz : float
        Frequency of domain ``sync``; see `celosia_boards.clock.ClockSource`.

    Timing
    ------
    ``rx`` reaches the core through two flip-flops, which rest at 1; LEDs and ``tx`` directly.
    """

    def __init__(self, core: wiring.Component, target: Target, clock_mhz: float) -> None:
        if target.platform is None:
            raise ValueError(f"target {target.name!r} is a bare device and has no pins")
        wanted = {"rx", "tx", *(indicator for indicator, _ in target.leds)}
        missing = sorted(wanted - set(core.signature.members))
        if missing:
            raise ValueError(f"the core for {target.name!r} lacks {', '.join(missing)}")
        self.core, self.target = core, target
        self.clock = ClockSource(target, clock_mhz)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.domains += ClockDomain("sync")
        m.submodules.clock = self.clock
        core: Any = self.core
        m.submodules.core = core
        uart = platform.request("uart", 0, dir="-")
        m.submodules.rx_pin = rx_pin = io.Buffer(io.Direction.Input, uart.rx)
        m.submodules.tx_pin = tx_pin = io.Buffer(io.Direction.Output, uart.tx)
        m.submodules.rx_sync = FFSynchronizer(rx_pin.i, core.rx, init=1)
        m.d.comb += tx_pin.o.eq(core.tx)
        for number in sorted({led for _, led in self.target.leds}):
            shown = [getattr(core, indicator) for indicator, led in self.target.leds
                     if led == number]
            led = io.Buffer(io.Direction.Output, platform.request("led", number, dir="-"))
            m.submodules[f"led_{number}"] = led
            m.d.comb += led.o.eq(functools.reduce(operator.or_, shown))
        if "flash_cs" in core.signature.members:
            m.submodules.flash = flash = FlashPins(len(core.flash_i), self.target.family)
            connect_members(m, flash.pins, core, dict(flash.pins.signature.members), "flash_")
        for name in self.target.held:
            held = io.Buffer(io.Direction.Output, platform.request(name, 0, dir="-"))
            m.submodules[name] = held
            m.d.comb += held.o.eq(1)
        return m


def top_for(target: Target, array: Array | None = None, *, clock_mhz: float | None = None,
            baud: int | None = None) -> wiring.Component | BoardTop:
    """Return the machine of a target, as `celosia_boards.build.build` wants it for a clock.

    array     : parameters of the array; the target's unless given.
    clock_mhz : clock of the array; the target's unless given.
    baud      : bits a second on the serial link; the target's unless given.

    A board gets its machine wrapped in `BoardTop`, a bare device the machine itself. ArrayRefused
    where the target cannot hold the array.
    """
    from celosia_hw.serial_machine import SerialMachine

    array = require(target, array or target.array)
    clock_mhz = target.clock_mhz if clock_mhz is None else clock_mhz
    mhz = possible_clock(target, clock_mhz)
    line = {"clock_hz": mhz * 1e6, "baud": target.baud if baud is None else baud}
    core = SerialMachine(array, fabric=target.fabric, main_memory=target.main_memory,
                         reader=_reader(target, array, mhz * 1e6), **line)
    return core if target.platform is None else BoardTop(core, target, clock_mhz)


def _reader(target: Target, array: Array, clock_hz: float) -> "FlashReader | None":
    """Return what reads a board's flash, None for an array without."""
    from celosia_hw.flash.reader import FlashReader

    if not array.flash:
        return None
    assert target.flash is not None, "or the target could not hold the array"
    return FlashReader(array, clock_hz=clock_hz, base=target.flash.base,
                       script=target.flash.script)
