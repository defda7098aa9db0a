"""Lowering without the machine: a model of its own decodes what stands in the memory images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array, random_array

from celosia.lower import lower
from celosia.program import Program
from celosia.quantise import fixed
from celosia.schedule.copies import expand_copies
from celosia_sim import golden
from celosia_sim.word_machine import WordMachine
from celosia_spec.block import Format
from celosia_spec.epilogue import Dynamic, Epilogue, Identity, Pool, Relu
from celosia_spec.errors import CelosiaError, CompileError
from celosia_spec.isa import (
    ArrayConfig,
    Space,
)
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor

SIZES = {"weight_rows": 16384, "bank_rows": 4096, "table_rows": 1024, "taps": 2048, "writes": 8192,
         "program_words": 1024, "store_beats": 4096, "residual_beats": 2048}
SMALL = ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2, **SIZES)
MIDDLE = ArrayConfig(lanes=16, quad=4, beat=4, wide_elements=4, replicate=True, **SIZES)
LARGE = ArrayConfig(lanes=32, quad=8, beat=8, wide_elements=8, acc_bits=32, **SIZES)
ARRAYS = {"small": SMALL, "middle": MIDDLE, "large": LARGE}


# Small graphs.

def tensor(name: str, shape: tuple[int, int, int], bits: int = 8) -> QTensor:
    return QTensor(name=name, shape=shape, user_shape=shape, bits=bits, exponent=Dynamic(least=-10))


def matrix(rng, rows: int, columns: int, density: float = 0.5, bits: int = 8) -> csr_array:
    found = random_array((rows, columns), density=density, rng=rng, format="csr")
    largest = Format(bits=bits).largest
    found.data = rng.integers(-largest, largest + 1, found.nnz).astype(np.int16)
    found.sort_indices()
    return found


def node(rng, name: str, source: tuple[int, int, int], rows: int, kernel=(1, 1), *, input: str,
         pool: Pool | None = None, density: float = 0.5, residual: str | None = None,
         relu: bool = True, **geometry) -> tuple[QNode, tuple[int, int, int]]:
    """Return a convolution, and the shape of its output."""
    shape = Geometry(kernel=kernel, **geometry)
    (top, left, bottom, right), dilation = shape.padding, shape.dilation
    size = [(n + extra - (k - 1) * d - 1) // s + 1 for n, extra, k, d, s in zip(
        source[1:], (top + bottom, left + right), kernel, dilation, shape.stride, strict=True)]
    if pool:
        size = [(n - k) // s + 1 for n, k, s in zip(size, pool.window, pool.stride, strict=True)]
    assert min(size) > 0
    weights = matrix(rng, rows, source[0] * kernel[0] * kernel[1], density)
    bias = rng.integers(-(1 << 14), 1 << 14, rows) * (rng.random(rows) < 0.7)
    sw = rng.integers(-8, -4, rows)
    made = QNode(name=name, kind=NodeKind.CONV, inputs=(input,), output=name, matrix=weights,
                 weights=rows * weights.shape[1], geometry=shape, sw=sw, bias=bias,
                 sb=np.where(bias == 0, sw, sw - 9), epilogue=Epilogue(
                     add=residual, activation=Relu() if relu else Identity(), pool=pool))
    return made, (rows, *size)


def graph_of(nodes: list[tuple[QNode, tuple[int, int, int]]], source: tuple[int, int, int],
             acc_bits: int = 24) -> QGraph:
    tensors = {"x": tensor("x", source)}
    for made, shape in nodes:
        last = made is nodes[-1][0]
        tensors[made.output] = tensor(made.output, shape, 16 if last else 8)
    return QGraph(tensors=tensors, nodes=tuple(made for made, _ in nodes), input="x",
                  output=nodes[-1][0].output, weight_bits=8, activation_bits=8, acc_bits=acc_bits)


def two_layers(seed: int, source, first: dict, second: dict, acc_bits: int = 24) -> QGraph:
    rng = np.random.default_rng(seed)
    one = node(rng, "one", source, input="x", **first)
    two = node(rng, "two", one[1], input="one", **second)
    return graph_of([one, two], source, acc_bits)


GRAPHS = {
    "plain": lambda bits: two_layers(1, (5, 7, 12), {"rows": 5, "kernel": (3, 3)},
                                     {"rows": 3, "kernel": (3, 3)}, bits),
    "padded vector": lambda bits: two_layers(
        10, (5, 3, 3), {"rows": 9, "kernel": (3, 3)},
        {"rows": 4, "kernel": (1, 1), "padding": (1, 0, 1, 2)}, bits),
    "padding": lambda bits: two_layers(
        2, (3, 8, 12), {"rows": 5, "kernel": (3, 3), "padding": (1, 1, 1, 1)},
        {"rows": 4, "kernel": (3, 3), "padding": (0, 2, 1, 1)}, bits),
    "stride 2": lambda bits: two_layers(
        3, (2, 9, 17), {"rows": 6, "kernel": (2, 2)},
        {"rows": 5, "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 0, 0)}, bits),
    "stride 3": lambda bits: two_layers(4, (2, 7, 25), {"rows": 5},
                                        {"rows": 3, "kernel": (2, 3), "stride": (3, 3)}, bits),
    "pool": lambda bits: two_layers(
        5, (2, 11, 17), {"rows": 5, "kernel": (3, 3), "pool": Pool(window=(2, 2), stride=(2, 2))},
        {"rows": 4, "kernel": (2, 2), "pool": Pool(window=(2, 3), stride=(2, 3))}, bits),
    "vectors": lambda bits: two_layers(6, (53, 1, 1), {"rows": 29}, {"rows": 11}, bits),
    "whole map": lambda bits: two_layers(7, (3, 5, 4), {"rows": 33, "kernel": (5, 4)},
                                         {"rows": 7}, bits),
    "column": lambda bits: two_layers(8, (4, 13, 3), {"rows": 5, "kernel": (2, 3)},
                                      {"rows": 6, "kernel": (3, 1), "stride": (2, 1)}, bits),
    "thin": lambda bits: two_layers(9, (40, 4, 9), {"rows": 37, "density": 0.02, "kernel": (3, 3)},
                                    {"rows": 3, "density": 0.02, "kernel": (2, 2)}, bits),
}


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("name", GRAPHS)
def test_images(name, array, exponents):
    """Descriptors, streams, taps, rows and write entries mean what the golden model computes."""
    array = ARRAYS[array]
    graph = GRAPHS[name](array.acc_bits)
    if exponents == "static":
        graph = fixed(graph, dict.fromkeys(graph.tensors, 2))
    check_program(lower(graph, array, target="test", exponents=exponents))


def check_program(program: Program) -> None:
    """Assert that the images give the golden model's bits, for two inputs."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, *program.graph.tensors["x"].shape)).astype(np.float32)
    wanted = golden.run(program.graph, x)
    mantissa, exponent = golden.quantise_input(program.graph, x)
    machine = WordMachine(program)
    for image in range(2):
        found = machine.run(mantissa[image], int(exponent[image]))
        assert set(found) == {made.output for made in program.graph.nodes}
        for tensor_name, (values, block) in found.items():
            np.testing.assert_array_equal(values, wanted.mantissas[tensor_name][image])
            assert block == wanted.exponents[tensor_name][image]


