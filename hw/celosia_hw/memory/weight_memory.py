"""The memory of weight words, in block memory or in single-port memory of the device."""

from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.blocks import SPRAM_BITS, SPRAM_ROWS
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import HostMemory, RowSource

__all__ = ["WEIGHT_KINDS", "WeightMemory"]

WEIGHT_KINDS = ("bram", "spram")
"""``bram``: inferred block memory; ``spram``: SB_SPRAM256KA of iCE40 UltraPlus."""


class WeightMemory(wiring.Component):
    """Memory of port rows, each a fixed number of words that are read together.

    Parameters
    ----------
    rows : int
        Depth, port rows, at least 2; at most 16384 for ``spram``.
    words : int
        Words (slots) a row holds, a power of two.
    word_bits : int
        Width of one word, bits; at most 16 for ``spram``.
    kind : str
        One of `WEIGHT_KINDS`. Both have the same timing. ``bram`` holds zeros at start, ``spram``
        holds nothing defined. Amaranth's own simulator ignores device blocks: simulate ``bram``.

    Members
    -------
    rows : Out(RowSource)
        The row that is asked for is sampled at every clock edge.
    host_weights : In(HostMemory)
        Writes only; address = row * words + slot. What is read at the same edge is undefined,
        whichever row it is.

    Timing
    ------
    Domain ``sync``. The words belong to the row of the edge before. A word may be read one edge
    after the one that wrote it. Reset leaves contents and data alone.
    """

    def __init__(self, rows: int, words: int, word_bits: int, kind: str = "bram") -> None:
        if kind not in WEIGHT_KINDS:
            raise ValueError(f"kind must be one of {', '.join(WEIGHT_KINDS)}, not {kind!r}")
        lows = {"rows": (rows, 2), "words": (words, 1), "word_bits": (word_bits, 1)}
        for name, (value, low) in lows.items():
            if value < low:
                raise ValueError(f"{name} must be at least {low}, not {value!r}")
        if words & words - 1:
            raise ValueError(f"words must be a power of two, not {words}")
        if kind == "spram" and rows > SPRAM_ROWS:
            raise ValueError(f"rows must be at most {SPRAM_ROWS} for kind 'spram', not {rows}")
        if kind == "spram" and word_bits > SPRAM_BITS:
            raise ValueError(f"word_bits must be at most {SPRAM_BITS} for kind 'spram', "
                             f"not {word_bits}")
        self.depth, self.words, self.word_bits, self.kind = rows, words, word_bits, kind
        super().__init__({"rows": Out(RowSource(rows, words, word_bits)),
                          "host_weights": In(HostMemory(readable=False))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        slot_bits = self.words.bit_length() - 1
        row = Signal(range(self.depth))
        m.d.comb += row.eq(self.host_weights.address[slot_bits:])
        build = self._spram if self.kind == "spram" else self._bram
        for slot in range(self.words):
            write = Signal(name=f"write_{slot}")
            m.d.comb += write.eq(self.host_weights.write
                                 & (self.host_weights.address[:slot_bits] == slot))
            build(m, slot, write, row)
        return m

    def _bram(self, m: Module, slot: int, write: Signal, row: Signal) -> None:
        m.submodules[f"slot_{slot}"] = block = TableMemory(self.depth, self.word_bits)
        m.d.comb += [block.write.en.eq(write), block.write.addr.eq(row),
                     block.write.data.eq(self.host_weights.data),
                     block.read.addr.eq(self.rows.row), self.rows.words[slot].eq(block.read.data)]

    def _spram(self, m: Module, slot: int, write: Signal, row: Signal) -> None:
        address = Signal(range(SPRAM_ROWS), name=f"address_{slot}")
        written, stored = (Signal(SPRAM_BITS, name=f"{name}_{slot}")
                           for name in ("written", "stored"))
        m.d.comb += [written.eq(self.host_weights.data[:self.word_bits]),
                     self.rows.words[slot].eq(stored),
                     address.eq(Mux(self.host_weights.write, row, self.rows.row))]
        m.submodules[f"slot_{slot}"] = Instance(
            "SB_SPRAM256KA",
            i_CLOCK=ClockSignal(), i_ADDRESS=address, i_DATAIN=written,
            i_MASKWREN=Const(15, 4), i_WREN=write, i_CHIPSELECT=Const(1),
            i_STANDBY=Const(0), i_SLEEP=Const(0), i_POWEROFF=Const(1),  # 1 keeps the power on
            o_DATAOUT=stored)
