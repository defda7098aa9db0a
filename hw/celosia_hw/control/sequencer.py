"""The sequencer: runs descriptors one after another, and checks them."""

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.control.exponents import Exponents
from celosia_hw.control.issue import Issue
from celosia_hw.control.program import DESCRIPTORS, Program
from celosia_hw.control.registers import Registers
from celosia_hw.parts.compare import at_least
from celosia_hw.signatures import RUNS, HostMemory, Prepare, Steps, Walks, flipped_members
from celosia_spec.isa import (
    DESCRIPTOR_WORDS,
    ArrayConfig,
    Error,
    Event,
    Opcode,
    Space,
    memory_of,
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
    start : In(1), start_first, start_last : In(8)
        Strobe and range; taken while not busy. Aborting is a reset of this block and its pipeline.
    busy, done, error, saturated : Out, number : Out(8)
        ``done`` is a strobe in the first cycle that is not busy any more, if no error occurred.
        ``number`` is the descriptor that runs, ran last, or raised the error.
    descriptors : Out(DESCRIPTORS)
        Of the descriptor that runs; stable from the ``load`` of ``prepare`` and ``walks`` on.
    prepare : Out(Prepare), steps : Out(Steps), walks : Out(Walks)
    host_program, host_exponents, host_registers : In(HostMemory)

    Timing
    ------
    See :mod:`celosia_spec.isa.timing` for the cycles of the states.
    """

    def __init__(self, array: ArrayConfig) -> None:
        self.array, self.timing = array, Timing.of(array)
        super().__init__({
            **flipped_members(RUNS), "done": Out(1), "number": Out(8),
            "descriptors": Out(DESCRIPTORS),
            "prepare": Out(Prepare(array)), "steps": Out(Steps(array)), "walks": Out(Walks()),
            **{f"host_{name}": In(HostMemory(readable=True))
               for name in ("program", "exponents", "registers")},
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        m.submodules.program = program = Program(array)
        m.submodules.issue = issue = Issue(array)
        m.submodules.exponents = exponents = Exponents(array)
        connect(m, flipped(self.host_program), program.host_program)
        connect(m, flipped(self.host_exponents), program.host_exponents)
        connect(m, issue.steps, flipped(self.steps))
        most = memory_of(Space.PROGRAM).depth(array) // DESCRIPTOR_WORDS
        number, last = (Signal(range(most), name=name) for name in ("at", "until"))
        count = Signal(range(max(DESCRIPTOR_WORDS + 4, self.timing.settle + 1)))
        in_range, at_last = Signal(), Signal()
        walked = Signal()               # a normalising walk of one or two beats is over early
        m.d.comb += [self.number.eq(number), at_last.eq(number == last), program.count.eq(count)]
        self._wire(m, program, issue, exponents)
        with m.If(self.done):
            m.d.sync += self.done.eq(0)
        with m.If(self.walks.done):
            m.d.sync += walked.eq(1)
        with m.FSM(name="state") as fsm:
            with m.State("IDLE"):
                m.d.comb += program.start.eq(self.start)
                with m.If(self.start):
                    m.d.sync += [number.eq(self.start_first), last.eq(self.start_last),
                                 in_range.eq((self.start_first <= self.start_last)
                                             & ~at_least(self.start_last, most)),
                                 self.error.eq(Error.NONE), self.saturated.eq(0), count.eq(0)]
                    m.next = "LOAD"
            self._load(m, program, exponents, count, in_range)
            self._check(m, program)
            self._run(m, program, issue, exponents, count, walked)
            following = self._finish(m, program, exponents, count, at_last, walked)
        with m.If(following):
            m.d.sync += number.eq(number + 1)
        with m.If(self.walks.clipped | exponents.saturates):
            m.d.sync += self.saturated.eq(1)
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        self._registers(m, fsm)
        return m

    def _wire(self, m: Module, program: Program, issue: Issue, exponents: Exponents) -> None:
        """Wires that are there in all states."""
        walks, layer = self.walks, program.descriptors.control
        m.d.comb += [
            self.descriptors.eq(program.descriptors), self.prepare.load.eq(walks.load),
            program.first.eq(self.start_first), program.take.eq(issue.take),
            program.exponent.eq(exponents.output), issue.layer.eq(layer),
            issue.load.eq(walks.load), issue.word.eq(program.word),
            exponents.layer.eq(layer), exponents.word.eq(program.word),
            exponents.check.eq(walks.load), exponents.top.eq(walks.top),
            walks.input_lsb.eq(exponents.input_lsb), walks.shift_base.eq(exponents.shift_base),
            walks.residual_lsb.eq(exponents.residual_lsb), walks.clamping.eq(exponents.clamping),
        ]

    def _fail(self, m: Module, code: Error) -> None:
        m.d.sync += self.error.eq(code)
        m.next = "IDLE"

    def _load(self, m: Module, program: Program, exponents: Exponents, count: Signal,
              in_range: Signal) -> None:
        """LOAD: the descriptor, then the exponents of its input and its residual operand."""
        with m.State("LOAD"):
            m.d.comb += [
                program.fetch.word.eq(1), program.fetch.input.eq(count == DESCRIPTOR_WORDS),
                program.fetch.residual.eq(count == DESCRIPTOR_WORDS + 1),
                program.fetch.batch.eq(count == DESCRIPTOR_WORDS + 2),
                exponents.input.eq(program.fetch.residual),
                exponents.residual.eq(program.fetch.batch),
            ]
            m.d.sync += count.eq(count + 1)
            with m.If(program.fetch.batch):
                m.d.sync += count.eq(0)
                m.next = "CHECK"
            with m.If(~in_range):
                self._fail(m, Error.RANGE)

    def _check(self, m: Module, program: Program) -> None:
        """CHECK and CLEAR: refuse the descriptor, or clear the bank rows that it names."""
        array, layer, prepare = self.array, program.descriptors.control, self.prepare
        slot_bits = array.groups_max.bit_length() - 1
        left = Signal(array.bank_row_bits + 1)          # rows still to clear
        with m.State("CHECK"):
            m.d.comb += [self.walks.load.eq(1), program.fetch.batch.eq(1)]
            m.next = "LENGTH"
            if array.clearing:
                m.d.sync += [left.eq(layer.clear_rows), prepare.clear_row.eq(layer.clear_base)]
                with m.If(layer.clear_rows[:len(left)] != 0):
                    m.next = "CLEAR"
            with m.If(layer.opcode != Opcode.LINEAR):
                self._fail(m, Error.OPCODE)
            with m.Elif((layer.log2_groups > slot_bits) | (layer.log2_out_groups > slot_bits)):
                self._fail(m, Error.GROUPS)
            with m.Elif(layer.line[:array.count_bits] == 0):
                self._fail(m, Error.COUNT)
        if array.clearing:
            with m.State("CLEAR"):
                m.d.comb += [prepare.clear.eq(1), program.fetch.batch.eq(1)]
                m.d.sync += [left.eq(left - 1), prepare.clear_row.eq(prepare.clear_row + 1)]
                with m.If(left == 1):
                    m.next = "LENGTH"

    def _run(self, m: Module, program: Program, issue: Issue, exponents: Exponents,
             count: Signal, walked: Signal) -> None:
        """LENGTH, ISSUE, DRAIN: from the first batch word to the end of the last drain."""
        with m.State("LENGTH"):
            m.d.comb += [program.fetch.batch.eq(1), issue.begin.eq(1), exponents.settle.eq(1)]
            m.next = "ISSUE"
        with m.State("ISSUE"):
            m.d.comb += [program.fetch.batch.eq(1), issue.run.eq(1)]
            with m.If(issue.done):
                m.next = "DRAIN"
            with m.If(self.walks.overrun):
                self._fail(m, Error.PASS)
        with m.State("DRAIN"):
            m.d.sync += [count.eq(0), walked.eq(0)]
            with m.If(self.walks.done):
                m.next = "FLUSH"
            with m.If(self.walks.overrun):
                self._fail(m, Error.PASS)

    def _finish(self, m: Module, program: Program, exponents: Exponents, count: Signal,
                at_last: Signal, walked: Signal) -> Signal:
        """FLUSH, EXPONENT, NORMALISE, SETTLE: from the end of the drain to the next descriptor.
        Return a strobe for it."""
        layer, timed, walks = program.descriptors.control, self.timing, self.walks
        following = Signal()
        with m.State("FLUSH"):
            m.d.sync += count.eq(count + 1)
            ahead = timed.flush + timing.EXPONENT - timing.WALK_AHEAD
            m.d.comb += walks.normalise.eq((count == ahead - 1) & ~layer.direct)
            with m.If(count == timed.flush - 1):
                m.d.sync += count.eq(0)
                m.next = "EXPONENT"
        with m.State("EXPONENT"):
            m.d.sync += count.eq(count + 1)
            m.d.comb += [exponents.candidate.eq(count == 0), exponents.choose.eq(count == 1),
                         exponents.settle.eq(count == 2), program.write.eq(count == 2),
                         program.following.eq(count == 2)]
            with m.If(count == 2):
                m.d.sync += count.eq(0)
                m.next = "NORMALISE"
                with m.If(layer.direct):
                    self._next(m, at_last, following)
        with m.State("NORMALISE"):
            # Meanwhile, load what this layer needs no more.
            with m.If(~at_last):
                m.d.comb += [program.fetch.word.eq(1),
                             program.fetch.again.eq(count == timed.prefetch)]
                with m.If(count != timed.prefetch):
                    m.d.sync += count.eq(count + 1)
            with m.If(walks.done | walked):
                self._next(m, at_last, following)
        with m.State("SETTLE"):
            m.d.sync += count.eq(count + 1)
            with m.If(count == timed.settle - 1):
                m.d.sync += self.done.eq(1)
                m.next = "IDLE"
        return following

    def _next(self, m: Module, at_last: Signal, following: Signal) -> None:
        """Load the next one while the present one's last beats still travel, or settle."""
        m.next = "LOAD"
        m.d.comb += following.eq(~at_last)
        with m.If(at_last):
            m.next = "SETTLE"

    def _registers(self, m: Module, fsm: Any) -> None:
        m.submodules.registers = registers = Registers(self.array)
        connect(m, flipped(self.host_registers), registers.host_registers)
        status, happens, valid = registers.status, registers.happens, self.steps.flags.valid
        m.d.comb += [
            registers.clear.eq(self.start & ~self.busy), status.busy.eq(self.busy),
            status.saturated.eq(self.saturated), status.error.eq(self.error),
            status.descriptor.eq(self.number), happens[Event.CYCLE].eq(self.busy),
            happens[Event.STEP].eq(valid),
            happens[Event.BUBBLE].eq(fsm.ongoing("ISSUE") & ~valid),
            happens[Event.NORMALISE].eq(fsm.ongoing("NORMALISE")),
        ]
