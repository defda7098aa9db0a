"""What fills lines and channels of stored maps into the banks, while the array computes."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.fill.column_pair import ColumnPair
from celosia_hw.fill.columns import Columns
from celosia_hw.fill.finisher import Finisher
from celosia_hw.memory.main_memory import Access, MainMemory
from celosia_hw.parts.rotator import Rotator
from celosia_hw.signatures import Codes
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.fills import QUEUED
from celosia_spec.isa.numbers import EXPONENT_BITS


class Fills(wiring.Signature):
    """Records that are to be executed, seen from who gives them.

    load, word : strobe: the next control word of a record.
    room       : there is room for a record; stays until its last word is loaded.
    busy       : records are queued or executed. Falls in the cycle in which the last code is
                 written.
    """

    def __init__(self) -> None:
        super().__init__({"load": Out(1), "word": Out(CONTROL_BITS), "room": In(1), "busy": In(1)})


class FillEngine(wiring.Component):
    """Executes records of `celosia_spec.isa.controls.FILL`, one after another: reads elements
    from main memory, finishes them, and writes their codes into the banks.

    Parameters
    ----------
    array : Array
    fabric : Fabric
        What it is built of.

    Members
    -------
    fills : In(Fills)
        ``QUEUED`` records fit in, with the one that is executed.
    done : Out(1)
        Strobe: what a record wrote is complete at the end of the next cycle, or where words go
        through a register of the one behind it.
    start : Out(1), residual : Out(1)
        Strobe: a record begins. From the cycle behind it on: it is of the residual operand.
    exponent : In(5)
        Its map's exponent + 16: from five cycles after ``start`` to the next ``start``, or from
        three of an array that fills eight.
    memory : Out(Access), data : In(64), or In(128) of an array that fills eight
        The port of main memory, see `MainMemory` and `SharedMemory`. Grants may come at any time.
    codes : Out(Codes)
    clipped : Out(1)
        Strobe: an element is larger than its tensor's exponent allows.

    Timing
    ------
    A word of main memory for each grant, at most one a cycle: four codes without ``apart``, one
    with it; four zeros a cycle without the port. `WideEngine` takes two. Codes are on the outputs
    ``latency`` cycles after the grant. Nothing hangs on when grants come.
    `celosia_spec.isa.fills.cycles` says what a record takes.

    Records have at most ``bank_rows`` lines and channels, and keep what
    `celosia_spec.isa.fills.places` asserts: elements of a word go to different columns.
    """

    QUEUED = QUEUED

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        self.words = -(-array.fill // ENTRY_WORDS)
        # Block memories are late, and far apart; where half a word is taken, cells count more.
        self.registered = array.unit == ENTRY_WORDS
        self.latency = MainMemory.LATENCY + self.registered + Finisher.LATENCY
        self.columns = self._columns()
        super().__init__({
            "fills": In(Fills()), "done": Out(1), "start": Out(1), "residual": Out(1),
            "exponent": In(EXPONENT_BITS), "memory": Out(Access(array.main_words, 0)),
            "data": In(self.words * ENTRY_BITS), "codes": Out(Codes(array)),
            "clipped": Out(1),
        })

    @abstractmethod
    def _columns(self) -> Columns | ColumnPair:
        """Return what spreads elements over the banks."""

    def _finish(self, m: Module, flags: data.View, counts: Value, upper: Value) -> None:
        """Finish the elements of ``data``, or of a half of it, that count, and give each column its
        own."""
        size, columns = self.array.fill, self.columns
        m.submodules.rotator = rotator = Rotator(size, self.array.activation_bits)
        finishers = [Finisher(self.array.activation_bits) for _ in range(size)]
        taken = Signal(size * CONTROL_BITS, reset_less=True)
        domain = m.d.sync if self.registered else m.d.comb
        domain += taken.eq(self.data if size >= ENTRY_WORDS else
                           self.data.word_select(upper, len(taken)))
        for k, finisher in enumerate(finishers):
            m.submodules[f"finisher{k}"] = finisher
            m.d.comb += [
                finisher.element.eq(taken.word_select(k, CONTROL_BITS)),
                finisher.exponent.eq(self.exponent), finisher.signed.eq(flags.signed),
                finisher.zero.eq(flags.zero | ~counts[k])]
        codes = [finisher.code for finisher in finishers]
        if isinstance(columns, Columns):    # even ones, then odd ones
            codes[1:3] = (Mux(flags.pair, codes[3 - k], codes[k]) for k in (1, 2))
            if columns.words == 2:          # of one word all columns take the elements
                codes[size // 2:] = (Mux(columns.twice, own, code) for own, code in zip(
                    codes[size // 2:], codes, strict=False))
        m.d.comb += [
            self.clipped.eq(any_of([finisher.clipped for finisher in finishers])),
            rotator.i.eq(Cat(codes)),
            rotator.rotation.eq(columns.turn), self.codes.code.eq(rotator.o),
        ]


def held(m: Module, name: str, value: Value) -> Signal:
    """Return a value a cycle later."""
    found = Signal(len(value), name=name, reset_less=True)
    m.d.sync += found.eq(value)
    return found


def any_of(values: Sequence[Value]) -> Value:
    """Return the bits that one of the values has."""
    return reduce(or_, values)
