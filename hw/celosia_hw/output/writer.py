"""Elements to main memory: the lanes that are written, side by side, a word at a time."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.output.control import Write
from celosia_hw.output.pool import BEAT
from celosia_hw.output.position import Position
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.numbers import ELEMENT_BITS


class Writer(wiring.Component):
    """Gather the elements of a row's lanes into words of main memory.

    Elements of lanes that are written take consecutive places of a row, from the pass's position
    on. A word is written when its last element is there, or the row ends.

    Parameters
    ----------
    array : Array

    Members
    -------
    position : In(16)
        Of the band: first element of a row that is written.
    begin, again, moves : In(1)
        Strobe: a pass begins, with its first ``row``. With it: it is its batch's first, and begins
        at ``position``; else, with ``moves``, it begins where the rows of the pass before ended.
    row : In(1), element : In(2)
        Strobe, in the cycle before a row's first beat or earlier, in the last beat of the row
        before or later: its channel begins with ``element`` of a word.
    load : In(1), word : In
        Strobe, in the cycle behind: in which word.
    takes, puts : In(2)
        In a beat: elements that have a place, because it is their lane's turn, and it is written;
        those of them that are written, as their row and their pass are.
    last : In(1)
        The row's last beat.
    elements : In(2 x 16)
    write : Out(Write)

    Timing
    ------
    An element is written in its beat's cycle at the earliest, where it completes its word, and at
    most a cycle behind the beat that does or that ends its row. A row has two beats at least.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        self.word_bits = array.main_bits
        super().__init__({
            "position": In(CONTROL_BITS), "begin": In(1), "again": In(1), "moves": In(1),
            "row": In(1), "element": In(2), "load": In(1), "word": In(self.word_bits),
            "takes": In(2), "puts": In(2), "last": In(1), "elements": In(BEAT),
            "write": Out(Write(array)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        takes, slot, write = self.takes, Signal(2), self.write
        position = self._place(m, takes, slot)
        here = [slot == k for k in range(ENTRY_WORDS)]
        first, second = self.puts
        slots = [Signal(ELEMENT_BITS, name=f"slot{k}", reset_less=True)
                 for k in range(ENTRY_WORDS)]
        into = Signal(ENTRY_WORDS)
        for k in range(ENTRY_WORDS):
            # Behind a first element that is not written, the second one has its place.
            m.d.comb += into[k].eq((here[k] & (first | second)) | (here[k - 1] & first & second))
            with m.If(into[k]):
                m.d.sync += slots[k].eq(Mux(here[k] & takes[0], *self.elements))
        # What lies in the slots: `held`, a slot that is the next word's, whether they are done.
        held, beyond, done = Signal(ENTRY_WORDS), Signal(), Signal()
        over, early = Signal(), Signal()
        m.d.comb += [over.eq(here[3] & first & second),
                     early.eq(here[3] & first & ~self.load & ~done)]
        kept, after = Signal(ENTRY_WORDS), Signal(ENTRY_WORDS)
        m.d.comb += [
            kept.eq(Mux(done, held[0] & beyond, Mux(early, 0, held))),
            after.eq(kept | Cat(into[:3], into[3] & ~early)),
            write.request.eq(done | early),
            write.enable.eq(Cat(held[0] & ~beyond, held[1:3], held[3] | early)),
            write.data.eq(Cat(*slots[:3], Mux(done, slots[3], self.elements[0]))),
        ]
        m.d.sync += [
            held.eq(after), beyond.eq(over & ~early),
            done.eq((into[3] & ~early) | (self.last & after.any())),
        ]
        with m.If(self.load | write.request):
            m.d.sync += write.address.eq(Mux(self.load, position, write.address + 1))
        return m

    def _place(self, m: Module, takes: Signal, slot: Signal) -> Value:
        """Keep the slot of a beat's first element; return the word where a row begins."""
        m.submodules.position = position = Position()
        begin = Signal(2)
        m.d.comb += [
            position.position.eq(self.position), position.begin.eq(self.begin),
            position.again.eq(self.again), position.moves.eq(self.moves),
            position.row.eq(self.row), position.takes.eq(takes),
            begin.eq(position.low + self.element),
        ]
        m.d.sync += slot.eq(Mux(self.row, begin, slot + takes[0] + takes[1]))
        # The row's first slot is the lower one if element and position are a word together.
        return self.word + position.at[2:] + (slot < position.at[:2])
