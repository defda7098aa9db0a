"""The memory of weight words in block memory or single-port memory of the device."""

from typing import Any

from amaranth.hdl import ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.blocks import SPRAM_BITS, SPRAM_ROWS
from celosia_hw.parts.table_memory import block_style

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
        Words (slots) a row holds, at least 1.
    word_bits : int
        Width of one word, bits; at most 16 for ``spram``.
    kind : str
        One of `WEIGHT_KINDS`. Both have the same timing. ``bram`` holds zeros at start, ``spram``
        holds nothing defined. Amaranth's own simulator ignores device blocks: simulate ``bram``.
    output_register : bool
        Adds one register after the memory, and one cycle of latency.

    Members
    -------
    read_row : In(range(rows))
        Row to read, sampled at every clock edge.
    read_data : Out(array of words x word_bits)
        The row's words, slot 0 in the lowest bits.
    write_enable : In(1)
        Strobe: at this edge ``write_data`` goes to slot ``write_slot`` of row ``write_row``. What
        is read at the same edge is undefined, whichever row it is.
    write_row : In(range(rows))
    write_slot : In(range(words))
    write_data : In(word_bits)

    Timing
    ------
    Domain ``sync``. ``read_data`` belongs to the address of ``latency`` edges before (1, with an
    output register 2). A word may be read one edge after the one that wrote it. Reset leaves
    contents and data alone.
    """

    read_row: Signal
    read_data: data.View
    write_enable: Signal
    write_row: Signal
    write_slot: Signal
    write_data: Signal

    def __init__(self, rows: int, words: int, word_bits: int, kind: str = "bram", *,
                 output_register: bool = False) -> None:
        if kind not in WEIGHT_KINDS:
            raise ValueError(f"kind must be one of {', '.join(WEIGHT_KINDS)}, not {kind!r}")
        lows = {"rows": (rows, 2), "words": (words, 1), "word_bits": (word_bits, 1)}
        for name, (value, low) in lows.items():
            if value < low:
                raise ValueError(f"{name} must be at least {low}, not {value!r}")
        if kind == "spram" and rows > SPRAM_ROWS:
            raise ValueError(f"rows must be at most {SPRAM_ROWS} for kind 'spram', not {rows}")
        if kind == "spram" and word_bits > SPRAM_BITS:
            raise ValueError(f"word_bits must be at most {SPRAM_BITS} for kind 'spram', "
                             f"not {word_bits}")
        self.rows, self.words, self.word_bits, self.kind = rows, words, word_bits, kind
        self.output_register = output_register
        super().__init__({
            "read_row": In(range(rows)),
            "read_data": Out(data.ArrayLayout(word_bits, words)),
            "write_enable": In(1),
            "write_row": In(range(rows)),
            "write_slot": In(range(words)),
            "write_data": In(word_bits),
        })

    @property
    def latency(self) -> int:
        """Edges from ``read_row`` to ``read_data``."""
        return 2 if self.output_register else 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        build = self._spram if self.kind == "spram" else self._bram
        for slot in range(self.words):
            write = Signal(name=f"write_{slot}")
            word = Signal(self.word_bits, name=f"word_{slot}", reset_less=True)
            m.d.comb += write.eq(self.write_enable & (self.write_slot == slot))
            build(m, slot, write, word)
            if self.output_register:
                held = Signal.like(word, name=f"held_{slot}", reset_less=True)
                m.d.sync += held.eq(word)
                word = held
            m.d.comb += self.read_data[slot].eq(word)
        return m

    def _bram(self, m: Module, slot: int, write: Signal, word: Signal) -> None:
        block = memory.Memory(shape=self.word_bits, depth=self.rows, init=[],
                              attrs=block_style(self.rows, self.word_bits))
        m.submodules[f"slot_{slot}"] = block
        write_port, read_port = block.write_port(), block.read_port()
        m.d.comb += [
            write_port.en.eq(write), write_port.addr.eq(self.write_row),
            write_port.data.eq(self.write_data),
            read_port.addr.eq(self.read_row), word.eq(read_port.data),
        ]

    def _spram(self, m: Module, slot: int, write: Signal, word: Signal) -> None:
        address = Signal(range(SPRAM_ROWS), name=f"address_{slot}")
        written, stored = (Signal(SPRAM_BITS, name=f"{name}_{slot}")
                           for name in ("written", "stored"))
        m.d.comb += [written.eq(self.write_data), word.eq(stored)]
        m.d.comb += address.eq(Mux(self.write_enable, self.write_row, self.read_row))
        m.submodules[f"slot_{slot}"] = Instance(
            "SB_SPRAM256KA",
            i_CLOCK=ClockSignal(), i_ADDRESS=address, i_DATAIN=written,
            i_MASKWREN=Const(15, 4), i_WREN=write, i_CHIPSELECT=Const(1),
            i_STANDBY=Const(0), i_SLEEP=Const(0), i_POWEROFF=Const(1),  # 1 keeps the power on
            o_DATAOUT=stored)
