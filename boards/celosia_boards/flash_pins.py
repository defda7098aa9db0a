"""The pins of a board's SPI flash, in front of the second machine's flash reader."""

from typing import Any

from amaranth.hdl import Cat, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import io

from celosia_boards.families.family import Family

__all__ = ["FlashPins"]


class FlashPins(Elaboratable):
    """A register at every pin of the flash that `celosia_hw.flash.reader.FlashReader` reads.

    A clock pin may change twice a cycle. Where it is that of the configuration (ECP5), a design
    reaches it through a block that has no register; the board's ``spi_flash`` has all others.

    Parameters
    ----------
    core : Any
        Has ``flash_cs``, ``flash_clock``, ``flash_copi``, ``flash_drive`` and ``flash_i``, of 4
        wires or of 1, whose reader's elements take 4 or 16 cycles; of 1, and 32 cycles, where the
        clock is the configuration's.
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
        wide, block = len(core.flash_i) == 4, self.family.configuration_clock
        name = "spi_flash" if block else "spi_flash_4x" if wide else "spi_flash_1x"
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
        if not wide:
            for part in sorted({"wp", "hold"} & {*parts}):  # low they protect it, and hold it
                m.submodules[part] = pin = io.FFBuffer(io.Direction.Output, getattr(flash, part))
                m.d.comb += pin.o.eq(0)
            m.submodules.copi = copi = io.FFBuffer(io.Direction.Output, flash.copi)
            m.submodules.cipo = cipo = io.FFBuffer(io.Direction.Input, flash.cipo)
            m.d.comb += [copi.o.eq(core.flash_copi), core.flash_i.eq(cipo.i)]
            return m
        pins = [io.FFBuffer(io.Direction.Bidir, flash.dq[k]) for k in range(4)]
        for k, (pin, level) in enumerate(zip(pins, (core.flash_copi, 0, 1, 1), strict=True)):
            m.submodules[f"dq{k}"] = pin
            m.d.comb += [pin.o.eq(level), pin.oe.eq(core.flash_drive if k != 1 else 0)]
        m.d.comb += core.flash_i.eq(Cat(pin.i for pin in pins))
        return m
