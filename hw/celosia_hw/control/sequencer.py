"""The sequencer: reads descriptors, checks them, issues steps and walks, keeps the counters."""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from celosia_hw.layouts import descriptor_layout, step_layout
from celosia_hw.parts.block_exponent import BlockExponent
from celosia_hw.parts.compare import at_least
from celosia_spec.isa import (
    BATCH_STEP_BITS,
    BATCH_WAIT_BITS,
    COUNTER_BITS,
    DESCRIPTOR_WORDS,
    EXPONENT_MAX,
    EXPONENT_SLOTS,
    PHASE_BITS,
    ArrayConfig,
    Error,
    Event,
    Flag,
    Opcode,
    Register,
    Word,
    timing,
)
from celosia_spec.isa.timing import Timing


class Sequencer(wiring.Component):
    """Run descriptors ``start_first`` ... ``start_last``, one after another.

    States: LOAD, CHECK, CLEAR, LENGTH, ISSUE, DRAIN, FLUSH, EXPONENT, NORMALISE; SETTLE behind the
    last one. Everything in a descriptor's run is timed when compiling: no block can stall another,
    so the number of cycles is a sum that :mod:`celosia_spec.isa.cycles` predicts exactly.

    Members
    -------
    start, start_first, start_last : In
        ``start`` is taken while not busy. Aborting is a reset of this block and its pipeline.
    busy, done, error, error_descriptor, saturated, layer : Out
        ``done`` is a strobe in the first cycle that is not busy any more, if no error occurred.
    descriptor : Out(descriptor_layout)
        Words of the descriptor that runs; stable from ``load`` on.
    load : Out, strobe before a layer's first step.
    step, slot, weight_row : Out
        One step a cycle, for :class:`Decoder` and the weight memory.
    clear_valid, clear_row : Out, for :class:`BankWriter`.
    normalise : Out; overrun, walk_done, top, clipped : In, of :class:`OutputStage`.
    input_lsb, residual_lsb, shift_base : Out, for :class:`OutputStage`.
    program_write, program_address, program_data, program_read : host access to program memory.
    register, register_data : host access to the registers, combinational.
    event_write, event_select : In, what ``Register.EVENTS`` counts from the next start on.

    Timing
    ------
    See :mod:`celosia_spec.isa.timing` for the cycles of the states.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array = array
        self.flush, self.tail = Timing.of(array).flush, Timing.of(array).settle
        self.prefetch = Timing.of(array).prefetch
        rows = (array.weight_rows - 1).bit_length()
        super().__init__({
            "start": In(1), "start_first": In(8), "start_last": In(8),
            "busy": Out(1), "done": Out(1), "error": Out(8), "error_descriptor": Out(8),
            "saturated": Out(1), "layer": Out(8),
            "descriptor": Out(descriptor_layout), "load": Out(1),
            "step": Out(step_layout), "slot": Out(max(1, array.groups_max.bit_length() - 1)),
            "weight_row": Out(rows),
            "clear_valid": Out(1), "clear_row": Out(array.bank_row_bits),
            "overrun": In(1), "normalise": Out(1), "walk_done": In(1), "top": In(signed(8)),
            "clipped": In(1),
            "input_lsb": Out(signed(8)), "residual_lsb": Out(signed(8)),
            "shift_base": Out(signed(9)),
            "program_write": In(1), "program_address": In(range(array.program_words)),
            "program_data": In(16), "program_read": Out(16),
            "register": In(2), "register_data": Out(32),
            "event_write": In(1), "event_select": In(range(len(Event))),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        m.submodules.program = program = Memory(shape=16, depth=array.program_words, init=[],
                                                attrs={"ram_style": "block"})
        self._write, self._read = program.write_port(), program.read_port()
        words = Signal(descriptor_layout)
        m.d.comb += [self.descriptor.eq(words), self.program_read.eq(self._read.data),
                     self._read.addr.eq(self.program_address),
                     self._write.en.eq(self.program_write), self._write.data.eq(self.program_data),
                     self._write.addr.eq(self.program_address)]
        count = Signal(range(max(DESCRIPTOR_WORDS + 4, self.tail + 1)))
        self._last_step, self._pass_wait = Signal(BATCH_STEP_BITS), Signal(BATCH_WAIT_BITS)
        self._wait = Signal(BATCH_WAIT_BITS)
        self._batch_address = Signal(range(array.program_words))
        self._output = Signal(signed(8))        # block exponent of the output, once it is known
        most = (array.program_words - EXPONENT_SLOTS) // DESCRIPTOR_WORDS
        self._layer, self._last = (Signal(range(most), name=n) for n in ("layer", "last"))
        in_range = Signal()
        self._base = Signal(range(array.program_words))      # of the descriptor being loaded
        with m.FSM(name="state") as fsm:
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += [self._layer.eq(self.start_first), self._last.eq(self.start_last),
                                 in_range.eq((self.start_first <= self.start_last)
                                             & ~at_least(self.start_last, most)),
                                 self._base.eq(self.start_first * DESCRIPTOR_WORDS),
                                 self.error.eq(Error.NONE), self.saturated.eq(0), count.eq(0)]
                    m.next = "LOAD"
            self._load_states(m, words, count, in_range)
            self._issue_state(m, words)
            self._finish_states(m, words, count)
        with m.If(self.load):
            m.d.sync += self._issue_reset
        with m.If(self.clipped):
            m.d.sync += self.saturated.eq(1)
        m.d.comb += [self.busy.eq(~fsm.ongoing("IDLE")), self.layer.eq(self._layer),
                     self.error_descriptor.eq(self._layer)]
        self._counters(m, fsm)
        return m

    def _fail(self, m: Module, code: Error) -> None:
        m.d.sync += self.error.eq(code)
        m.next = "IDLE"

    def _load_states(self, m: Module, words: data.View, count: Signal, in_range: Signal) -> None:
        """LOAD, CHECK, CLEAR, LENGTH: from the program memory to the first step."""
        array = self.array
        exponent_base = array.program_words - EXPONENT_SLOTS
        mantissa_shift = array.activation_bits - 2
        with m.State("LOAD"):
            self._load_word(m, words, count)
            for k, slot in enumerate((words[Word.INPUT_SLOT], words[Word.RESIDUAL_SLOT])):
                with m.If(count == DESCRIPTOR_WORDS + k):
                    m.d.comb += self._read.addr.eq(exponent_base + slot[:5])
            with m.If(count == DESCRIPTOR_WORDS + 1):
                m.d.sync += self.input_lsb.eq(self._read.data - mantissa_shift)
            with m.If(count == DESCRIPTOR_WORDS + 2):
                m.d.comb += self._read.addr.eq(self._batch_address)
                m.d.sync += self.residual_lsb.eq(self._read.data - mantissa_shift)
                m.next = "CHECK"
                m.d.sync += count.eq(0)
            with m.Else():
                m.d.sync += count.eq(count + 1)
            with m.If(~in_range):
                self._fail(m, Error.RANGE)
        cleared = Signal(array.bank_row_bits + 1)          # rows still to clear
        with m.State("CHECK"):
            slot_bits = array.groups_max.bit_length() - 1
            groups = words[Word.GROUPS]
            m.d.comb += self.load.eq(1)
            m.d.comb += self._read.addr.eq(self._batch_address)
            m.d.sync += [
                self._output.eq(Mux(self._flag(words, Flag.KEEP),
                                    self.input_lsb + mantissa_shift,
                                    words[Word.EXPONENT][:8].as_signed())),
            ]
            m.next = "LENGTH"
            if array.clearing:
                with m.If(words[Word.CLEAR_ROWS][:array.bank_row_bits + 1] != 0):
                    m.next = "CLEAR"
                m.d.sync += [cleared.eq(words[Word.CLEAR_ROWS]),
                             self.clear_row.eq(words[Word.CLEAR_BASE])]
            with m.If(words[Word.FLAGS][:4] != Opcode.LINEAR):
                self._fail(m, Error.OPCODE)
            with m.Elif((groups[:4] > slot_bits) | (groups[4:8] > slot_bits)):
                self._fail(m, Error.GROUPS)
            with m.Elif(words[Word.LINE][:array.count_bits] == 0):
                self._fail(m, Error.COUNT)
        if array.clearing:
            with m.State("CLEAR"):
                m.d.comb += [self.clear_valid.eq(1), self._read.addr.eq(self._batch_address)]
                m.d.sync += [cleared.eq(cleared - 1), self.clear_row.eq(self.clear_row + 1)]
                with m.If(cleared == 1):
                    m.next = "LENGTH"
        with m.State("LENGTH"):
            m.d.comb += self._read.addr.eq(self._batch_address)
            self._next_batch(m)
            m.d.sync += self.shift_base.eq(self._output - self.input_lsb)
            m.next = "ISSUE"

    def _load_word(self, m: Module, words: data.View, count: Signal) -> None:
        """Ask for descriptor word ``count``, store the one before it."""
        m.d.comb += self._read.addr.eq(self._base + count)
        for k in range(DESCRIPTOR_WORDS):
            with m.If(count == k + 1):
                m.d.sync += words[k].eq(self._read.data)
        with m.If(count == Word.LENGTH_BASE + 1):
            m.d.sync += self._batch_address.eq(self._read.data)

    def _flag(self, words: data.View, flag: Flag) -> Value:
        return words[Word.FLAGS][int(flag).bit_length() - 1]

    def _next_batch(self, m: Module) -> None:
        """Take over the batch word that program memory has ready, ask for the one after it."""
        steps, wait = self._read.data[:BATCH_STEP_BITS], self._read.data[BATCH_STEP_BITS:]
        m.d.sync += [self._last_step.eq(steps), self._pass_wait.eq(wait), self._wait.eq(wait),
                     self._batch_address.eq(self._batch_address + 1)]

    def _issue_state(self, m: Module, words: data.View) -> None:
        """ISSUE: batches of tiles of phases of steps, without a bubble between passes; a pass that
        is too short waits before its first step, so that sums are never ready too early."""
        array = self.array
        slot_bits = 0 if array.replicate else array.groups_max.bit_length() - 1
        word = Signal(len(self.weight_row) + slot_bits)
        batch_word = Signal.like(word)
        index = Signal(BATCH_STEP_BITS)
        tile, batch = (Signal(array.count_bits, name=n) for n in ("tile", "batch"))
        phase = Signal(PHASE_BITS)
        m.d.comb += [self.weight_row.eq(word[slot_bits:]), self.slot.eq(word[:slot_bits])]
        self._issue_reset = [index.eq(0), phase.eq(0), tile.eq(0), batch.eq(0),
                             word.eq(words[Word.WEIGHT_BASE] << slot_bits)]
        with m.State("ISSUE"):
            valid, end, batch_end, last_tile = Signal(), Signal(), Signal(), Signal()
            first = (index == 0) & (phase == 0)
            m.d.comb += [
                self._read.addr.eq(self._batch_address),
                valid.eq(self._wait == 0), end.eq(valid & (index == self._last_step)),
                last_tile.eq(tile == words[Word.LAST_TILE][:len(tile)]),
                batch_end.eq((phase == words[Word.LAST_PHASE][:PHASE_BITS]) & last_tile),
                self.step.valid.eq(valid), self.step.first.eq(index == 0), self.step.last.eq(end),
                self.step.tile_first.eq(first), self.step.tile_last.eq(last_tile),
            ]
            stride = 1 if array.replicate else 1 << words[Word.GROUPS][:3]
            with m.If(valid):
                m.d.sync += [index.eq(index + 1), word.eq(word + stride)]
            with m.Else():
                m.d.sync += self._wait.eq(self._wait - 1)
            with m.If(first & (tile == 0)):
                m.d.sync += batch_word.eq(word)
            with m.If(end):
                m.d.sync += [index.eq(0), self._wait.eq(self._pass_wait), phase.eq(phase + 1)]
                with m.If(~batch_end):
                    m.d.sync += word.eq(Mux(first & (tile == 0), word, batch_word))
                with m.If(phase == words[Word.LAST_PHASE][:PHASE_BITS]):
                    m.d.sync += [phase.eq(0), tile.eq(tile + 1)]
                with m.If(batch_end):
                    m.d.sync += [tile.eq(0), batch.eq(batch + 1)]
                    self._next_batch(m)
                    with m.If(batch == words[Word.LAST_BATCH][:len(batch)]):
                        m.next = "DRAIN"
            with m.If(self.overrun):
                self._fail(m, Error.PASS)

    def _finish_states(self, m: Module, words: data.View, count: Signal) -> None:
        """DRAIN, FLUSH, EXPONENT, NORMALISE, SETTLE: from the last step to the next descriptor."""
        array = self.array
        smallest = words[Word.EXPONENT][8:].as_signed()
        candidate = Signal(signed(10))
        fixed = self._flag(words, Flag.STATIC) | self._flag(words, Flag.KEEP)
        walked = Signal()
        with m.State("DRAIN"):
            with m.If(self.walk_done):
                m.next = "FLUSH"
                m.d.sync += [count.eq(0), walked.eq(0)]
            with m.If(self.overrun):
                self._fail(m, Error.PASS)
        with m.State("FLUSH"):
            m.d.sync += count.eq(count + 1)
            with m.If(self.walk_done):                      # a walk of one or two beats
                m.d.sync += walked.eq(1)
            ahead = self.flush + timing.EXPONENT - timing.WALK_AHEAD
            with m.If((count == ahead - 1) & ~self._flag(words, Flag.DIRECT)):
                m.d.comb += self.normalise.eq(1)
            with m.If(count == self.flush - 1):
                m.d.sync += count.eq(0)
                m.next = "EXPONENT"
        with m.State("EXPONENT"):
            m.d.sync += count.eq(count + 1)
            with m.If(self.walk_done):
                m.d.sync += walked.eq(1)
            with m.If(count == 0):
                m.d.sync += candidate.eq(Mux(self.top == BlockExponent.NOTHING, smallest,
                                             self.top + self.input_lsb))
            with m.If((count == 1) & ~fixed):
                m.d.sync += self._output.eq(Mux(
                    candidate < smallest, smallest,
                    Mux(candidate > EXPONENT_MAX, EXPONENT_MAX, candidate)))
                with m.If(candidate > EXPONENT_MAX):
                    m.d.sync += self.saturated.eq(1)
            with m.If(count == 2):
                m.d.sync += [self.shift_base.eq(self._output - self.input_lsb), count.eq(0)]
                m.d.comb += [
                    self._write.en.eq(1), self._write.data.eq(self._output),
                    self._write.addr.eq(array.program_words - EXPONENT_SLOTS
                                        + words[Word.INPUT_SLOT][8:13]),
                ]
                m.d.sync += self._base.eq(self._base + DESCRIPTOR_WORDS)
                with m.If(self._flag(words, Flag.DIRECT)):
                    self._next_descriptor(m)
                with m.Else():
                    m.next = "NORMALISE"
        with m.State("NORMALISE"):
            # Meanwhile, load what this layer needs no more.
            with m.If(self._layer != self._last):
                self._load_word(m, words, count)
                with m.If(count == self.prefetch):
                    m.d.comb += self._read.addr.eq(self._base + (self.prefetch - 1))
                with m.Else():
                    m.d.sync += count.eq(count + 1)
            with m.If(self.walk_done | walked):
                self._next_descriptor(m)
        with m.State("SETTLE"):
            m.d.sync += count.eq(count + 1)
            with m.If(count == self.tail - 1):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"

    def _next_descriptor(self, m: Module) -> None:
        """Load the next one while the present one's last beats still travel, or settle."""
        with m.If(self._layer == self._last):
            m.next = "SETTLE"
        with m.Else():
            m.d.sync += self._layer.eq(self._layer + 1)
            m.next = "LOAD"

    def _counters(self, m: Module, fsm: Any) -> None:
        """Registers that the host reads."""
        event = Signal(range(len(Event)))
        with m.If(self.event_write):
            m.d.sync += event.eq(self.event_select)
        happens = Signal(len(Event))
        m.d.comb += [
            happens[Event.CYCLE].eq(self.busy),
            happens[Event.STEP].eq(self.step.valid),
            happens[Event.BUBBLE].eq(fsm.ongoing("ISSUE") & ~self.step.valid),
            happens[Event.NORMALISE].eq(fsm.ongoing("NORMALISE")),
        ]
        events = Signal(COUNTER_BITS)
        with m.If(self.done):
            m.d.sync += self.done.eq(0)
        with m.If(self.start & ~self.busy):
            m.d.sync += events.eq(0)
        with m.Else():
            m.d.sync += events.eq(events + happens.bit_select(event, 1))
        with m.Switch(self.register):
            with m.Case(Register.ARRAY_HASH):
                m.d.comb += self.register_data.eq(self.array.hash)
            with m.Case(Register.STATUS):
                m.d.comb += self.register_data.eq(Cat(
                    self.busy, self.saturated, Const(0, 6), self.error, self.error_descriptor))
            with m.Default():
                m.d.comb += self.register_data.eq(events)
