"""Rows with weights that are faint against their bias, or beside a residual operand."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celosia.expected import USUAL_DEVIATION, expected_exponents
from celosia.graph import Activate, Add, Conv, Graph, MaxPool
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.block import bfp
from celosia_spec.epilogue import Epilogue, Pool, Relu
from celosia_spec.errors import FitError
from celosia_spec.faint_rows import FAINT_BITS, ROOM_BITS
from celosia_spec.isa.numbers import BIAS_UNITS, OUTPUT_BITS, WEIGHT_UNITS
from celosia_spec.qgraph import QGraph, QNode

RNG = np.random.default_rng
RELU = Epilogue(activation=Relu())


def relu(name: str, source: str) -> Activate:
    return Activate(name=name, input=source, activation=Relu())


def layer(weight: np.ndarray, bias: np.ndarray | None, name: str = "a", source: str = "x",
          **fields) -> Conv:
    weight = np.asarray(weight, dtype=np.float64)
    return Conv(name=name, input=source, bias=None if bias is None else np.array(bias, float),
                weight=weight[:, :, None, None] if weight.ndim == 2 else weight, **fields)


def graph_of(*nodes, shape: tuple[int, int, int]) -> Graph:
    draft = Graph(nodes=nodes, input="x", input_map=shape, input_shape=shape,
                  output=nodes[-1].name, output_shape=())
    return optimise(replace(draft, output_shape=draft.shapes[draft.output]))


def noise(graph: Graph, x: np.ndarray, **options) -> float:
    """Return the signal-to-noise ratio of the outputs, dB, against the float graph."""
    quantised = quantise(graph, **options)
    found = golden.run(quantised, x)
    tensor = quantised.tensors[quantised.output]
    lsb = found.exponents[quantised.output] - (tensor.bits - 2)
    values = np.ldexp(found.mantissas[quantised.output].astype(float), lsb[:, None, None, None])
    wanted = float_outputs(graph, x)
    return 10 * math.log10(np.square(wanted).sum() / np.square(values - wanted).sum())


def float_outputs(graph: Graph, x: np.ndarray) -> np.ndarray:
    """Run 1 x 1 layers, ReLU and residual additions in float64."""
    tensors = {graph.input: x.astype(np.float64)}
    for node in graph.nodes:
        y = np.einsum("rc,nchw->nrhw", node.weight[:, :, 0, 0], tensors[node.input])
        y += 0 if node.bias is None else node.bias[:, None, None]
        y += 0 if node.epilogue.add is None else tensors[node.epilogue.add]
        tensors[node.name] = y.clip(*node.epilogue.activation.bounds)
    return tensors[graph.output]


def images(shape: tuple[int, int, int], count: int = 4) -> np.ndarray:
    return RNG(9).normal(size=(count, *shape)).astype(np.float32)


def two_layers(faint: float, bias: float = 1.5, rows: int = 12) -> Graph:
    """Return a network whose second layer has a row of weights ``faint`` times as large."""
    rng = RNG(1)
    first = layer(rng.normal(size=(rows, 3)) / 2, rng.normal(size=rows) / 4, epilogue=RELU)
    weight = rng.normal(size=(rows, rows)) / 3
    weight[5] *= faint
    offset = rng.normal(size=rows) / 4
    offset[5] = bias
    return graph_of(first, layer(weight, offset, "b", "a", epilogue=RELU),
                    layer(rng.normal(size=(4, rows)), None, "c", "b"), shape=(3, 5, 5))


# Other rows and tensors

@pytest.mark.parametrize("faint", [2.0**-9, 2.0**-12, 1e-4, 1e-6])
@pytest.mark.parametrize("bias", [1.5, -3.0])
@pytest.mark.parametrize("bits", [6, 8, 9])
def test_no_other_row_notices_a_faint_one(faint: float, bias: float, bits: int) -> None:
    options = {"activation_bits": bits, "weight_bits": bits, "acc_bits": 24}
    dead, nearly = (quantise(two_layers(f, bias), **options) for f in (0, faint))
    others = [row for row in range(12) if row != 5]
    assert nearly.nodes[1].raised[0][0] == 5 and len(nearly.nodes[1].raised) == 1
    for a, b in zip(dead.nodes, nearly.nodes, strict=True):
        rows = others if a.name == "b" else list(range(len(a.sw)))
        assert (a.matrix.toarray()[rows] == b.matrix.toarray()[rows]).all()
        assert (a.sw[rows] == b.sw[rows]).all() and (a.sb == b.sb)[rows].all()
        assert (a.bias == b.bias).all()
    assert nearly.tensors["a"].exponent.least <= dead.tensors["a"].exponent.least + FAINT_BITS + 1
    x = images((3, 5, 5))
    first, second = golden.run(dead, x), golden.run(nearly, x)
    assert (first.mantissas["a"] == second.mantissas["a"]).all()
    assert (first.mantissas["b"][:, others] == second.mantissas["b"][:, others]).all()


@pytest.mark.parametrize("faint", [2.0**-8, 1e-3, 1e-4, 1e-7])
def test_a_faint_row_costs_the_network_nothing(faint: float) -> None:
    x = images((3, 5, 5))
    without, beside = (noise(two_layers(f), x, acc_bits=24) for f in (0, faint))
    assert beside > without - 0.5


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_many_faint_rows_and_either_kind_of_exponents(exponents: str) -> None:
    """Two thirds of a layer's rows, as training with a penalty on scales leaves them."""
    rng = RNG(3)
    weight = rng.normal(size=(24, 8)) / 2
    weight[8:] *= 10.0 ** -rng.uniform(2, 5, (16, 1))
    graph = graph_of(layer(weight, rng.normal(size=24) / 2, epilogue=RELU),
                     layer(rng.normal(size=(4, 24)), None, "b", "a"), shape=(8, 4, 4))
    x = images((8, 4, 4))
    calibration = x if exponents == "static" else None
    found = [noise(graph, x, acc_bits=width, exponents=exponents, calibration=calibration)
             for width in (24, 32)]
    assert found[0] > found[1] - 0.5 > 30


