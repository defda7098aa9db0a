"""Memory with one write port and one registered read port, and what puts it into block memory.

No memory of the gateware promises what a read returns that meets a write of the same row in the
same cycle. The builds use that freedom (`celosia_boards.build`): without it every block memory
would carry a comparator and a bypass of its data width.
"""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["TableMemory", "block_style"]

_BLOCK_BITS = 1024
"""Memories of this many bits or more are put into block memory, not into logic."""


def block_style(depth: int, width: int) -> dict[str, str]:
    """Return the attributes of a memory of ``depth`` words of ``width`` bits."""
    return {"ram_style": "block"} if depth * width >= _BLOCK_BITS else {}


class TableMemory(wiring.Component):
    """Memory with one write port and one read port; zeros at start.

    Parameters
    ----------
    depth : int
        Words, at least 2. From 1024 bits on the memory is forced into block memory.
    width : int
        Width of a word, bits, at least 1.
    output_register : bool
        Adds one register after the memory, and one cycle of latency: ECP5's block memory takes
        5.8 ns from clock to data.

    Members
    -------
    read_address : In(range(depth))
        Word to read, sampled at every clock edge.
    read_data : Out(width)
    write_enable : In(1)
        Strobe: at this edge ``write_data`` goes to word ``write_address``. A read of the same word
        at the same edge is undefined; other words may be read.
    write_address : In(range(depth))
    write_data : In(width)

    Timing
    ------
    Domain ``sync``. ``read_data`` belongs to the address of ``latency`` edges before (1, with an
    output register 2). A word may be read one edge after the one that wrote it. Reset leaves
    contents and data alone.
    """

    read_address: Signal
    read_data: Signal
    write_enable: Signal
    write_address: Signal
    write_data: Signal

    def __init__(self, depth: int, width: int, *, output_register: bool = False) -> None:
        for name, value, low in (("depth", depth, 2), ("width", width, 1)):
            if value < low:
                raise ValueError(f"{name} must be at least {low}, not {value!r}")
        self.depth, self.width, self.output_register = depth, width, output_register
        super().__init__({
            "read_address": In(range(depth)),
            "read_data": Out(width),
            "write_enable": In(1),
            "write_address": In(range(depth)),
            "write_data": In(width),
        })

    @property
    def latency(self) -> int:
        """Edges from ``read_address`` to ``read_data``."""
        return 2 if self.output_register else 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.block = block = memory.Memory(
            shape=self.width, depth=self.depth, init=[], attrs=block_style(self.depth, self.width))
        write_port, read_port = block.write_port(), block.read_port()
        m.d.comb += [
            write_port.en.eq(self.write_enable), write_port.addr.eq(self.write_address),
            write_port.data.eq(self.write_data), read_port.addr.eq(self.read_address),
        ]
        if self.output_register:
            held = Signal(self.width, reset_less=True)
            m.d.sync += held.eq(read_port.data)
            m.d.comb += self.read_data.eq(held)
        else:
            m.d.comb += self.read_data.eq(read_port.data)
        return m
