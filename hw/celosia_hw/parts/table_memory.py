"""Memory with one write port and one registered read port.

No memory of the gateware promises what a read returns that meets a write of the same row in the
same cycle. The builds use that freedom (`celosia_boards.synthesis`): without it every block memory
would carry a comparator and a bypass of its data width.
"""

from typing import Any

from amaranth.hdl import Module, Shape, ShapeLike
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import Out

__all__ = ["TableMemory"]


class TableMemory(wiring.Component):
    """Memory with one write port and one read port; zeros at start.

    Parameters
    ----------
    depth : int
        Words, at least 1.
    shape : ShapeLike
        Of a word; at least one bit.
    block : bool
        It stands in block memory, however small; else in look-up tables, on devices whose look-up
        tables are memories too.

    Members
    -------
    read : Out(ReadPort.Signature)
        ``addr``, sampled at every clock edge where ``en`` is 1, and ``data``.
    write : Out(WritePort.Signature)
        Strobe ``en``: at this edge ``data`` goes to word ``addr``. A read of the same word at the
        same edge is undefined; other words may be read.

    Timing
    ------
    Domain ``sync``. ``read.data`` belongs to the address of the edge before. A word may be read one
    edge after the one that wrote it. Reset leaves contents and data alone.
    """

    def __init__(self, depth: int, shape: ShapeLike, *, block: bool = True) -> None:
        for name, value in (("depth", depth), ("width", Shape.cast(shape).width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        self.depth, self.shape, self.block = depth, shape, block
        address_bits = (depth - 1).bit_length()
        super().__init__({
            "read": Out(memory.ReadPort.Signature(addr_width=address_bits, shape=shape)),
            "write": Out(memory.WritePort.Signature(addr_width=address_bits, shape=shape)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = block = memory.Memory(
            shape=self.shape, depth=self.depth, init=[],
            attrs={"ram_style": "block" if self.block else "distributed"})
        read, write = block.read_port(), block.write_port()
        m.d.comb += [write.en.eq(self.write.en), write.addr.eq(self.write.addr),
                     write.data.eq(self.write.data), read.addr.eq(self.read.addr),
                     read.en.eq(self.read.en), self.read.data.eq(read.data)]
        return m