def test_the_dense_baseline_has_the_same_numbers() -> None:
    sparse, dense = (quantise(two_layers(1e-4), sparse=s) for s in (True, False))
    for a, b in zip(sparse.nodes, dense.nodes, strict=True):
        assert (a.sw == b.sw).all() and a.raised == b.raised
        assert (a.matrix != b.matrix).nnz == 0
    assert sparse.tensors == dense.tensors


# The rule, from its words

def reference(weights: list[list[Fraction]], biases: list[Fraction], usual: int, width: int,
              weight_bits: int, activation_bits: int) -> tuple[list[int], int]:
    """Return the weight exponents of a layer's rows, and the smallest exponent of its input.

    usual : exponent that the input is expected to have.
    """
    def floor_log2(value: Fraction) -> int:
        power = 0
        while Fraction(2) ** power > value:
            power -= 1
        while Fraction(2) ** (power + 1) <= value:
            power += 1
        return power

    exponents = [max(floor_log2(max(map(abs, row))), -16) for row in weights]
    mean = sum((Fraction(4) ** e for e in exponents), Fraction(0)) / len(exponents)
    limit = floor_log2(mean) // 2 - FAINT_BITS

    def needed(row: int, exponent: int) -> int:
        """The bias may take the bits below the highest two of the accumulator, and its sign; the
        highest bit of a sum is worth 2^-16 at least."""
        s_w, s_x = exponent - (weight_bits - 2), -64
        while (abs(biases[row]) >= Fraction(2) ** (s_x + s_w + width - 3)
               or s_x + s_w + width - 2 < -16):
            s_x += 1
        return s_x + (activation_bits - 2)

    rows = range(len(weights))
    smallest = max([-16, usual - ROOM_BITS,
                    *(needed(row, max(exponents[row], limit)) for row in rows)])
    raised = [max(e, e + needed(row, e) - smallest) for row, e in enumerate(exponents)]
    return raised, max([-16, *(needed(row, raised[row]) for row in rows)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 7), st.sampled_from([24, 32]), st.integers(4, 9),
       st.integers(4, 9))