def residual_graph(acc_bits: int) -> QGraph:
    """The input is added, ``first`` added and read by two layers, ``side`` only added."""
    rng, shape = np.random.default_rng(11), (4, 6, 9)
    same = {"kernel": (3, 3), "padding": (1, 1, 1, 1)}
    nodes = [node(rng, "first", shape, 4, input="x", residual="x", **same),
             node(rng, "side", shape, 4, input="first"),
             node(rng, "second", shape, 4, input="first", residual="side", **same),
             node(rng, "third", shape, 4, input="second", residual="first", **same),
             node(rng, "last", shape, 3, input="third", residual=None, kernel=(6, 9))]
    return graph_of(nodes, shape, acc_bits)


@pytest.mark.parametrize("array", ARRAYS)
def test_residuals(array):
    array = ARRAYS[array]
    program = lower(residual_graph(array.acc_bits), array, target="test", exponents="dynamic")
    assert {place.space for place in program.places.values()} == {
        Space.BANKS, Space.STORE, Space.RESIDUAL}
    x = np.random.default_rng(4).normal(size=(1, 4, 6, 9)).astype(np.float32)
    wanted = golden.run(program.graph, x)
    mantissa, exponent = golden.quantise_input(program.graph, x)
    for name, (values, block) in WordMachine(program).run(mantissa[0], int(exponent[0])).items():
        np.testing.assert_array_equal(values, wanted.mantissas[name][0], err_msg=name)
        assert block == wanted.exponents[name][0]


