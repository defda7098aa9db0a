"""The quantiser against the rules of docs/numerics.md in exact arithmetic."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from celosia.expected import expected_exponents
from celosia.graph import Activate, Conv, Graph, MaxPool
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.epilogue import Clamp, Dynamic, Epilogue, Kept, Pool, Relu
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError
from celosia_spec.isa.numbers import BIAS_UNITS, OUTPUT_BITS, WEIGHT_UNITS
from celosia_spec.qgraph import NodeKind, QGraph, static_exponent

RNG = np.random.default_rng


def relu(name: str, source: str) -> Activate:
    return Activate(name=name, input=source, activation=Relu())


def layer(weight: np.ndarray, bias: np.ndarray | None = None, name: str = "fc",
          source: str = "x", **fields) -> Conv:
    """Return a layer on a map; a (rows, columns) weight is a 1 x 1 kernel."""
    weight = np.asarray(weight, dtype=np.float64)
    return Conv(name=name, input=source, bias=None if bias is None else np.array(bias, float),
                weight=weight[:, :, None, None] if weight.ndim == 2 else weight, **fields)


def graph_of(*nodes, shape: tuple[int, int, int]) -> Graph:
    draft = Graph(nodes=nodes, input="x", input_map=shape, input_shape=shape,
                  output=nodes[-1].name, output_shape=())
    return optimise(replace(draft, output_shape=draft.shapes[draft.output]))


def quantised(weight: np.ndarray, bias: np.ndarray | None = None, **options) -> QGraph:
    weight = np.asarray(weight, dtype=np.float64)
    return quantise(graph_of(layer(weight, bias), shape=(weight.shape[1], 1, 1)), **options)


def floor_log2(x: float) -> int:
    return math.frexp(x)[1] - 1


@pytest.mark.parametrize("bits", [4, 6, 8, 9])
def test_weights_are_blocks_of_rows_rounded_to_nearest_even(bits: int) -> None:
    rng = RNG(1)
    weight = rng.normal(size=(7, 23)) * 2.0 ** rng.integers(-20, 12, (7, 1))
    weight[rng.random(weight.shape) < 0.4] = 0
    node = quantised(weight, weight_bits=bits).nodes[0]
    for row, got, sw in zip(weight, node.matrix.toarray(), node.sw, strict=True):
        assert sw == max(floor_log2(np.abs(row).max()), -16) - (bits - 2)
        wanted = [round(Fraction(w) / Fraction(2) ** int(sw)) for w in row]
        limit = 2 ** (bits - 1) - 1
        assert got.tolist() == [max(-limit, min(limit, m)) for m in wanted]


def test_bias_has_sixteen_bits_and_an_exponent_of_its_own() -> None:
    bias = [0.3, -1.7e-3, 0.0, 4.9e-5, 1.99999]
    node = quantised(np.ones((5, 3)), bias).nodes[0]
    for b, m, sb, sw in zip(bias, node.bias, node.sb, node.sw, strict=True):
        if b == 0:
            assert (m, sb) == (0, sw)
        else:
            assert sb == max(floor_log2(b), -16) - 14
            assert m == min(round(Fraction(b) / Fraction(2) ** int(sb)), 2**15 - 1)


def test_every_row_has_units_that_a_program_can_hold() -> None:
    """Smallest and largest weights and biases, and rows of nothing but zeros."""
    weight = np.array([[2.0**15, 0.0], [1e-30, 0.0], [0.0, 0.0], [1.0, 0.0]])
    for bias in ([1e-30] * 4, [65535.0, 1e-3, 1e-3, 1e-30], None):
        for bits in (4, 9):
            node = quantised(weight, bias, weight_bits=bits, acc_bits=32).nodes[0]
            for m, sw, sb in zip(node.bias, node.sw, node.sb, strict=True):
                assert abs(m) < 1 << OUTPUT_BITS - 1
                assert sw in WEIGHT_UNITS and sb - sw in BIAS_UNITS
            assert node.sw[1] == node.sw[2] == 15 - (bits - 2)      # rows without weights


def test_zeros_are_left_out_or_kept() -> None:
    weight = RNG(2).normal(size=(6, 2, 3, 2))
    weight[weight < 0] = 0
    weight[0, 0, 0, 0] = 1e-9       # rounds to mantissa 0
    weight[3] = 0
    graph = graph_of(layer(weight, groups=3, padding=(1, 1, 1, 1)), shape=(6, 5, 5))
    sparse, dense = (quantise(graph, sparse=s).nodes[0] for s in (True, False))
    assert sparse.weights == dense.weights == 72
    assert sparse.matrix.nnz == np.count_nonzero(weight) - 1
    assert dense.matrix.nnz == 72
    assert (sparse.matrix != dense.matrix).nnz == 0
    for node in (sparse, dense):
        assert node.matrix.shape == (6, 36)
        assert node.matrix.data.dtype == np.int16
        assert node.matrix.has_sorted_indices
        for row in range(6):
            own = node.matrix.indices[node.matrix.indptr[row]:node.matrix.indptr[row + 1]]
            assert set(own) <= set(range(row // 2 * 12, row // 2 * 12 + 12))
    full = sparse.matrix.toarray().reshape(6, 6, 3, 2)
    assert np.flatnonzero(full[5].any(axis=(1, 2))).tolist() == [4, 5]


def test_the_accumulator_is_the_narrowest_that_is_proved() -> None:
    """Mantissas with a sign are multiplied as codes without; weights above and below 0 are asked
    each by themselves."""
    fits = (1 << 22) - 1
    count = fits // (255 * 127)
    last = (fits - count * 255 * 127) // 255
    row = np.array([127.0] * count + [last])
    for unsigned in False, True:
        for fitting in row, -row, [*row, *-row]:
            assert quantised([fitting], unsigned_input=unsigned).acc_bits == 24
        for over in [*row, 1.0], [*-row, -1.0]:
            assert quantised([over], unsigned_input=unsigned).acc_bits == 32
        assert quantised([row], activation_bits=9, unsigned_input=unsigned).acc_bits == 32
        assert quantised([[*row, 1.0]], activation_bits=7, unsigned_input=unsigned).acc_bits == 24


LIMIT = (1 << 22) - 1
"""What the products of a row may sum up to with 24 bits."""


def test_a_row_whose_sums_do_not_fit_has_as_many_bits_fewer_as_they_need() -> None:
    """The first rows fit exactly; the third is one over, the fourth by all but one bit."""
    full = LIMIT // (255 * 127)
    rest = (LIMIT - full * 255 * 127) // 255
    row = np.concatenate([np.full(full, 127.0), [rest], np.zeros(7 * full - 1)])
    over = row + (np.arange(8 * full) == full)
    weight = np.array([row, -row, over, np.full(8 * full, 127.0), np.arange(8 * full) < 9])
    for options in {"acc_bits": 24}, {"widest": 24}:
        graph = quantised(weight, [0.0, 1.5, 0.0, -2.0, 0.0], **options)
        node = graph.nodes[0]
        assert node.sw.tolist() == [0, 0, 1, 4, -6] and graph.acc_bits == 24
        mantissas = node.matrix.toarray()
        assert (mantissas[:2] == [row, -row]).all() and (mantissas[3] == 8).all()
        assert mantissas[2].tolist() == [round(w / 2) for w in over.tolist()]
        assert graph.remarks == ("weights have 4 to 7 bits in 2 of 5 rows of fc, so that sums fit "
                                 "24-bit accumulators",)
        assert not node.raised
    assert quantised(weight).acc_bits == 32 and not quantised(weight).remarks


@pytest.mark.parametrize(("count", "options"), [
    (3000, {}), (3000, {"unsigned_input": True}),
    (6000, {"weight_bits": 6, "activation_bits": 9}), (3000, {"sparse": False})], ids=str)
def test_random_rows_around_what_fits(count: int, options: dict) -> None:
    """Each row has the first of its roundings, from the float weights on, whose sums fit."""
    rng = RNG(7)
    bits, length = options.get("weight_bits", 8), options.get("activation_bits", 8)
    weight = rng.normal(size=(24, count)) + rng.uniform(-1, 1, (24, 1))
    weight *= rng.random(weight.shape) < rng.uniform(0.2, 1, (24, 1))
    fewer = []
    node = quantised(weight, acc_bits=24, **options).nodes[0]
    for row, got, sw in zip(weight, node.matrix.toarray(), node.sw, strict=True):
        own = floor_log2(np.abs(row).max()) - (bits - 2)
        fewer.append(int(sw) - own)
        for less in range(fewer[-1] + 1):
            scaled = [round(Fraction(w) / Fraction(2) ** (own + less)) for w in row]
            most = 2 ** (bits - 1) - 1
            rounded = [max(-most, min(most, m)) for m in scaled]
            ends = [sum(m for m in rounded if m * sign > 0) for sign in (1, -1)]
            far = (2**length - 1) * max(ends[0], -ends[1])
            assert (far <= LIMIT) == (less == fewer[-1])
        assert got.tolist() == rounded
    assert set(fewer) >= {0, 1, 2}


def test_a_row_of_the_fewest_bits_whose_sums_do_not_fit_is_refused() -> None:
    weight = np.full((2, 5000), 1.98)
    weight[0, 2000:] = 0
    for options, way_out in (({"acc_bits": 24}, "use acc_bits=32"),
                             ({"widest": 24}, "prune the row")):
        with pytest.raises(CompileError, match=(
                r"^fc \(conv\): the sums of row 1 may reach 10200000 with weights of 4 bits, above "
                rf"4194303, the limit of a 24-bit accumulator; {way_out}$")):
            quantised(weight, **options)
    weight[1, 2000:] = 0
    assert quantised(weight, widest=24).acc_bits == 24


@pytest.mark.parametrize(("width", "bits"), [(24, 8), (24, 6), (32, 8)])
def test_the_smallest_exponent_keeps_every_bias_within_the_accumulator(width: int,
                                                                       bits: int) -> None:
    weight, bias = np.array([[0.01], [0.002], [3.0], [0.5]]), [0.9, -20.0, 0.25, 0.0]
    graph = quantised(weight, bias, acc_bits=width, activation_bits=bits)
    node = graph.nodes[0]
    wanted = max(-16, *(floor_log2(b) + 4 - width - int(sw) + bits - 2
                        for b, sw in zip(bias, node.sw, strict=True) if b))
    assert graph.tensors["x"].exponent.least == wanted
    assert graph.tensors["fc"].exponent.least == -16
    if width == 24:
        assert wanted > -16
    s_k = node.sw + wanted - (bits - 2)
    assert all(abs(b) * 2.0**-s <= 2 ** (width - 3) for b, s in zip(bias, s_k.tolist(),
                                                                   strict=True))


def test_a_select_node_hands_the_smallest_exponent_on() -> None:
    pool = Pool(window=(2, 2), stride=(1, 1))
    nodes = (layer(np.eye(3), name="a"), MaxPool(name="p", input="a", pool=pool),
             layer(np.full((2, 3), 0.01), [3.0, 0.0], name="b", source="p"))
    graph = quantise(graph_of(*nodes, shape=(3, 4, 4)))
    least = graph.tensors["a"].exponent.least
    assert graph.tensors["p"].exponent == Kept(of="a", least=least) and least > -16
    assert graph.tensors["x"].exponent.least == -16


def test_the_identity_weight_is_one() -> None:
    for bits in (4, 8, 9):
        graph = quantise(graph_of(relu("r", "x"),
                                  shape=(3, 2, 2)), weight_bits=bits)
        node = graph.nodes[0]
        assert node.matrix.data.tolist() == [2 ** (bits - 2)] * 3
        assert node.sw.tolist() == [-(bits - 2)] * 3
        assert (node.kind, node.epilogue) == ("select", Epilogue(activation=Relu()))
        assert graph.tensors["r"].exponent == Kept(of="x", least=-16)


@pytest.mark.parametrize(("high", "bits", "kept"), [
    (6.0, 8, 6.0), (6.0, 4, 6.0), (0.2, 8, 0.19921875), (7.999, 8, 7.9375), (1.5, 4, 1.5),
    (0.7, 9, 0.69921875)])
def test_bounds_are_mantissas(high: float, bits: int, kept: float) -> None:
    node = layer(np.eye(3), epilogue=Epilogue(activation=Clamp(low=-high, high=high)))
    found = quantise(graph_of(node, shape=(3, 1, 1)), activation_bits=bits).nodes[0].epilogue
    assert found.activation == Clamp(low=-kept, high=kept)


def test_a_clamped_tensor_is_expected_within_its_bounds() -> None:
    six = Epilogue(activation=Clamp(low=0.0, high=6.0))
    graph = graph_of(layer(np.eye(3) * 100, [90.0, 1.0, -5.0], name="a", epilogue=six),
                     layer(np.ones((1, 3)), name="b", source="a"), shape=(3, 1, 1))
    found = expected_exponents(graph, 1.0)
    assert (found["a"], found["b"]) == (2, 4)       # three of mean 3 to 5 and deviation 3 at most


def test_tensors_tell_shapes_and_widths() -> None:
    nodes = (layer(RNG(3).normal(size=(4, 3, 2, 2)), name="a"),
             layer(RNG(4).normal(size=(5, 4, 3, 3)), name="b", source="a", kind=NodeKind.LINEAR),
             layer(np.ones((2, 5)), name="c", source="b", kind=NodeKind.LINEAR))
    tensors = quantise(graph_of(*nodes, shape=(3, 4, 4)), activation_bits=6).tensors
    assert {n: (t.shape, t.bits) for n, t in tensors.items()} == {
        "x": ((3, 4, 4), 6), "a": ((4, 3, 3), 6), "b": ((5, 1, 1), 6), "c": ((2, 1, 1), 16)}
    assert tensors["b"].user_shape == (5,)
    assert all(isinstance(t.exponent, Dynamic) for t in tensors.values())


def test_static_exponents_are_the_largest_of_the_calibration() -> None:
    nodes = (layer(RNG(3).normal(size=(4, 3, 2, 2)), name="a"), relu("r", "a"),
             layer(RNG(4).normal(size=(5, 4)), [9.0] * 5, name="b", source="a"))
    graph = graph_of(*nodes, shape=(3, 4, 4))
    calibration = (RNG(5).normal(size=(6, 3, 4, 4)) * [[[[0.1]]]] * 5).astype(np.float32)
    dynamic = golden.run(quantise(graph), calibration)
    static = quantise(graph, exponents="static", calibration=calibration)
    assert {n: static_exponent(static.tensors, n) for n in static.tensors} == {
        n: e.max() for n, e in dynamic.exponents.items()}
    silent = quantise(graph, exponents="static", calibration=np.zeros_like(calibration))
    assert silent.tensors["x"].exponent.value == silent.tensors["x"].exponent.least


@pytest.mark.parametrize(("weight", "bias", "message"), [
    ([[1.0], [65536.0]], None, r"^fc \(conv\): the weight of row 1 reaches 65536, beyond 65536; "
                               "rescale the layer$"),
    ([[1.0], [1.0]], [0.0, -1e6], r"^fc \(conv\): the bias of row 1 reaches 1e\+06, beyond 65536"),
])
def test_layers_that_do_not_fit(weight: list, bias: list | None, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        quantised(np.array(weight), bias)


def test_a_bias_far_above_its_weights_takes_the_wider_accumulator() -> None:
    with pytest.raises(CompileError, match=(
            r"^fc \(conv\): the bias is too large for the weights: x would need exponents of 17 "
            "and more, above 15; use acc_bits=32$")):
        quantised([[1e-6]], [1000.0], acc_bits=24)
    graph = quantised([[1e-6]], [1000.0])
    assert graph.acc_bits == 32
    assert graph.tensors["x"].exponent.least == 9


def test_a_compile_error_has_its_parts() -> None:
    with pytest.raises(CompileError) as caught:
        quantised(np.array([[1.0], [1e5]]))
    error = caught.value
    assert isinstance(error, CelosiaError)
    assert (error.node, error.operator, error.remedy) == ("fc", "conv", "rescale the layer")
    assert str(error) == f"fc (conv): {error.problem}; rescale the layer"


@pytest.mark.parametrize(("options", "message"), [
    ({"exponents": "fixed"}, "^exponents must be 'dynamic' or 'static', not 'fixed'$"),
    ({"exponents": "static"}, "^static exponents need calibration inputs: give calibration an "
                              r"array \(N, C, H, W\) or \(N, F\), or use exponents='dynamic'$"),
    ({"weight_bits": 3}, "^weight_bits must be 4 to 9, not 3$"),
    ({"activation_bits": 10}, "^activation_bits must be 4 to 9, not 10$"),
    ({"acc_bits": 28}, "^acc_bits must be None, 24 or 32, not 28$"),
    ({"exponents": "static", "calibration": np.zeros((0, 1, 1, 1))},
     "^calibration holds no inputs; give it at least one$"),
])
def test_arguments_that_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        quantised([[1.0]], **options)


def test_unlowered_nodes_are_refused() -> None:
    graph = Graph(nodes=(relu("r", "x"),), input="x", input_map=(1, 1, 1),
                  input_shape=(1, 1, 1), output="r", output_shape=(1, 1, 1))
    with pytest.raises(CompileError, match=r"^r \(relu\): is not a linear node; run celosia\."):
        quantise(graph)