def test_the_rule_in_exact_arithmetic(seed: int, rows: int, width: int, weight_bits: int,
                                      activation_bits: int) -> None:
    rng = RNG(seed)
    weight = rng.normal(size=(rows, 5)) * 2.0 ** rng.integers(-12, 3, (rows, 1))
    bias = rng.normal(size=rows) * 2.0 ** rng.integers(-10, 8, rows) * rng.integers(0, 2, rows)
    float_graph = graph_of(layer(weight, bias), shape=(5, 1, 1))
    graph = quantise(float_graph, acc_bits=width, weight_bits=weight_bits,
                     activation_bits=activation_bits)
    node = graph.nodes[0]
    # Of the quantised bias, which may be rounded up to a power of two.
    stored = [int(m) * Fraction(2) ** int(s) for m, s in zip(node.bias, node.sb, strict=True)]
    wanted, smallest = reference([[Fraction(w) for w in row] for row in weight], stored,
                                 expected_exponents(float_graph)["x"], width, weight_bits,
                                 activation_bits)
    assert (node.sw + weight_bits - 2).tolist() == wanted
    assert graph.tensors["x"].exponent.least == smallest
    own = [max(math.frexp(np.abs(row).max())[1] - 1, -16) for row in weight]
    assert node.raised == tuple((k, b - a) for k, (a, b) in enumerate(
        zip(own, wanted, strict=True)) if b > a)
    largest = 2 ** (weight_bits - 1) - 1
    for row, found, exponent in zip(weight, node.matrix.toarray(), wanted, strict=True):
        unit = Fraction(2) ** (exponent - weight_bits + 2)
        assert found.tolist() == [max(-largest, min(largest, round(Fraction(w) / unit)))
                                  for w in row]


