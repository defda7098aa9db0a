"""Control words, executed in their order."""

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_spec.stream.array import CONTROL_BITS, Array
from celosia_spec.stream.controls import BAND, BATCH, COMMAND, LAYER, Op, head_words


class Executor(wiring.Component):
    """Take control words from their ring; hold the layer's and the band's fields; hand words to
    tables, fills and exponents, batches to the sequencer.

    A command waits for what it would disturb: `layer`, `taps`, `tiles`, `join`, `close` and `halt`
    until all is written; `band` until all steps are issued and all fills are done, and its position
    until the output path has that of the band before; `wait` until all steps are issued, if it has
    cycles; `fill` until there is room for it; `copy` until the flash reader is free.

    Parameters
    ----------
    array : Array

    Members
    -------
    start : In(1), busy : Out(1)
        Strobe, while ``busy`` is 0; it is 0 from `halt` on.
    have : In(1), word : In(16), take : Out(1), jump : Out(1), distance : Out
        See `ControlsRing`.
    layer : Out(LAYER)
    first, second, set, join : Out(1), closed : In(1)
        See `Exponents`, whose ``word`` is the ring's.
    row, tile, last_tile, position : Out, load : Out(1)
        Of the band. Strobe: ``row`` and ``tile`` are there.
    offer : Out(1), batch : Out(BATCH), single : Out(1), taken : In(1), began : In(1)
        A batch, which has one step; strobes: it was taken in the cycle before; its first step was
        issued in the cycle before, that of ``taken`` at the earliest.
    tap, tile_word : Out(1), place : Out
        Strobes: ``word`` goes to this place of the table.
    room : In(1), fill : Out(1), filling : In(1)
        There is room for a fill's record; strobe: ``word`` is its next one; fills are not done.
    copy : Out(1), copying : In(1)
        Strobe: ``word`` is the section that the flash reader copies; it copies one.
    idle, quiet, placed : In(1)
        No steps are left to be issued; and all is written, which may be said a cycle late; the
        output path has the band's position.
    wrong : Out(1)
        Strobe: the word is no command of this array; none is taken any more.

    Timing
    ------
    A command takes two cycles, and one for each of its words; those that set an exponent five more.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        ring, tables = (array.controls - 1).bit_length(), max(array.taps, array.tiles)
        super().__init__({
            "start": In(1), "busy": Out(1), "have": In(1), "word": In(CONTROL_BITS),
            "take": Out(1), "jump": Out(1), "distance": Out(ring),
            "layer": Out(layout(*LAYER.words)), "first": Out(1), "second": Out(1), "set": Out(1),
            "join": Out(1), "closed": In(1),
            "row": Out((array.bank_rows - 1).bit_length()),
            "tile": Out((array.tiles - 1).bit_length()),
            "last_tile": Out((array.tiles - 1).bit_length()), "position": Out(CONTROL_BITS),
            "load": Out(1), "offer": Out(1), "batch": Out(layout(BATCH)), "single": Out(1),
            "taken": In(1), "began": In(1), "tap": Out(1), "tile_word": Out(1),
            "place": Out((tables - 1).bit_length()), "room": In(1), "fill": Out(1),
            "filling": In(1), "copy": Out(1), "copying": In(1), "idle": In(1), "quiet": In(1),
            "placed": In(1), "wrong": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal(CONTROL_BITS, reset_less=True)
        argument = data.View(layout(COMMAND), held).argument
        fetch, act, fields, jump, waiting = (Signal(name=name) for name in (
            "fetch", "act", "fields", "jumps", "waiting"))
        fetched, next_word, ready, counts = Signal(), Signal(), Signal(), Signal()
        # What a command is, and whether its words are none or one, is found as it comes.
        ops = {op: Signal(name=f"is_{op.name.lower()}", reset_less=True) for op in Op}
        follows, quiets, none, one = (Signal(name=name, reset_less=True) for name in (
            "follows", "quiets", "none", "one"))
        given = data.View(layout(COMMAND), self.word)
        m.d.comb += [
            fetched.eq(fetch & self.have), counts.eq(next_word | waiting),
            self.batch.eq(held), self.offer.eq(act & ~held[0]),
            ready.eq((quiets & self.quiet) | (ops[Op.FILL] & self.room)
                     | (ops[Op.BAND] & self.idle & ~self.filling)
                     | (ops[Op.WAIT] & (self.idle | none))
                     | (ops[Op.COPY] & ~self.copying if self.array.flash else 0)),
            self.take.eq((self.have & (fetch | ~self.busy)) | next_word),
            self.jump.eq(jump & self.began),
        ]
        known: Value = Const(0, 1)
        for op in Op:
            known |= (given.op == op) & Const(op != Op.COPY or bool(self.array.flash), 1)
        m.d.sync += self.wrong.eq(fetched & given.command & ~known)
        with m.If(fetched):
            m.d.sync += [
                held.eq(self.word), *(is_op.eq(given.command & (given.op == op))
                                      for op, is_op in ops.items()),
                follows.eq(given.command & ~given.op[3]),
                quiets.eq(given.command & ~((given.op == Op.FILL) | (given.op == Op.BAND)
                                            | (given.op == Op.COPY) | (given.op == Op.WAIT))),
                none.eq(given.argument == 0), one.eq(given.argument == 1),
                self.single.eq(data.View(layout(BATCH), self.word).steps == 0)]
        with m.Elif(counts):
            m.d.sync += [argument.eq(argument - 1), one.eq(argument == 2)]
        ends = counts & one
        m.d.sync += [
            act.eq(fetched | (act & ~ready & ~self.taken)),
            fetch.eq(self.start | (fetch & ~self.have) | (act & ready & ops[Op.WAIT] & none)
                     | (act & self.taken & self.batch.joins) | self.jump | ends),
            jump.eq((act & self.taken & ~self.batch.joins) | (jump & ~self.began)),
            fields.eq((act & ready & follows) | (fields & ~ends)),
            waiting.eq((act & ready & ops[Op.WAIT] & ~none) | (waiting & ~ends)),
            self.busy.eq(self.start | (self.busy & ~(act & ready & ops[Op.HALT]))),
        ]
        self._words(m, ops, fetched, fields, next_word)
        self._distance(m)
        return m

    def _words(self, m: Module, ops: dict[Op, Signal], fetched: Value, fields: Value,
               next_word: Signal) -> None:
        """Put a command's words where they belong: ``here`` says which one comes."""
        here, layer = Signal(max(len(LAYER.words), len(BAND.words))), ops[Op.LAYER]
        slots, holds, hold = Signal(), Signal(), Signal()
        given = data.View(layout(COMMAND), self.word)
        m.d.comb += [
            slots.eq(layer | ops[Op.JOIN]), holds.eq(ops[Op.BAND] | ops[Op.JOIN]),
            self.join.eq(ops[Op.JOIN]), self.set.eq(fields & hold & self.have & ~ops[Op.BAND]),
            next_word.eq(fields & self.have & ~hold),
            self.first.eq(next_word & slots & here[1]), self.second.eq(next_word & slots & here[2]),
            self.load.eq(next_word & ops[Op.BAND] & here[2]),
            self.tap.eq(next_word & ops[Op.TAPS] & ~here[0]),
            self.tile_word.eq(next_word & ops[Op.TILES] & ~here[0]),
            self.fill.eq(next_word & ops[Op.FILL]), self.copy.eq(next_word & ops[Op.COPY]),
        ]
        with m.If(fetched):
            # The slots of a join are where a layer has its own.
            m.d.sync += here.eq(Mux(given.op == Op.JOIN, 2, 1))
        with m.Elif(next_word):
            m.d.sync += here.eq(here << 1)
        # A band's position waits; so does the word that sets an exponent.
        m.d.sync += hold.eq((fetched & given.command & (given.op == Op.CLOSE))
                            | (next_word & holds & here[2])
                            | (hold & ~Mux(ops[Op.BAND], self.placed, self.closed)))
        low = 0
        for k, word in enumerate(LAYER.words):
            with m.If(next_word & layer & here[k]):
                m.d.sync += self.layer.as_value()[low:low + word.bits].eq(self.word)
            low += word.bits
        for k, register in enumerate((self.row, self.tile, self.last_tile, self.position)):
            with m.If(next_word & ops[Op.BAND] & here[k]):
                m.d.sync += register.eq(self.word)
        with m.If(next_word):
            m.d.sync += self.place.eq(Mux(here[0], self.word, self.place + 1))

    def _distance(self, m: Module) -> None:
        """Tell the words of a batch's heads."""
        layer = self.layer
        plain, signed = (head_words(self.array, signed_in=sign) for sign in (False, True))
        m.d.comb += self.distance.eq(Mux(layer.signed_in, signed, plain) << layer.log2_groups)
