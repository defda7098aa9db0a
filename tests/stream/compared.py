"""Networks on the golden model, the machine of words, the gateware and the clock model: all bits,
flags and cycles are the same, and nothing in main memory overlaps."""

from dataclasses import dataclass
from unittest import mock

import numpy as np

from celosia.bands.host import output, prepare, stored, stored_addresses
from celosia.bands.plan import Layer
from celosia.bands.program import ReadingOrder, StreamProgram, stream_program
from celosia.bands.report import report
from celosia.bands.steps import Steps
from celosia_sim import golden, stream_machine, stream_memories
from celosia_sim.clock.cycles import cycles
from celosia_sim.golden.steps import GoldenSteps
from celosia_spec.isa.array import Array
from celosia_spec.steps import Ring
from stream import rtl
from stream.sharing import check_memory, check_slots, check_words

MOST = 400_000
"""Cycles of a run at most."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A run on the machine of words.

    main, exponents : what was in its memories before.   order : what it read.   state : behind it.
    """

    program: StreamProgram
    main: np.ndarray
    exponents: np.ndarray
    order: ReadingOrder
    state: stream_memories.State


def noisy(array: Array) -> stream_memories.State:
    """Return the machine of words, with noise in main memory: no element whose significand is 0, as
    zeros have the smallest exponent."""
    return stream_memories.State(array, 1 | np.random.default_rng(3).integers(
        0, 1 << 16, array.main_words * 4))


def compare(graph, array, x) -> Run:
    """Run one input on the machine of words; compare every stored tensor when its layer is closed,
    what is read together when its reader's is, the output, and the flag."""
    program = stream_program(graph, array)
    check_memory(program)
    check_slots(program)
    check_words(program)
    state = noisy(array)
    state.exponents[program.slots[graph.input]] = prepare(program, x, state.main)
    before = state.main.copy(), state.exponents.copy()
    wanted = golden.run(graph, x[None])
    left = list(graph.nodes)
    set_exponent = stream_machine.set_exponent

    def seen(name, exponent):
        return stored(program, name, state.main[stored_addresses(program, name)], exponent)

    def closed(state, found, fields):
        set_exponent(state, found, fields)
        if fields["slot"] != program.slots[left[0].output]:         # of what a layer will read
            return
        node = left.pop(0)
        if node.rounds:
            read = wanted.readings[node.name]
            exponent = state.exponents[program.reads[node.name]]
            assert exponent == read.exponents[0], node.name
            maps = [seen(name, exponent) for name in node.inputs]
            assert np.array_equal(np.concatenate(maps), read.mantissas[0]), node.name
        if (name := node.output) != graph.output:
            exponent = state.exponents[program.slots[name]]
            assert exponent == wanted.exponents[name][0], name
            assert np.array_equal(seen(name, exponent), wanted.mantissas[name][0]), name

    with mock.patch.object(stream_machine, "set_exponent", closed):
        stream_machine.run(state, program.entries, program.order.lists)
    assert not left
    mantissas, exponent, clipped = output(program, state.main, state.exponents)
    assert exponent == wanted.exponents[graph.output][0]
    assert np.array_equal(mantissas, wanted.mantissas[graph.output][0])
    clipped |= state.saturated | bool(golden.input_saturated(graph, x[None])[0])
    assert clipped == wanted.saturated[0] or wanted.unread[0], clipped
    return Run(program=program, main=before[0], exponents=before[1], order=program.orders[0],
               state=state)


def same(block, array: Array, run: Run) -> None:
    """Compare a run with the gateware, and its cycles with the clock model's."""
    found = rtl.run(block, array, run.main, run.exponents, run.order.list_at, MOST)
    wrong = np.flatnonzero(found.main != run.state.main)
    assert not wrong.size, [(int(at), hex(found.main[at]), hex(run.state.main[at]))
                            for at in wrong[:9]]
    exact = cycles(array, run.program.entries.tolist(), run.order.list_at)
    assert found.cycles == exact.cycles
    ends = (*exact.closed, exact.cycles)
    assert [sum(own.values()) for own in exact.spent] == (
        array.clusters * np.diff(ends, prepend=0)).tolist()
    for layer, told in zip(run.program.layers, report(run.program, exact), strict=True):
        spent = told.lane_cycles["useful"] + told.lane_cycles["idle"]
        assert spent == array.lanes * _steps(layer), layer.node.name
    assert np.array_equal(found.exponents, run.state.exponents)
    assert found.saturated == run.state.saturated


def _steps(layer: Layer) -> int:
    """Return the steps of all passes of a layer, and those that read what is added."""
    return sum((int(part.steps.sum()) * layer.phases + len(part.steps) * (part.added is not None))
               * len(layer.share(band, cluster)) for part in layer.parts for band in part.bands
               for cluster in range(layer.splits))


def compare_steps(graph, found: Steps, stream, array=None, then=lambda run: None) -> None:
    """Take all steps of a stream, on the golden model and, with an array, on the machine of words,
    from noise in main memory on; compare their results, and flags where all lines of rings are
    this stream's.

    then : called with each run.
    """
    model, program = GoldenSteps(found.graph), None
    if array is not None:
        program = stream_program(graph, array, found)
        check_memory(program)
        check_slots(program)
        state = noisy(program.array)
        filled = max([found.first, *(tensor.turns for tensor in found.graph.tensors.values()
                                     if isinstance(tensor, Ring))])
    whole = 0
    for step, (x, right) in enumerate(wanted(graph, stream, found.hop)):
        made = model.run(x)
        if right is not None:
            whole += 1
            assert np.array_equal(made.mantissas, right[0][:, -made.mantissas.shape[1]:])
            assert made.exponent == right[1]
        assert (right is not None) == (step + 1 >= found.first)
        if program is None:
            continue
        order = program.orders[step % found.period]
        state.exponents[program.slots[graph.input]] = prepare(program, x, state.main, step)
        before, state.saturated = (state.main.copy(), state.exponents.copy()), False
        stream_machine.run(state, program.entries, order.lists)
        then(Run(program=program, main=before[0], exponents=before[1], order=order, state=state))
        if right is None:
            continue
        mantissas, exponent, clipped = output(program, state.main, state.exponents)
        assert np.array_equal(mantissas, made.mantissas)
        assert exponent == right[1]
        clipped |= state.saturated
        assert clipped or not made.saturated or made.unread
        assert made.saturated or not clipped or step < filled
    assert whole


def wanted(graph, stream, hop):
    """Yield each step's lines of a stream, float (C, lines, W), and what the window that ends with
    them gives: mantissas and exponent; None before there is one."""
    height = graph.tensors[graph.input].shape[1]
    for end in range(hop, stream.shape[1] + 1, hop):
        found = None
        if end >= height:
            done = golden.run(graph, stream[None, :, end - height:end], keep_tensors=False)
            found = done.mantissas[graph.output][0], done.exponents[graph.output][0]
        yield stream[:, end - hop:end], found