def test_copies():
    """Copies change no bit, and a graph that has them gets no more."""
    graph = residual_graph(24)
    expanded = expand_copies(graph)
    assert [made.name for made in expanded.nodes if made.kind == "copy"] == [
        "copy of x for first", "copy of x for residual", "copy of first for side",
        "copy of first for second"]
    again = expand_copies(expanded)
    assert [made.name for made in again.nodes] == [made.name for made in expanded.nodes]
    x = np.random.default_rng(4).normal(size=(3, 4, 6, 9)).astype(np.float32)
    plain, copied = golden.run(graph, x), golden.run(expanded, x)
    for name in graph.tensors:
        np.testing.assert_array_equal(plain.mantissas[name], copied.mantissas[name])
    np.testing.assert_array_equal(copied.mantissas["x for first"], copied.mantissas["x"])


# Refusals.

def refusal(graph: QGraph, array: ArrayConfig = MIDDLE) -> str:
    with pytest.raises(CelosiaError) as caught:
        lower(graph, array, target="test", exponents="dynamic")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_arithmetic_refusals():
    plain = GRAPHS["plain"]
    assert refusal(plain(32)) == ("network (accumulator): needs 32-bit accumulators, the array has "
                                  "24; give the array acc_bits=32")
    assert refusal(replace(plain(24), weight_bits=9)) == (
        "network (weights): 9-bit mantissas, the array multiplies 8 bits; compile with "
        "weight_bits=8 or less")
    assert refusal(replace(plain(24), activation_bits=6)) == (
        "network (activations): 6-bit mantissas, the array rounds to 8 bits; compile with "
        "activation_bits=8, or give the array activation_bits=6")
    assert refusal(residual_graph(24), LARGE) == (
        "first (add): its residual operand saturates with the accumulator, quantised for 24 bits, "
        "the array has 32; quantise with acc_bits=32")
    graph = plain(24)
    assert refusal(replace(graph, output="one")) == (
        "two (conv): it reads the network's output, which leaves with 16-bit mantissas; end the "
        "network behind its last layer")


@pytest.mark.parametrize(("changes", "message"), [
    ({"wide_elements": 1}, "two (conv): its output is the network's and a map of 24 positions; "
     "this array rounds only vectors to 16 bits; end the network in a vector"),
    ({"index_bits": 5}, "one (conv): column indices reach 132, the array has 5 bits for them; "
     "give the layer fewer inputs"),
    ({"bank_rows": 40}, "one (conv): its input of 5x7x12 takes 80 rows and, with the maps beside "
     "it, does not fit 16 banks of 40 mantissas; use fewer channels or smaller maps there"),
    ({"store_beats": 16}, "one (conv): its output needs 104 beats of the accumulator store, the "
     "array has 16; use fewer channels or smaller maps there"),
    ({"writes": 4}, "test (memory): the program needs 30 words of writes memory, the array has 4; "
     "use smaller maps"),
    ({"taps": 4}, "test (memory): the program needs 18 words of taps memory, the array has 4; use "
     "smaller kernels or fewer channels"),
    ({"weight_rows": 4}, "test (memory): the program needs 436 words of weights memory, the array "
     "has 16; prune it further"),
    ({"table_rows": 4}, "test (memory): the program needs 10 words of rows memory, the array has "
     "4; use fewer output channels"),
    ({"program_words": 64}, "test (memory): the program needs 55 words of program memory, the "
     "array has 32; use fewer or narrower layers")])
