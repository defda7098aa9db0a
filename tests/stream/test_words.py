"""Streams of random networks on the machine of words: every map is the golden model's."""

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celosia.bands import layer_stream
from celosia.bands.entries import command
from celosia.bands.program import stream_program
from celosia.graph import Conv, Graph
from celosia.quantise import quantise
from celosia_sim import stream_memories
from celosia_spec.epilogue import Clamp, Epilogue, Pool, Relu
from celosia_spec.errors import CompileError, FitError, SimulationError
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import Op
from concats import joined
from stream.compared import compare
from stream.networks import graphs

ARRAYS = {
    "16": Array(clamp=True), "8": Array(lanes=8, bank_rows=256, ring=64, clamp=True),
    "few bank rows": Array(bank_rows=64, ring=64, clamp=True),
    "four of 16": Array(clamp=True, clusters=4, fill=8),
    "two of 8": Array(lanes=8, bank_rows=64, ring=64, clamp=True, fill=8, clusters=2)}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_random_networks(array, data):
    graph = data.draw(graphs())
    if graph.activation_bits != array.activation_bits:
        array = Array(**{**vars(array), "activation_bits": graph.activation_bits})
    tensor = graph.tensors[graph.input]
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    x = rng.random(tensor.user_shape) - (0.5 if tensor.signed else 0)
    x = x.astype(np.float32)
    if array.bank_rows < ARRAYS["16"].bank_rows:       # not every layer has a band there
        with suppress(FitError):
            compare(graph, array, x)
    else:
        compare(graph, array, x)


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])
@given(joined())
def test_maps_that_are_read_together(case):
    graph, x = case
    compare(graph, Array(acc_bits=graph.acc_bits, clamp=True), x[0])


@pytest.mark.parametrize(("name", "channels"), [("few bank rows", 16), ("two of 8", 8)])
def test_fills_that_do_not_wait_are_found(name, channels, monkeypatch):
    """In the order of the stream, too, in which nothing comes out wrong; of several clusters,
    whichever of them still reads what is overwritten."""
    rng = np.random.default_rng(2)
    conv = Conv(name="a", input="x", weight=rng.normal(size=(3, channels, 3, 3)), bias=None,
                padding=(1, 1, 1, 1))
    size = channels, 12, 12
    graph = quantise(Graph(nodes=(conv,), input="x", output="a", input_map=size,
                           input_shape=size, output_shape=(3, 12, 12)))
    array, x = ARRAYS[name], rng.random(size).astype(np.float32)
    compare(graph, array, x)
    monkeypatch.setattr(layer_stream, "command", lambda op, **fields: command(
        Op.NOTHING if op == Op.WAIT else op, **fields))
    with pytest.raises(SimulationError) as caught:
        compare(graph, array, x)
    assert str(caught.value) in (
        "a fill takes the place of what batches beside it read; compile again",
        "a batch reads what a fill beside it writes; compile again")


def test_nothing_overtakes_what_it_depends_on():
    """What a batch and a fill beside it may not do, until a command has waited for one of them."""
    here, there = (np.array([2]), np.array([3])), (np.array([5]), np.array([3]))
    for first, other, wrong, waits in (
            (("sums", *here), ("fill", *here, None), "takes the place", {}),
            (("fill", *here, None), ("sums", *here), "a fill beside it writes", {"fills": True}),
            (("store", here[0]), ("fill", *there, here[0]), "before it write", {"writes": True}),
            (("fill", *there, here[0]), ("store", here[0]), "a fill beside it reads",
             {"fills": True})):
        def made(*calls):
            meanwhile = stream_memories.Meanwhile(Array(), np.zeros(64, np.int64))
            for name, *of in calls:
                getattr(meanwhile, name)(*of)
            return meanwhile
        with pytest.raises(SimulationError, match=wrong):
            made(first, other)
        own = made()
        other_cluster = own.beside()
        getattr(other_cluster, first[0])(*first[1:])
        own.waits(fills=False, writes=True)         # a cluster's wait is for itself
        with pytest.raises(SimulationError, match=wrong):
            getattr(own, other[0])(*other[1:])
        meanwhile = made(first)
        meanwhile.waits(**{"fills": False, "writes": False} | waits)
        name, *of = other
        getattr(meanwhile, name)(*of)


