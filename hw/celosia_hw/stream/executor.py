"""Control words, executed in their order."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout
from celosia_spec.stream.array import CONTROL_BITS, Array
from celosia_spec.stream.controls import BAND, BATCH, COMMAND, LAYER, Op, head_words


class Executor(wiring.Component):
    """Take control words from their ring; hold the layer's and the band's fields; hand words to
    tables and fills, batches to the sequencer.

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
    slots : Out(1)
        Strobe: the layer's exponent slots are there from the next cycle on.
    row, tile, last_tile, position : Out, load : Out(1)
        Of the band. Strobe: ``row`` and ``tile`` are there.
    offer : Out(1), batch : Out(BATCH), taken : In(1), began : In(1)
        See `Sequencer`.
    tap, tile_word : Out(1), place : Out
        Strobes: ``word`` goes to this place of the table.
    room : In(1), fill : Out(1), filling : In(1)
        There is room for a fill's record; strobe: ``word`` is its next one; fills are not done.
    copy : Out(1), copying : In(1)
        Strobe: ``word`` is the section that the flash reader copies; it copies one.
    idle, quiet, placed : In(1)
        No steps are left to be issued; and all is written; the output path has the band's position.
    close, join : Out(1), closed : In(1)
        Strobe: an output gets its exponent, in the cycle behind at the earliest; with ``join``, it
        is that of a reading, and ``layer`` has its slots and its least exponent. Strobe: it has it.
    late : Out(1)
        A band waits for its fill.

    Timing
    ------
    A command takes two cycles, and one for each of its words.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        ring, tables = (array.controls - 1).bit_length(), max(array.taps, array.tiles)
        super().__init__({
            "start": In(1), "busy": Out(1), "have": In(1), "word": In(CONTROL_BITS),
            "take": Out(1), "jump": Out(1), "distance": Out(ring),
            "layer": Out(layout(*LAYER.words)), "slots": Out(1),
            "row": Out((array.bank_rows - 1).bit_length()),
            "tile": Out((array.tiles - 1).bit_length()),
            "last_tile": Out((array.tiles - 1).bit_length()), "position": Out(CONTROL_BITS),
            "load": Out(1),
            "offer": Out(1), "batch": Out(layout(BATCH)), "taken": In(1), "began": In(1),
            "tap": Out(1), "tile_word": Out(1), "place": Out((tables - 1).bit_length()),
            "room": In(1), "fill": Out(1), "filling": In(1), "copy": Out(1), "copying": In(1),
            "idle": In(1), "quiet": In(1),
            "placed": In(1), "close": Out(1), "join": Out(1), "closed": In(1),
            "late": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        held = Signal(CONTROL_BITS, reset_less=True)
        command = data.View(layout(COMMAND), held)
        left, argument = Signal.like(command.argument, name="left"), command.argument
        number = Signal(3, reset_less=True)
        fetch, act, fields, jump, waiting, closing = (Signal(name=name) for name in (
            "fetch", "act", "fields", "jump_on", "waiting", "closing"))
        ops = {op: Signal(name=f"is_{op.name.lower()}") for op in Op}
        m.d.comb += [
            *(is_op.eq(command.command & (command.op == op)) for op, is_op in ops.items()),
            self.batch.eq(held), self.offer.eq(act & ~command.command), left.eq(argument),
        ]
        one, next_word, free, ready = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            one.eq(left == 1),
            free.eq(~ops[Op.BAND] | (number != len(BAND.words) - 1) | self.placed),
            next_word.eq(fields & self.have & free),
            self.take.eq((self.have & (fetch | ~self.busy)) | next_word),
            ready.eq(self._ready(ops, left)),
            self.close.eq((act & ops[Op.CLOSE] & self.quiet) | (next_word & one & self.join)),
            self.join.eq(ops[Op.JOIN]),
            self.late.eq(act & ops[Op.BAND] & self.idle & self.filling),
            self.jump.eq(jump & self.began & ~self.batch.joins),
        ]
        m.d.sync += act.eq((fetch & self.have) | (act & ~ready & ~self.taken))
        with m.If(fetch):
            m.d.sync += [held.eq(self.word), number.eq(0), fetch.eq(~self.have)]
        with m.Elif(next_word | waiting):
            m.d.sync += argument.eq(left - 1)
        with m.If(next_word):
            m.d.sync += number.eq(Mux(number == 7, 7, number + 1))
        with m.If(act & self.taken):
            m.d.sync += [jump.eq(~self.batch.joins), fetch.eq(self.batch.joins)]
        with m.If(jump & self.began):
            m.d.sync += [jump.eq(0), fetch.eq(1)]
        with m.If(act & ready):
            m.d.sync += [
                fields.eq(~command.op[3]), closing.eq(ops[Op.CLOSE]),
                waiting.eq(ops[Op.WAIT] & (left != 0)), fetch.eq(ops[Op.WAIT] & (left == 0)),
            ]
            with m.If(ops[Op.HALT]):
                m.d.sync += self.busy.eq(0)
        with m.If((next_word | waiting) & one):
            m.d.sync += [fields.eq(0), waiting.eq(0), fetch.eq(~self.join), closing.eq(self.join)]
        with m.If(closing & self.closed):
            m.d.sync += [closing.eq(0), fetch.eq(1)]
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), fetch.eq(1)]
        self._distance(m)
        self._fields(m, ops, next_word, number)
        return m

    def _ready(self, ops: dict[Op, Signal], left: Value) -> Value:
        """Return whether a command may be executed."""
        none = left == 0
        quiet = (ops[Op.LAYER] | ops[Op.TAPS] | ops[Op.TILES] | ops[Op.JOIN] | ops[Op.CLOSE]
                 | ops[Op.HALT])
        found: Value = ((quiet & self.quiet) | (ops[Op.FILL] & self.room)
                        | (ops[Op.BAND] & self.idle & ~self.filling)
                        | (ops[Op.WAIT] & (self.idle | none)))
        return found | (ops[Op.COPY] & ~self.copying) if self.array.flash else found

    def _distance(self, m: Module) -> None:
        """Tell the words of a batch's heads."""
        layer = self.layer
        m.d.comb += self.distance.eq(Mux(
            layer.signed_in, head_words(signed_in=True), head_words(signed_in=False))
            << layer.log2_groups)

    def _fields(self, m: Module, ops: dict[Op, Signal], next_word: Signal,
                number: Signal) -> None:
        """Put a command's words where they belong."""
        kept = self.layer.as_value()
        low = 0
        for k, word in enumerate(LAYER.words):
            here = ops[Op.LAYER] & (number == k)
            if k in (1, 2):                 # what a reading has in the same places
                here = here | (self.join & (number == k - 1))
            with m.If(next_word & here):
                m.d.sync += kept[low:low + word.bits].eq(self.word)
            low += word.bits
        for k, register in enumerate((self.row, self.tile, self.last_tile, self.position)):
            with m.If(next_word & ops[Op.BAND] & (number == k)):
                m.d.sync += register.eq(self.word)
        behind = next_word & (number != 0)
        m.d.comb += [
            self.slots.eq(next_word & ((ops[Op.LAYER] & (number == 1))
                                       | (self.join & (number == 0)))),
            self.load.eq(next_word & ops[Op.BAND] & (number == 2)),
            self.tap.eq(behind & ops[Op.TAPS]), self.tile_word.eq(behind & ops[Op.TILES]),
            self.fill.eq(next_word & ops[Op.FILL]), self.copy.eq(next_word & ops[Op.COPY]),
        ]
        with m.If(next_word):
            m.d.sync += self.place.eq(Mux(number == 0, self.word, self.place + 1))
