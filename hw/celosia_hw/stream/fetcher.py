"""The stream from main memory: chunks of entries, split into control words and weights."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import layout, opcode
from celosia_hw.memory.main_memory import Access
from celosia_hw.parts.lookup import lookup
from celosia_hw.stream.rings import RingWrites
from celosia_spec.isa.array import CONTROL_BITS, ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.controls import BATCH, CHUNK, COMMAND, COPIES, LAYER, Op, head_words


class Run(wiring.Signature):
    """What begins a run, seen from who starts it.

    start, list : strobe: run the stream whose list of chunks begins in that word of main memory,
                  which is stable until the cycle behind.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"start": Out(1), "list": Out(array.main_bits)})


class Elements(wiring.Signature):
    """Four elements that are kept while nothing runs, seen from who uses them.

    split        : strobe: they are those of the word that was read.
    push, pushed : strobe: each becomes the one behind it, and the last one ``pushed``.
    word         : the first of them.
    """

    def __init__(self) -> None:
        super().__init__({"split": Out(1), "push": Out(1), "pushed": Out(CONTROL_BITS),
                          "word": In(CONTROL_BITS)})


class Fetcher(wiring.Component):
    """Read chunk after chunk of the list; hand control words on one by one, entries of weights as
    they are.

    It counts the words behind commands and the heads of batches; so it knows where weights begin
    and end. Row groups, signs, and whether a tensor is added, are those of the last `layer` that
    passed it.

    Parameters
    ----------
    array : Array
    cluster : int
        Whose list it reads.

    Members
    -------
    run : In(Run)
        While ``busy`` is 0. It begins with the chunk that word ``list`` names, or as many behind it
        as clusters come before.
    memory : Out(Access), data : In(64)
        The port of main memory, see `MainMemory`.
    controls, entries : Out(RingWrites)
        Control words, and entries of weights, which are ``data``. Up to eight and five are written
        behind a cycle with ``room``.
    elements : In(Elements)
        While ``busy`` is 0, for the host: those of ``data``.
    copied : In(1)
        Strobe: a section of flash is in main memory; chunks wait for them, see `CHUNK`.
    busy : Out(1)
        The list has not ended.

    Timing
    ------
    An entry for each grant: one of weights a cycle, one of control words in four. Control words
    come two to five cycles behind their grant, entries one. Behind a batch's heads one or two
    grants are lost, between two chunks seven.
    """

    def __init__(self, array: Array, cluster: int = 0) -> None:
        self.array, self.cluster = array, cluster
        super().__init__({
            "run": In(Run(array)), "memory": Out(Access(array.main_words, 0)),
            "data": In(ENTRY_BITS), "controls": Out(RingWrites(CONTROL_BITS)),
            "entries": Out(RingWrites(ENTRY_BITS)), "copied": In(1), "elements": In(Elements()),
            "busy": Out(1),
        })

    def elaborate(self, platform: Any) -> Module:
        m, run, kept = Module(), self.run, self.elements
        controls, entries = self.controls, self.entries
        # What is asked for: the next chunk, or an entry; its turn is over.
        swap, listing, loading, running = (Signal(name=name) for name in (
            "swap", "listing", "loading", "running"))
        weights, ended, final = Signal(), Signal(), Signal(reset_less=True)
        here, other = (Signal.like(self.memory.address, name=name, reset_less=True)
                       for name in ("here", "other"))
        # Entries of the chunk, negative.
        left = Signal.like(here, name="left", reset_less=True)
        # What came: an entry of weights; one of control words, if it does not become the first one.
        request, grant, entry, arrived, waits, awake = (Signal(name=name) for name in (
            "request", "grant", "entry", "arrived", "waits", "awake"))
        # The words of an entry behind its first one, and how many of them are left.
        rest, others = Signal(ENTRY_BITS - CONTROL_BITS, reset_less=True), Signal(2)
        parses, switch = self._parse(m, weights, grant, running, arrived, arrived | others.any())
        ends, room, takes, tight = Signal(), Signal(), Signal(), Signal()
        onward = Signal(len(left) + 1)
        m.d.comb += [
            self.memory.request.eq(request), self.memory.address.eq(here),
            grant.eq(self.memory.grant), ends.eq(grant & running & onward[-1]),
            # Loads stand as summands' bits, so that they go into the counters' own look-up tables.
            onward.eq(left + loading.replicate(len(left)) + 1),
            entries.write.eq(entry | (arrived & switch)), entries.word.eq(self.data),
            # Behind control words the next entry comes when all of them have been parsed. It may be
            # one of weights: there is always room for one, and for a second one if that is known.
            room.eq(controls.room & Mux(weights | switch, entries.room & ~parses,
                                             ~grant & ~arrived & ~others.all() & ~tight)),
            takes.eq(arrived | kept.split), kept.word.eq(controls.word),
            self.busy.eq(swap | listing | loading | waits | running),
        ]
        m.d.sync += [
            tight.eq(~entries.room & (tight | (switch & (arrived | grant)))),
            awake.eq(self.busy), entry.eq(grant & running & (weights | switch)),
            arrived.eq(grant & running & ~(weights | switch)),
            others.eq(Mux(arrived, ENTRY_WORDS - 1, others - others.any())),
            request.eq(swap | (request & ~grant) | (running & room & ~ended & ~ends)),
        ]
        with m.If(awake | kept.split | kept.push):
            m.d.sync += Cat(controls.word, rest).eq(Mux(takes, self.data, Cat(rest, kept.pushed)))
        with m.If(switch):
            m.d.sync += others.eq(0)
        with m.If(ends):
            m.d.sync += ended.eq(1)
        chunk = data.View(layout(CHUNK), self.data[:CHUNK.bits])
        m.d.sync += [swap.eq(0), loading.eq(listing & grant)]
        with m.If(run.start):
            m.d.sync += [other.eq(run.list + self.cluster if self.cluster else run.list),
                         swap.eq(1)]
        with m.If(swap):
            m.d.sync += listing.eq(1)
        goes = swap | loading
        with m.If(goes | grant):
            m.d.sync += here.eq(Mux(goes, Mux(swap, other, chunk.first),
                                    here + goes.replicate(len(here)) + 1))
        with m.If(listing & grant):
            m.d.sync += listing.eq(0)
        with m.If(loading):
            m.d.sync += [other.eq(here), final.eq(chunk.final), ended.eq(0),
                         running.eq(1)]
            if self.array.clusters > 1:
                m.d.sync += other.eq(chunk.next)
            if self.array.flash:
                m.d.sync += [running.eq(~chunk.copied), waits.eq(chunk.copied)]
        with m.If(running & ended & ~entry & ~arrived & (others == 0) & ~controls.write):
            m.d.sync += [running.eq(0), swap.eq(~final)]
        with m.If(loading | (grant & running)):
            m.d.sync += left.eq(Mux(loading, ~chunk.entries, onward[:-1]))
        if self.array.flash:
            self._wait(m, waits, running)
        return m

    def _wait(self, m: Module, waits: Signal, running: Signal) -> None:
        """Let a chunk wait for its section."""
        count, used, more, less = Signal(range(COPIES + 1)), Signal(), Signal(), Signal()
        m.d.comb += [used.eq(waits & count.any()), more.eq(self.copied & ~used),
                     less.eq(used & ~self.copied)]
        with m.If(used):
            m.d.sync += [running.eq(1), waits.eq(0)]
        with m.If(self.run.start):
            m.d.sync += count.eq(0)
        with m.Else():
            m.d.sync += count.eq((Cat(more, count) + Cat(more, less.replicate(len(count))))[1:])

    def _parse(self, m: Module, weights: Signal, grant: Value, running: Value, arrived: Value,
               there: Value) -> tuple[Signal, Signal]:
        """Follow the control words; return whether the word is a command or a batch, and whether it
        is the last one before weights.

        arrived : an entry is there, of weights if the word is the last one before them.
        there   : the next word will be in ``word`` if this one is not the last one.
        """
        # Words that are left, of heads but for the last one, negative; if there are none, one that
        # comes is a command or a batch, or closes the heads.
        controls, left = self.controls, Signal(COMMAND["argument"].bits + 1)
        heads, layer = Signal(), Signal()
        groups, signed_in, dense, residual, added = (
            Signal(2), Signal(), Signal(), Signal(), Signal())
        command = data.View(layout(COMMAND), controls.word)
        batch = data.View(layout(BATCH), controls.word)
        fields = data.View(layout(LAYER.words[0]), controls.word[:LAYER.words[0].bits])
        parses, closes, switch = (Signal(name=name) for name in ("parses", "closes", "switch"))
        none, begins, after = Signal(), Signal(), Signal.like(left, name="after")
        count = lookup(Cat(signed_in, groups), {
            flag | log2_groups << 1:
                (head_words(self.array, signed_in=bool(flag)) << log2_groups) - 2
            for log2_groups in range(self.array.groups_max.bit_length()) for flag in range(2)}, 5)
        m.d.comb += [
            switch.eq((parses & ~command.command & batch.joins) | closes),
            begins.eq(Mux(parses, ~command.command & ~batch.joins, heads & ~closes)),
            after.eq(Mux(
                parses, ~Cat(Mux(command.command, command.argument, count),
                             Mux(command.command, opcode(command).bare, batch.joins)),
                left + parses.replicate(len(left)) + 1)),
            none.eq(~Mux(controls.write, after[-1], left[-1])),
        ]
        with m.If(controls.write):
            m.d.sync += [left.eq(after), layer.eq(0)]
        with m.If(parses):
            m.d.sync += [dense.eq(batch.dense),
                         layer.eq(command.command & (command.op == Op.LAYER))]
        with m.If(layer & controls.write):
            m.d.sync += [groups.eq(fields.log2_groups), signed_in.eq(fields.signed_in),
                         residual.eq(fields.residual & bool(self.array.residual))]
        comes = there & ~switch
        m.d.sync += [heads.eq(begins), controls.write.eq(comes),
                     parses.eq(comes & none & ~begins), closes.eq(comes & none & begins)]
        # What is granted counts; what came with a batch's last word, asked for before it, is its
        # first entry already.
        counts = (running & (weights | switch), arrived & switch)
        # The first entry of a batch, but of its parts behind the first one, reads what is added.
        with m.If(parses):
            m.d.sync += added.eq(residual & ~command.command & ~batch.joins)
        with m.Elif((grant & counts[0]) | counts[1]):
            m.d.sync += added.eq(0)
        self._count(m, weights, grant, [count & ~added for count in counts], switch, parses,
                    batch.steps, groups, dense)
        return parses, switch

    def _count(self, m: Module, weights: Signal, grant: Value, counts: Sequence[Value],
               switch: Value, load: Value, steps: Value, groups: Value, dense: Value) -> None:
        """Count the entries of a batch: as many steps as an entry has for each.

        counts : what is granted is an entry of weights; there is one.
        """
        rest, after = Signal(len(steps)), Signal(len(steps) + 1)
        owed, taken = Signal(), Signal()
        # Steps that are left, negative. Of a part, the first entry may come with the word that says
        # how many there are.
        size = lookup(Cat(dense, groups), {
            flag | log2_groups << 1: ENTRY_WORDS << flag >> log2_groups
            for flag in range(2) for log2_groups in range(self.array.groups_max.bit_length())}, 4)
        granted, there = counts
        # The grant comes late.
        m.d.comb += [taken.eq((grant & (granted & ~load)) | ((there & ~load) | owed)),
                     after.eq(rest + Cat(size, load.replicate(len(rest) - len(size))))]
        with m.If(load | taken):
            m.d.sync += rest.eq(Mux(load, ~steps, after[:-1]))
        m.d.sync += [owed.eq(((grant & granted) | there) & load),
                     weights.eq((weights | switch) & ~(taken & after[-1]))]
