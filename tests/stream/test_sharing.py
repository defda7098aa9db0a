"""Networks of many tensors share exponent slots and main memory."""

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from celosia.bands.host import output, prepare
from celosia.bands.program import stream_program
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_sim import golden, stream_machine, stream_memories
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.errors import FitError
from celosia_spec.isa.array import Array
from concats import graph_of, joined, linear
from stream.sharing import check_memory, check_slots

SHAPE = (2, 2, 3)


def tangle(rng: np.random.Generator, nodes: int, waiting: int):
    """A network of so many nodes or more, in which up to so many tensors wait for a reader; some
    are read by several."""
    made: list[Conv] = []
    unread, names = ["x"], ["x"]

    def add(inputs: list[str]) -> None:
        name = f"n{len(made)}"
        made.append(Conv(
            name=name, input=inputs[0], weight=rng.standard_normal((2, 2, 1, 1)), bias=None,
            epilogue=Epilogue(activation=Relu(), add=inputs[1] if len(inputs) > 1 else None)))
        unread[:] = [other for other in unread if other not in inputs] + [name]
        names.append(name)

    while len(made) < nodes or len(unread) > 1:
        grows = len(made) < nodes and len(unread) < waiting
        first = str(rng.choice(names if grows else unread))
        others = [other for other in (names if grows else unread) if other != first]
        add([first, *([str(rng.choice(others))] if others and rng.random() < 0.6 + 0.4 * (
            not grows) else [])])
    graph = Graph(nodes=tuple(made), input="x", output=made[-1].name, input_map=SHAPE,
                  input_shape=SHAPE, output_shape=SHAPE)
    return quantise(graph, acc_bits=24)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 1 << 32), st.integers(33, 70), st.integers(2, 20))
def test_networks_of_more_tensors_than_slots(seed, nodes, waiting):
    rng = np.random.default_rng(seed)
    graph = tangle(rng, nodes, waiting)
    array = Array(lanes=8)
    try:
        program = stream_program(graph, array)
    except FitError:            # more of them wait than there are slots
        reject()
    check_memory(program)
    check_slots(program)
    x = rng.standard_normal(SHAPE).astype(np.float32)
    state = stream_memories.State(array, np.zeros(array.main_words * 4, np.int64))
    state.exponents[program.slots[graph.input]] = prepare(program, x, state.main)
    stream_machine.run(state, program.entries, program.order.lists)
    mantissas, exponent, _ = output(program, state.main, state.exponents)
    wanted = golden.run(graph, x[None], keep_tensors=False)
    assert exponent == wanted.exponents[graph.output][0]
    assert np.array_equal(mantissas, wanted.mantissas[graph.output][0])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(joined())
def test_readings_of_several_tensors(case):
    program = stream_program(case[0], Array(acc_bits=case[0].acc_bits, clamp=True))
    check_memory(program)
    check_slots(program)


@pytest.mark.parametrize(("count", "fits"), [(30, True), (31, False)])
def test_more_exponents_at_once_than_slots(count, fits):
    """So many tensors, their reading and its output."""
    names = [f"a{k}" for k in range(count)]
    rng = np.random.default_rng(1)
    nodes = [linear(name, ("x",), rng.integers(1, 90, (1, 1)), -7) for name in names]
    nodes.append(linear("y", tuple(names), rng.integers(1, 90, (1, count)), -7))
    shapes = {"x": (1, 1, 1), "y": (1, 1, 1)} | dict.fromkeys(names, (1, 1, 1))
    graph = graph_of(nodes, shapes)
    if fits:
        check_slots(stream_program(graph, Array()))
    else:
        with pytest.raises(FitError, match=r"y \(conv\): there more than 32 exponents of tensors "
                                           "are needed at once"):
            stream_program(graph, Array())