@st.composite
def layers(draw) -> tuple[Graph, dict]:
    """Draw a layer with rows of all sizes, perhaps grouped, perhaps with a residual operand."""
    rng = RNG(draw(st.integers(0, 2**32)))
    rows, groups = draw(st.sampled_from([(1, 1), (4, 1), (6, 2), (6, 6)]))
    weight = rng.normal(size=(rows, 6 // groups)) * 2.0 ** rng.integers(-18, 4, (rows, 1))
    weight[rng.random(rows) < 0.1] = 0
    bias = rng.normal(size=rows) * 2.0 ** rng.integers(-16, 11, rows)
    bias[rng.random(rows) < 0.2] = 0
    node = layer(weight, bias, groups=groups,
                 epilogue=draw(st.sampled_from([Epilogue(), RELU])))
    nodes = [node]
    if rows == 6 and draw(st.booleans()):
        nodes = [replace(node, epilogue=Epilogue()), Add(name="sum", left="x", right="a")]
    options = {"acc_bits": draw(st.sampled_from([24, 32])),
               "weight_bits": draw(st.integers(4, 9)),
               "activation_bits": draw(st.integers(4, 9)), "sparse": draw(st.booleans())}
    return graph_of(*nodes, shape=(6, 1, 1)), options


@settings(max_examples=80, deadline=None)
@given(layers())
def test_nothing_overflows_and_ordinary_rows_stay(drawn: tuple[Graph, dict]) -> None:
    """At every exponent that the input can have, with every mantissa at its largest."""
    float_graph, options = drawn
    try:
        graph = quantise(float_graph, **options)
    except FitError as refusal:         # a bias that no exponent of the input leaves room
        words = str(refusal)
        graph = quantise(float_graph, **options | {"acc_bits": 32})
    else:
        words = None
    assert words is None or ("the bias is too large" in words and words.endswith("acc_bits=32"))
    node, source = graph.nodes[0], graph.tensors["x"]
    weight = float_graph.nodes[0].weight.reshape(len(node.sw), -1)
    mantissas, exponents = bfp(weight, options["weight_bits"], axis=0)
    ordinary = ordinary_exponent(node, mantissas, exponents)
    raised = dict(node.raised)
    own = node.matrix.toarray()[:, columns(float_graph.nodes[0])]
    for k in range(len(node.sw)):
        assert_within_accumulator(node, k, own[k], source.exponent.least, graph)
        sw = int(node.sw[k])
        assert abs(node.bias[k]) < 1 << OUTPUT_BITS - 1
        assert sw in WEIGHT_UNITS and int(node.sb[k]) - sw in BIAS_UNITS
        if k not in raised:
            assert (own[k][k] == mantissas[k]).all()
            assert not mantissas[k].any() or sw == exponents[k] - (options["weight_bits"] - 2)
        else:
            assert sw + options["weight_bits"] - 2 <= ordinary - FAINT_BITS
            error = np.abs(np.ldexp(own[k][k].astype(float), sw) - weight[k])
            assert (error <= 2.0 ** (ordinary - FAINT_BITS - options["weight_bits"] + 1)).all()


def columns(node: Conv) -> np.ndarray:
    """Return int (rows, columns of a row's group): where its weights stand in the matrix."""
    rows, own = len(node.weight), node.weight.shape[1]
    return (np.arange(rows) // (rows // node.groups) * own)[:, None] + np.arange(own)


def ordinary_exponent(node: QNode, mantissas: np.ndarray, exponents: np.ndarray) -> float:
    live = exponents[mantissas.any(axis=1)]
    return 0.5 * math.log2(np.mean(4.0 ** live)) if live.size else 0.0


def assert_within_accumulator(node: QNode, k: int, row: np.ndarray, exponent_min: int,
                              graph: QGraph) -> None:
    width, bits = graph.acc_bits, graph.activation_bits
    weights = node.matrix.toarray()[k].astype(int)
    products = max(abs(weights[weights * sign > 0].sum()) for sign in (1, -1)) * (2**bits - 1)
    for exponent in range(exponent_min, 16):
        unit = Fraction(2) ** (int(node.sw[k]) + exponent - (bits - 2))
        bias = round(int(node.bias[k]) * Fraction(2) ** int(node.sb[k]) / unit)
        residual = 0 if node.epilogue.add is None else 2 ** (width - 3) - 1
        assert abs(bias) <= 2 ** (width - 3)
        assert products + abs(bias) + residual < 2 ** (width - 1)


def test_rows_without_weights_take_an_ordinary_exponent() -> None:
    weight = np.array([[0.4], [0.0], [0.3]])
    node = quantise(graph_of(layer(weight, [1.0, 1.0, 0.0]), shape=(1, 1, 1))).nodes[0]
    assert node.sw.tolist() == [-8, -8, -8] and not node.raised
    graph = quantise(graph_of(layer(np.zeros((3, 1)), [1.0, 0.0, -8.0]), shape=(1, 1, 1)))
    assert graph.nodes[0].sw.tolist() == [-6] * 3
    assert graph.tensors["x"].exponent.least == 3 + 4 - 24 + 6 + 6


# Residual operands

def block(scale: np.ndarray | float, bias: bool = True) -> Graph:
    """Return x + b(relu(a(x))), the rows of b scaled."""
    rng = RNG(4)
    rows = 8
    scale = np.broadcast_to(scale, rows)[:, None]
    return graph_of(
        layer(rng.normal(size=(rows, rows)) / 3, rng.normal(size=rows) / 4, epilogue=RELU),
        layer(rng.normal(size=(rows, rows)) / 3 * scale,
              rng.normal(size=rows) / 4 if bias else None, "b", "a"),
        Add(name="sum", left="x", right="b"), relu("relu", "sum"),
        layer(rng.normal(size=(4, rows)), None, "c", "relu"), shape=(rows, 4, 4))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("faint", [1e-3, 1e-5, 1e-7])
def test_a_faint_row_keeps_its_residual_operand(faint: float, bias: bool) -> None:
    """Its accumulator counted in so small a unit that the operand was cut, with no flag."""
    scale = np.where(np.arange(8) % 3 == 1, faint, 1.0)
    x = images((8, 4, 4))
    graph = quantise(block(scale, bias))
    assert graph.acc_bits == 24 and not graph.remarks
    # Weights below the smallest of all exponents are no weights.
    assert [row for row, _ in graph.nodes[1].raised] == ([1, 4, 7] if faint > 1e-6 else [])
    assert noise(block(scale, bias), x) > noise(block(1.0, bias), x) - 3


@pytest.mark.parametrize("faint", [1e-3, 1e-6])
def test_a_faint_branch_takes_wider_accumulators_for_its_biases(faint: float) -> None:
    """No row of it is ordinary, so there is nothing to raise them to. That it is read coarsely, so
    that its operand has room, is less than what comes out is rounded by; but where an operand that
    is 2^8 as large as usual would want an exponent that there is not, that is a reason, too."""
    x = images((8, 4, 4))
    graph = quantise(block(faint))
    assert graph.acc_bits == 32
    row = int(quantise(block(faint), acc_bits=24).nodes[1].sw.argmin())
    reasons = [told.partition("32-bit accumulators, because ")[2] for told in graph.remarks]
    assert [reason.split(" holds ")[0].split(", whose")[0] for reason in reasons] == [
        "the bias of row 1 of b", *([f"row {row} of b"] if faint == 1e-6 else [])]
    assert noise(block(faint), x) > noise(block(1.0), x) - 3


def test_an_operand_that_is_cut_all_the_same_is_told_of() -> None:
    graph, x = block(1e-4, False), 300 * images((8, 4, 4))
    narrow = quantise(graph, acc_bits=24)
    most = 16 + narrow.nodes[1].room
    assert narrow.remarks[0].startswith(
        f"row {int(narrow.nodes[1].sw.argmin())} of b, whose weights are small, cuts x, which is "
        f"added to it, from 2^{most} on, and numbers up to about ")
    assert np.abs(x).max() > 2.0**most
    assert noise(graph, x, acc_bits=24) < 20 < 30 < noise(graph, x)
    assert quantise(graph).acc_bits == 32


@pytest.mark.parametrize("scale", [1.0, 2.0**-4, 2.0**-9, np.where(np.arange(8) % 2, 0.15, 1.0)])
def test_a_quiet_branch_needs_no_wider_accumulators(scale: np.ndarray | float) -> None:
    graph, x = block(scale, False), images((8, 4, 4))
    assert quantise(graph).acc_bits == 24
    ratio, wider = (noise(graph, x, acc_bits=bits) for bits in (24, 32))
    assert ratio > wider - 0.3


def test_a_branch_without_weights_keeps_the_operand() -> None:
    x = images((8, 4, 4))
    graph = quantise(block(0.0))
    assert graph.acc_bits == 24 and not graph.remarks
    assert noise(block(0.0), x) > noise(block(1.0), x) - 3


# The width of the accumulators

def shared(faint: float, **fields) -> Graph:
    """Return two readers of one tensor; of the second, all rows are faint."""
    rng = RNG(5)
    nodes = [layer(rng.normal(size=(6, 3)), rng.normal(size=6) / 2, epilogue=RELU),
             layer(rng.normal(size=(5, 6)) / 2, rng.normal(size=5) / 2, "b", "a", epilogue=RELU),
             layer(rng.normal(size=(5, 6)) * faint, rng.uniform(1, 2, 5), "c", "a", epilogue=RELU),
             layer(rng.normal(size=(5, 5)), rng.normal(size=5), "d", "b"),
             layer(rng.normal(size=(5, 5)), rng.normal(size=5), "e", "c"),
             Add(name="sum", left="d", right="e")]
    return graph_of(*nodes, shape=(3, 4, 4))


def test_a_tensor_that_would_lose_bits_takes_wider_accumulators() -> None:
    graph = quantise(shared(1e-4))
    assert graph.acc_bits == 32
    narrow = quantise(shared(1e-4), acc_bits=24)
    least = narrow.tensors["a"].exponent.least
    assert least > 3 and graph.tensors["a"].exponent.least == least - 8
    usual = expected_exponents(shared(1e-4), USUAL_DEVIATION)["a"]
    words = f"holds a at exponents of {least} and more, where about {usual} is expected"
    assert words in narrow.remarks[0]
    assert graph.remarks[0] == f"32-bit accumulators, because {narrow.remarks[0]}"
    x = images((3, 4, 4))
    assert noise(shared(1e-4), x) > noise(shared(1e-4), x, acc_bits=24) + 10


def test_an_array_that_has_no_wider_ones_is_told_so() -> None:
    kept = quantise(shared(1e-4), widest=24)
    assert kept.acc_bits == 24
    assert "holds a at exponents of" in kept.remarks[0] and "32-bit" not in kept.remarks[0]


def test_ordinary_networks_keep_narrow_accumulators_and_say_nothing() -> None:
    for bits in (4, 6, 8, 9):
        graph = quantise(shared(1.0), activation_bits=bits, weight_bits=bits)
        assert graph.acc_bits == 24 and not graph.remarks
        assert not any(node.raised for node in graph.nodes)


@pytest.mark.parametrize("faint", [1.0, 1e-4])
def test_static_exponents_decide_by_what_calibration_found(faint: float) -> None:
    x = images((3, 4, 4))
    graph = quantise(shared(faint), exponents="static", calibration=x)
    assert graph.acc_bits == (24 if faint == 1 else 32)
    found = golden.run(quantise(shared(faint), acc_bits=32), x).exponents["a"]
    assert graph.tensors["a"].exponent.value == found.max()
    if faint != 1:
        assert graph.remarks[0].endswith("is calibrated")


# What tensors are expected to be

@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.25, 1.0, 16.0])
def test_expected_exponents_are_near_those_that_occur(seed: int, scale: float) -> None:
    rng = RNG(seed)
    nodes = [layer(rng.normal(size=(16, 3, 3, 3)) / 5, rng.normal(size=16) * scale, epilogue=RELU,
                   padding=(1, 1, 1, 1)),
             layer(rng.normal(size=(16, 1, 3, 3)) / 3, rng.normal(size=16) * scale, "b", "a",
                   groups=16, epilogue=RELU),
             layer(rng.normal(size=(16, 16)) / 4, rng.normal(size=16) * scale, "c", "b"),
             Add(name="sum", left="c", right="b"),
             MaxPool(name="pool", input="sum", pool=Pool(window=(2, 2), stride=(2, 2))),
             layer(rng.normal(size=(4, 16, 2, 2)) / 8, rng.normal(size=4) * scale, "d", "pool")]
    graph = graph_of(*nodes, shape=(3, 8, 8))
    x = (RNG(seed + 10).normal(size=(4, 3, 8, 8)) * max(1, scale)).astype(np.float32)
    found = golden.run(quantise(graph), x).exponents
    for name, exponent in expected_exponents(graph).items():
        assert abs(np.median(found[name]) - exponent) <= 2, name


def test_expected_exponents_of_a_network_without_biases() -> None:
    graph = graph_of(layer(np.full((2, 4), 0.5), None), shape=(4, 1, 1))
    assert expected_exponents(graph) == {"x": 1, "a": 1}