@pytest.mark.parametrize(("size", "kernel", "groups"), [
    ((3, 3), 1, 1), ((1, 1), 1, 1), ((4, 4), 3, 300)], ids=["banks", "reach", "depthwise"])
def test_an_operand_of_more_channels_than_one_part_holds(size, kernel, groups):
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((300, 300 // groups, kernel, kernel))
    weight *= rng.random(weight.shape) < (0.05 if groups == 1 else 1.0)
    nodes = (Conv(name="a", input="x", weight=rng.standard_normal((300, 3, 1, 1)), bias=None),
             Conv(name="b", input="a", weight=weight, bias=rng.standard_normal(300),
                  padding=(kernel // 2,) * 4, groups=groups, epilogue=Epilogue(add="a")))
    graph = quantise(Graph(nodes=nodes, input="x", input_map=(3, *size), input_shape=(3, *size),
                           output="b", output_shape=(300, *size)), acc_bits=24)
    array = Array(main_words=1 << 16)
    assert len(stream_program(graph, array).layers[1].parts) > 1
    compare(graph, array, rng.random((3, *size)).astype(np.float32))


def test_lines_that_strides_pass_over_have_room_in_the_banks():
    """A band's fill begins with lines that neither it nor the band before reads."""
    rng = np.random.default_rng(0)
    weight = np.zeros((1, 9, 2, 1))
    weight.flat[[0, 2, 3, 14]] = 0.1, 0.6, 0.5, -1.2
    nodes = (Conv(name="a", input="x", weight=weight, bias=None,
                  stride=(2, 1), padding=(0, 0, 1, 0), epilogue=Epilogue(
                      activation=Relu(), pool=Pool(window=(1, 2), stride=(2, 2)))),
             Conv(name="b", input="a", weight=rng.standard_normal((1, 1, 1, 1)), bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", input_map=(9, 13, 12), input_shape=(9, 13, 12),
                           output="b", output_shape=(1, 4, 6)), acc_bits=24)
    x = rng.random((9, 13, 12)) - 0.5
    compare(graph, Array(lanes=8, bank_rows=128, taps=128, fill=2), x.astype(np.float32))


@pytest.mark.parametrize("unsigned", [False, True])
def test_rows_that_were_narrowed(unsigned):
    """Random ones, among rows that fit."""
    rng = np.random.default_rng(6)
    weight = rng.standard_normal((20, 150, 3, 3)) + rng.uniform(-1, 1, (20, 1, 1, 1))
    nodes = (Conv(name="a", input="x", weight=weight, bias=rng.standard_normal(20),
                  epilogue=Epilogue(activation=Clamp(low=0.0, high=100.0))),
             Conv(name="b", input="a", weight=rng.standard_normal((4, 20, 1, 1)), bias=None))
    graph = quantise(Graph(nodes=nodes, input="x", output="b", input_map=(150, 4, 4),
                           input_shape=(150, 4, 4), output_shape=(4, 2, 2)),
                     widest=24, unsigned_input=unsigned)
    assert "in 20 of 20 rows of a" in graph.remarks[0]
    x = rng.random((150, 4, 4)) - (0 if unsigned else 0.5)
    compare(graph, Array(clamp=True, drain=1, fill=2), x.astype(np.float32))


@pytest.mark.parametrize(("changes", "message"), [
    ({"activation_bits": 6}, "activations of 8 bits, the array has 6; quantise with activation_"),
    ({"weight_bits": 6}, "weights of 8 bits, the array has 6; quantise with weight_bits=6"),
    ({"residual": False}, "it adds tensors, and the array has no residual operand"),
    ({"clamp": False}, "a .clamp.: a clamp to 0 ... 1 follows it, and the array has ReLU only; ")])
def test_an_array_of_other_arithmetic(changes, message):
    nodes = (Conv(name="a", input="x", weight=np.ones((1, 1, 1, 1)), bias=None,
                  epilogue=Epilogue(activation=Clamp(low=0.0, high=1.0))),
             Conv(name="b", input="a", weight=np.ones((1, 1, 1, 1)), bias=None,
                  epilogue=Epilogue(add="a")))
    graph = quantise(Graph(nodes=nodes, input="x", input_map=(1, 2, 2), input_shape=(1, 2, 2),
                           output="b", output_shape=(1, 2, 2)), acc_bits=24)
    stream_program(graph, ARRAYS["16"])
    with pytest.raises(CompileError, match=message):
        stream_program(graph, replace(ARRAYS["16"], **changes))