def test_size_refusals(changes, message):
    assert refusal(GRAPHS["plain"](24), replace(MIDDLE, **changes)) == message


def test_residual_refusals():
    message = refusal(residual_graph(24), replace(MIDDLE, residual_beats=0))
    assert message == ("first (add): this array has no residual store; leave the addition out")
    message = refusal(residual_graph(24), replace(MIDDLE, residual_beats=20))
    assert message.startswith("first (add): the residual operands alive at once need ")
    assert message.endswith(
        " beats, the array has 20; use fewer channels or smaller maps there")


def test_unwalkable_lines():
    """Lines too short for the smallest row group, that read far more columns than they have."""
    graph = two_layers(1, (2, 13, 13), {"rows": 2, "kernel": (11, 11)},
                       {"rows": 2, "kernel": (3, 3)})
    assert refusal(graph) == (
        "one (conv): output lines of 3 positions that read 13 columns cannot be walked by groups "
        "of 4 lanes; use a smaller kernel or dilation there")


def test_retreat():
    """Where the banks do not hold the fastest way, a slower one with fewer copies is taken."""
    graph = two_layers(5, (24, 6, 6), {"rows": 16, "density": 1.0}, {"rows": 3, "kernel": (6, 6)})
    roomy = lower(graph, MIDDLE, target="test", exponents="dynamic")
    needed = 1 + max(int(place.addresses.max()) // 16 for place in roomy.places.values()
                     if place.space is Space.BANKS)
    tight = lower(graph, replace(MIDDLE, bank_rows=needed - 24), target="test",
                  exponents="dynamic")
    assert tight.layers[0].groups < roomy.layers[0].groups
    assert tight.predicted_cycles >= roomy.predicted_cycles


def test_retreat_for_words():
    """Where the weights do not fit the fastest way, in whole port rows of many groups, fewer groups
    are taken; likewise for the write table. The golden model's bits stay."""
    graph = two_layers(7, (60, 1, 1), {"rows": 9, "density": 1.0}, {"rows": 5, "density": 1.0})
    array = replace(SMALL, weight_rows=300)
    roomy = lower(graph, array, target="test", exponents="dynamic")
    words = roomy.images[Space.WEIGHTS].size
    assert [layer.groups for layer in roomy.layers] == [4, 4]
    tight = lower(graph, replace(array, weight_rows=words // 4 - 30), target="test",
                  exponents="dynamic")
    assert min(layer.groups for layer in tight.layers) < 4
    assert tight.images[Space.WEIGHTS].size < words
    assert tight.predicted_cycles > roomy.predicted_cycles
    check_program(tight)

    graph = two_layers(7, (3, 9, 9), {"rows": 4}, {"rows": 3, "kernel": (9, 9)})
    words = lower(graph, SMALL, target="test", exponents="dynamic").images[Space.WRITES].size
    tight = lower(graph, replace(SMALL, writes=words - 1), target="test", exponents="dynamic")
    assert tight.images[Space.WRITES].size < words
    check_program(tight)


def test_compile_error_names_the_layer():
    with pytest.raises(CompileError) as caught:
        lower(GRAPHS["plain"](24), replace(MIDDLE, bank_rows=40), target="test",
              exponents="dynamic")
    assert caught.value.node == "one"
