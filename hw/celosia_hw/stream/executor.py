"""Control words, executed in their order."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.fill.engine import Fills
from celosia_hw.flash.reader import Copies
from celosia_hw.lanes.reading import Band, Tables
from celosia_hw.layouts import LAYER_LAYOUT, layout, opcode
from celosia_hw.parts.lookup import lookup
from celosia_hw.stream.exponents import SlotOrders
from celosia_hw.stream.rings import ControlWords
from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.controls import BAND, BATCH, COMMAND, LAYER, Op, head_words
from celosia_spec.isa.words import TILE_WORDS


class Batches(wiring.Signature):
    """Batches, seen from who reads their words.

    offer, batch : there is one.
    taken        : strobe: it was taken over in the cycle before; in it ``offer`` says nothing.
    last_tile    : tiles of the band - 1; with ``taken``.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"offer": Out(1), "batch": Out(layout(BATCH)), "taken": In(1),
                          "last_tile": Out((array.tiles // TILE_WORDS - 1).bit_length())})


class Meeting(wiring.Signature):
    """How several clusters wait for each other, seen from each.

    comes : it waits for the others, and for nothing of its own.   together : a cycle later, all do.
    """

    def __init__(self) -> None:
        super().__init__({"comes": Out(1), "together": In(1)})


class Executor(wiring.Component):
    """Take control words from their ring; hold the layer's and the band's fields; hand words to
    tables, fills and exponents, batches to the sequencer.

    A command waits for what it would disturb: `layer`, `taps`, `tiles`, `join`, `close` and `halt`
    until all is written; `band` until all steps are issued and all fills are done, and its position
    until the output path has that of the band before; `wait` until all steps are issued; `fill`
    until there is room for it; `copy` until the flash reader is free. Of several clusters `band`,
    `wait`, `copy`, `join` and `close` wait until all have come to them.

    Parameters
    ----------
    array : Array

    Members
    -------
    start : In(1), busy : Out(1)
        Strobe, while ``busy`` is 0; it is 0 from `halt` on.
    words : In(ControlWords)
    layer : Out(LAYER_LAYOUT)
    slots : Out(SlotOrders), band : Out(Band), position : Out(16), batches : Out(Batches)
    tables : Out(Tables)
        ``position`` is that of `OutputControl`.
    fills : Out(Fills), copies : Out(Copies)
        Where records and sections go.
    idle, quiet, placed : In(1)
        No steps are left to be issued; and all is written, which may be said a cycle late; the
        output path has the band's position.
    wrong : Out(1)
        Strobe: the word is no command of this array; none is taken any more.
    meeting : Out(Meeting)
        Of several clusters.

    Timing
    ------
    A command or a batch takes two cycles, and one for each of its words or of its heads'; those
    that set an exponent five more.
    """

    def __init__(self, array: Array) -> None:
        self.array = array
        super().__init__({
            "start": In(1), "busy": Out(1), "words": In(ControlWords()),
            "layer": Out(LAYER_LAYOUT), "slots": Out(SlotOrders()), "band": Out(Band(array)),
            "position": Out(CONTROL_BITS), "batches": Out(Batches(array)),
            "tables": Out(Tables(array)), "fills": Out(Fills()), "copies": Out(Copies()),
            "idle": In(1), "quiet": In(1), "placed": In(1), "wrong": Out(1),
            **({"meeting": Out(Meeting())} if array.clusters > 1 else {}),
        })

    def elaborate(self, platform: Any) -> Module:
        m, words, batches = Module(), self.words, self.batches
        held = Signal(CONTROL_BITS, reset_less=True)
        left = data.View(layout(COMMAND), held).argument
        # Words of a command, and those of a batch's heads, which are passed over.
        fetch, act, fields, commands = (Signal(name=name) for name in (
            "fetch", "act", "fields", "commands"))
        fetched, own, next_word, ready, ends = (Signal(name=name) for name in (
            "fetched", "own", "next_word", "ready", "ends"))
        heads, command = Signal(), data.View(layout(COMMAND), held)
        given, op = data.View(layout(COMMAND), words.word), opcode(command)
        room = self.fills.room
        if self.array.flash:
            room = Mux(op.steps, ~self.copies.copying, room)
        m.d.comb += [
            fetched.eq(fetch & words.have),
            batches.batch.eq(held), batches.offer.eq(act & ~command.command),
            # What it waits for, see `Op`.
            ready.eq(self._together(m, act & command.command, op) & Mux(
                op.moves, op.bare | room,
                Mux(op.steps, self.idle & (op.bare | ~self.fills.busy), self.quiet))),
            words.take.eq(fetched | next_word), heads.eq(batches.taken & ~batches.batch.joins),
        ]
        known: Value = Const(0, 1)
        for one in Op:
            known |= (given.op == one) & Const(one != Op.COPY or bool(self.array.flash), 1)
        m.d.sync += self.wrong.eq(fetched & given.command & ~known)
        # Words that are left but for the next one. What counts stands as a summand's bits, so that
        # it goes into the counter's own look-up tables.
        count, less = Signal.like(left), Signal(len(left) + 1)
        m.d.comb += [
            count.eq(Mux(fetch, given.argument, self._head_words())),
            less.eq(left + fields.replicate(len(left))), ends.eq(next_word & ~less[-1]),
        ]
        with m.If(fetched):
            m.d.sync += held.eq(words.word)
        with m.If(fetched | heads | next_word):
            m.d.sync += left.eq(Mux(fields, less[:-1], count))
        waits = op.moves | op.steps
        m.d.sync += [
            act.eq(fetched | (act & ~ready & ~batches.taken)),
            fetch.eq(self.start | (fetch & ~words.have) | (ready & op.bare & waits)
                     | (batches.taken & batches.batch.joins) | ends),
            fields.eq((ready & ~op.bare) | heads | (fields & ~ends)),
            commands.eq((ready & ~op.bare) | (commands & ~ends)),
            self.busy.eq(self.start | (self.busy & ~(ready & op.bare & ~waits))),
        ]
        self._words(m, command, fetched, fields, commands, own, next_word)
        return m

    def _together(self, m: Module, waits: Value, op: data.View) -> Value:
        """Return whether a command ``waits``, and for no other cluster."""
        if self.array.clusters == 1:
            return waits
        alone = ~(op.exponent | op.steps)
        m.d.comb += self.meeting.comes.eq(
            waits & ~alone & (op.moves | Mux(op.steps, self.idle, self.quiet)))
        return waits & (alone | self.meeting.together)

    def _words(self, m: Module, command: data.View, fetched: Value, fields: Value,
               commands: Value, own: Signal, next_word: Signal) -> None:
        """Put a command's ``own`` words where they belong: ``here`` says which one comes."""
        words, slots = self.words, self.slots
        here, op = Signal(max(len(LAYER.words), len(BAND.words))), opcode(command)
        layer, band, hold = Signal(), Signal(), Signal()
        place = self.tables.place
        given = data.View(layout(COMMAND), words.word)
        coming = opcode(given)
        m.d.comb += [
            layer.eq(op.slots & ~op.exponent), band.eq(op.steps & ~op.moves),
            slots.join.eq(op.slots & op.exponent),
            # The output path is empty then, and does not read.
            slots.set.eq(commands & hold & words.there & ~op.steps),
            own.eq(commands & ~hold & words.have),
            # Heads are passed over, whoever reads.
            next_word.eq(own | (fields & ~commands & words.there)),
            slots.first.eq(own & op.slots & here[1]), slots.second.eq(own & op.slots & here[2]),
            self.band.load.eq(own & band & here[2]),
            self.tables.tap.eq(own & op.taps & ~here[0]),
            self.tables.tile.eq(own & op.tiles & ~here[0]),
            self.fills.load.eq(own & op.moves & ~op.steps),
            self.copies.copy.eq(own & op.moves & op.steps),
            *(word.eq(words.word) for word in (
                slots.word, self.tables.word, self.fills.word, self.copies.unit)),
        ]
        with m.If(fetched):
            # The slots of a join are where a layer has its own.
            m.d.sync += here.eq(Mux(coming.slots & coming.exponent, 2, 1))
        with m.Elif(next_word):
            m.d.sync += here.eq(here << 1)
        # A band's position waits; so does the word that sets an exponent.
        m.d.sync += hold.eq((fetched & given.command & coming.exponent & ~coming.slots)
                            | (own & (op.exponent | op.steps) & here[2])
                            | (hold & ~Mux(op.steps, self.placed, slots.closed)))
        low = 0
        for k, word in enumerate(LAYER.words):
            with m.If(own & layer & here[k]):
                m.d.sync += self.layer.as_value()[low:low + word.bits].eq(words.word)
            low += word.bits
        for k, register in ((0, self.band.row), (2, self.batches.last_tile), (3, self.position)):
            with m.If(own & band & here[k]):
                m.d.sync += register.eq(words.word)
        # A band's tile stands in the register that counts the words of tables, for which all steps
        # are waited for.
        loads = Mux(op.steps, here[1], here[0])
        with m.If(own & Mux(op.steps, band & here[1], op.taps | op.tiles)):
            m.d.sync += place.eq(Mux(
                loads, words.word, place + loads.replicate(len(place)) + 1))
        m.d.comb += self.band.tile.eq(place)

    def _head_words(self) -> Value:
        """Return the words of a batch's heads, less one."""
        layer = self.layer
        return lookup(Cat(layer.signed_in, layer.log2_groups), {
            flag | log2_groups << 1:
                (head_words(self.array, signed_in=bool(flag)) << log2_groups) - 1
            for log2_groups in range(self.array.groups_max.bit_length()) for flag in range(2)}, 5)
