"""The pins of a board's SPI flash, in front of the flash reader."""

from typing import Any

from amaranth.hdl import Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import io

from celosia_boards.families.family import Family

__all__ = ["FlashPins"]


class FlashPins(Elaboratable):
    """A register at every pin of the flash that `celosia_hw.flash.reader.FlashReader` reads.

    A clock pin may change twice a cycle. Where it is that of the configuration (ECP5), a design
    reaches it through a block that has no register. Of the board's ``spi_flash_4x``, pins 2 and 3
    are 1 where two wires are read: low they protect the flash, and hold it.

    Parameters
    ----------
    core : Any
        Has ``flash_cs``, ``flash_clock``, ``flash_copi``, ``flash_drive`` and ``flash_i``, of 4
        wires or of 2; where the clock is the configuration's, it lasts two cycles
        (`celosia_spec.isa.array.FLASH`).
    family : Family
        Of the board's device.

    Timing
    ------
    Pins follow the core's signals a cycle later, ``flash_i`` the pins: what they are at the end of
    a cycle. The clock is low in the first half of a cycle. So from its falling edge a cycle is left
    for the pins' delays and the flash's: 21 ns at 48 MHz, of which a W25Q takes 6 or 7. The
    configuration's clock changes with the other pins.
    """

    def __init__(self, core: Any, family: Family) -> None:
        self.core, self.family = core, family

    def elaborate(self, platform: Any) -> Module:
        m, core = Module(), self.core
        wires, block = len(core.flash_i), self.family.configuration_clock
        four = ("spi_flash_4x", 0) in platform.resources
        name = "spi_flash_4x" if four else "spi_flash_2x"
        parts = [part.name for part in platform.lookup(name, 0).ios]
        flash = platform.request(name, 0, dir=dict.fromkeys(parts, "-"))
        m.submodules.cs = cs = io.FFBuffer(io.Direction.Output, flash.cs)
        m.d.comb += cs.o.eq(core.flash_cs)
        if block:
            level = Signal()
            m.d.sync += level.eq(core.flash_clock)
            m.submodules.clock = Instance(block, i_USRMCLKI=level, i_USRMCLKTS=Const(0))
        else:
            m.submodules.clock = clock = io.DDRBuffer(io.Direction.Output, flash.clk)
            m.d.comb += [clock.o[0].eq(0), clock.o[1].eq(core.flash_clock)]
        for k, pin in enumerate(flash.dq):
            way = io.Direction.Bidir if k < wires else io.Direction.Output
            m.submodules[f"dq{k}"] = buffer = io.FFBuffer(way, pin)
            m.d.comb += buffer.o.eq((core.flash_copi, 0, 1, 1)[k])
            if k < wires:
                m.d.comb += [buffer.oe.eq(core.flash_drive if k != 1 else 0),
                             core.flash_i[k].eq(buffer.i)]
        return m
