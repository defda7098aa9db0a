"""The pins of a board's SPI flash, in front of the flash reader."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import io, wiring
from amaranth.lib.wiring import In

from celosia_boards.families.family import Family
from celosia_hw.flash.lines import Pins

__all__ = ["FlashPins"]


class FlashPins(wiring.Component):
    """A register at every pin of the flash that `celosia_hw.flash.reader.FlashReader` reads.

    A clock pin may change twice a cycle. Of the board's ``spi_flash_4x``, pins 2 and 3 are 1 where
    two wires are read: low they protect the flash, and hold it.

    Parameters
    ----------
    wires : int
        Data pins that are read, 4 or 2.
    family : Family
        Of the board's device; its `Family.flash_clock` drives the clock. Where that is the
        configuration's, it lasts two cycles (`celosia_spec.isa.array.FLASH`).

    Members
    -------
    pins : In(Pins)
        See `celosia_hw.flash.lines.Pins`.

    Timing
    ------
    Pins follow the signals a cycle later, ``pins.i`` the pins: what they are at the end of
    a cycle. The clock is low in the first half of a cycle. So from its falling edge a cycle is left
    for the pins' delays and the flash's: 21 ns at 48 MHz, of which a W25Q takes 6 or 7. The
    configuration's clock changes with the other pins.
    """

    def __init__(self, wires: int, family: Family) -> None:
        self.wires, self.family = wires, family
        super().__init__({"pins": In(Pins(wires))})

    def elaborate(self, platform: Any) -> Module:
        m, pins, wires = Module(), self.pins, self.wires
        four = ("spi_flash_4x", 0) in platform.resources
        name = "spi_flash_4x" if four else "spi_flash_2x"
        parts = [part.name for part in platform.lookup(name, 0).ios]
        flash = platform.request(name, 0, dir=dict.fromkeys(parts, "-"))
        m.submodules.cs = cs = io.FFBuffer(io.Direction.Output, flash.cs)
        m.d.comb += cs.o.eq(pins.cs)
        self.family.flash_clock(m, flash, pins.clock)
        for k, pin in enumerate(flash.dq):
            way = io.Direction.Bidir if k < wires else io.Direction.Output
            m.submodules[f"dq{k}"] = buffer = io.FFBuffer(way, pin)
            m.d.comb += buffer.o.eq((pins.copi, 0, 1, 1)[k])
            if k < wires:
                m.d.comb += [buffer.oe.eq(pins.drive if k != 1 else 0),
                             pins.i[k].eq(buffer.i)]
        return m
