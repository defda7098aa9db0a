"""The write table, and the entry of it that the walk has come to."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import HostMemory
from celosia_spec.isa import ArrayConfig, write_word


class Places(wiring.Component):
    """The present write-table entry of a layer.

    Members
    -------
    base : In(range(writes))
        The layer's first entry; stable from ``load`` on.
    load : In(1), again : In(1)
        Strobes: the next entry is the first. ``load`` is the layer's first one and comes at least
        ``AHEAD`` cycles before the entry is used.
    advance : In(1)
        Strobe: the next entry is the one after this.
    entry : Out(write word)
    host_writes : In(HostMemory)
        Writes only.

    Timing
    ------
    ``entry`` changes in the cycle after a strobe.
    """

    AHEAD = 2

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        super().__init__({
            "base": In(range(array.writes)), "load": In(1), "again": In(1), "advance": In(1),
            "entry": Out(layout(write_word(array))), "host_writes": In(HostMemory(readable=False)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.table = table = TableMemory(self.array.writes, self.entry.shape())
        m.d.comb += table.written_by(self.host_writes)
        (self._read_ahead if self.array.deep else self._read)(m, table.read)
        return m

    def _read(self, m: Module, read: Any) -> None:
        index = Signal.like(self.base)
        with m.If(self.load | self.again):
            m.d.comb += read.addr.eq(self.base)
        with m.Else():
            m.d.comb += read.addr.eq(index + self.advance)
        m.d.sync += index.eq(read.addr)
        m.d.comb += self.entry.eq(read.data)

    def _read_ahead(self, m: Module, read: Any) -> None:
        """As `_read`, for a deep array: the memory's address comes out of a register, and so does
        the entry, so that no decision of the walk begins or ends at a block memory.

        The memory reads one entry ahead of the present one, the address is two ahead. The first
        two entries are kept from the layer's load on, for the way back.
        """
        entry, first, second = (Signal.like(self.entry, name=name, reset_less=True)
                                for name in ("present", "first", "second"))
        index = Signal.like(self.base)
        loading, at_first = Signal(3), Signal()     # cycles since the load; the entry is the first
        m.d.comb += [read.addr.eq(index), read.en.eq(self.advance | loading[:2].any()),
                     self.entry.eq(entry)]
        m.d.sync += loading.eq(Cat(self.load, loading))
        with m.If(self.load):
            m.d.sync += index.eq(self.base)
        with m.Elif(self.again):
            m.d.sync += [index.eq(self.base + 2), entry.eq(first), at_first.eq(1)]
        with m.Elif(read.en):
            m.d.sync += [index.eq(index + 1), entry.eq(Mux(at_first, second, read.data)),
                         at_first.eq(0)]
        with m.If(loading[1]):
            m.d.sync += [entry.eq(read.data), first.eq(read.data), at_first.eq(0)]
        with m.If(loading[2]):
            m.d.sync += second.eq(read.data)
