"""The golden model against a slow reference in Python integers and fractions."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import Activate, Add, AvgPool, Conv, Graph, MaxPool, Reshape
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_sim.golden import model
from celosia_sim.golden.linear import exact_sums, weight_operand
from celosia_spec.block import Format
from celosia_spec.epilogue import Clamp, Kept, Pool, Relu
from celosia_spec.qgraph import NodeKind, QGraph, static_exponent
from reference import compare

RNG = np.random.default_rng


def relu(name: str, source: str) -> Activate:
    return Activate(name=name, input=source, activation=Relu())


def conv(name: str, source: str, seed: int, rows: int, own: int, kernel: tuple[int, int],
         scale: float = 1.0, bias: bool = True, density: float = 0.6, **fields) -> Conv:
    """Return a random sparse convolution; row 1 (if any) has no weight and no bias."""
    rng = RNG(seed)
    weight = rng.normal(size=(rows, own, *kernel)) * scale
    weight *= rng.random(weight.shape) < density
    offset = rng.normal(size=rows) * scale * 0.3
    if rows > 1:
        weight[1] = offset[1] = 0
    return Conv(name=name, input=source, weight=weight, bias=offset if bias else None, **fields)


def network(nodes: list, shape: tuple[int, int, int] = (5, 7, 9), **options) -> QGraph:
    draft = Graph(nodes=tuple(nodes), input="x", input_map=shape, input_shape=shape,
                  output=nodes[-1].name, output_shape=())
    graph = optimise(replace(draft, output_shape=draft.shapes[draft.output]))
    return quantise(graph, **options)


def images(count: int, shape: tuple[int, int, int] = (5, 7, 9), scale: float = 1.0,
           seed: int = 9) -> np.ndarray:
    return (RNG(seed).normal(size=(count, *shape)) * scale).astype(np.float32)


def odd_nodes() -> list:
    return [conv("a", "x", 1, 6, 5, (3, 2), stride=(2, 1), padding=(1, 0, 2, 1), bias=False),
            relu("r", "a"),
            conv("depthwise", "r", 2, 6, 1, (3, 3), groups=6, dilation=(1, 2),
                 padding=(1, 2, 1, 2)),
            conv("grouped", "depthwise", 3, 9, 2, (1, 1), groups=3),
            MaxPool(name="p", input="grouped", pool=Pool(window=(2, 3), stride=(2, 3))),
            relu("r2", "p"),
            Reshape(name="f", input="r2", shape=(54, 1, 1)),
            conv("fc", "f", 4, 4, 54, (1, 1), kind=NodeKind.LINEAR)]


@pytest.mark.parametrize("options", [
    {}, {"weight_bits": 4, "activation_bits": 9}, {"weight_bits": 9, "activation_bits": 4},
    {"acc_bits": 32}, {"sparse": False},
    {"exponents": "static", "calibration": images(3, scale=0.5, seed=3)}],
    ids=["default", "w4 a9", "w9 a4", "acc 32", "dense", "static"])
def test_odd_network(options: dict) -> None:
    graph = network(odd_nodes(), **options)
    assert [node.name for node in graph.nodes] == ["a", "depthwise", "grouped", "fc"]
    compare(graph, images(3))


@pytest.mark.parametrize("scale", [2.0**-6, 0.5, 4.0, 2.0**9])
@pytest.mark.parametrize("options", [
    {}, {"activation_bits": 5}, {"acc_bits": 32, "weight_bits": 9, "activation_bits": 9},
    {"exponents": "static", "calibration": images(3, scale=0.5, seed=3)}],
    ids=["default", "a5", "w9 a9", "static"])
def test_clamps(scale: float, options: dict) -> None:
    """Bounds hold exactly, before the rounding, in front of and behind a max pool and alone;
    sums far inside and far beyond them; a bound that rounds up to a power of two."""
    def clamp(name: str, source: str, low: float, high: float) -> Activate:
        return Activate(name=name, input=source, activation=Clamp(low=low, high=high))

    pool = Pool(window=(2, 2), stride=(2, 2))
    graph = network([
        conv("a", "x", 1, 6, 5, (3, 3), scale=scale), clamp("six", "a", 0.0, 6.0),
        conv("b", "six", 2, 6, 6, (1, 1), scale=0.5), MaxPool(name="p", input="b", pool=pool),
        clamp("tanh", "p", -1.0, 1.0), clamp("less", "tanh", 0.0, 0.7), relu("none", "tanh"),
        Add(name="sum", left="less", right="none"), clamp("seven", "sum", -7.999, 7.999),
        conv("c", "seven", 3, 4, 6, (1, 1)), clamp("last", "c", -0.3, 0.3)], **options)
    assert [(n.name, n.kind, n.epilogue.activation.kind) for n in graph.nodes] == [
        ("a", "conv", "clamp"), ("b", "conv", "clamp"), ("less", "conv", "clamp"),
        ("none", "select", "relu"), ("sum", "conv", "clamp"), ("c", "conv", "clamp")]
    result = compare(graph, images(3, scale=2.0))
    if scale == 2.0**9:
        assert (result.exponents["a"] == 2).all()
        assert result.mantissas["a"].max() == 6 << graph.tensors["a"].format.fraction - 2
    assert not result.saturated[0] or "calibration" in options


def residual_nodes(scale: float) -> list:
    return [conv("a", "x", 1, 5, 5, (3, 3), padding=(1, 1, 1, 1), scale=scale),
            conv("b", "a", 2, 5, 5, (1, 1), scale=1 / scale),
            Add(name="sum", left="x", right="b"),
            relu("relu", "sum"),
            Add(name="again", left="relu", right="relu"),
            Add(name="wide", left="again", right="a")]


@pytest.mark.parametrize("scale", [2.0**-9, 0.1, 1.0, 30.0, 2.0**10])
def test_residuals_of_very_different_exponents(scale: float) -> None:
    graph = network(residual_nodes(scale))
    assert [(n.name, n.epilogue.add) for n in graph.nodes] == [
        ("a", None), ("b", "x"), ("again", "b"), ("wide", "a")]
    compare(graph, images(2))


def test_a_residual_operand_saturates_alone() -> None:
    """R far above what the accumulator holds is cut at 2^(W-3) - 1; the mantissa is not clipped."""
    nodes = [conv("a", "x", 1, 5, 5, (1, 1), scale=2.0**9, bias=False),
             conv("b", "x", 2, 5, 5, (1, 1), scale=2.0**-12, bias=False),
             Add(name="s", left="a", right="b")]
    graph = network(nodes, acc_bits=24)
    result = compare(graph, images(2))
    s_r = result.exponents["a"] - 6
    scale = graph.nodes[1].sw.max() + result.exponents["x"] - 6
    assert (s_r - scale > graph.acc_bits - 3).all()


def test_zero_largest_and_tiny_inputs() -> None:
    graph = network(odd_nodes())
    x = images(6)
    x[0] = 0
    x[1], x[2] = 65535.996, -65535.996
    x[3] *= 1e-9
    x[4] = np.float32(2.0**-149)
    x[5, 0, 0, 0] = 65504
    result = compare(graph, x)
    assert result.exponents["x"][[0, 4]].tolist() == [graph.tensors["x"].exponent.least] * 2
    assert not result.mantissas["x"][0].any()
    assert result.exponents["x"][1] == 15


@pytest.mark.parametrize(("scale", "clamp"), [(2.0**9, 15), (2.0**-9, -16)])
def test_a_chain_reaches_the_clamps(scale: float, clamp: int) -> None:
    nodes = [conv(f"c{i}", f"c{i - 1}" if i else "x", i, 5, 5, (1, 1), scale=scale, bias=False)
             for i in range(4)]
    result = compare(network(nodes), images(2))
    assert (result.exponents["c3"] == clamp).all()
    assert result.saturated.all() == (clamp == 15)
    assert result.mantissas["c3"].any() == (clamp == 15)


def test_average_and_select_nodes() -> None:
    nodes = [conv("a", "x", 1, 5, 5, (1, 1)),
             MaxPool(name="overlapping", input="a", pool=Pool(window=(3, 3), stride=(2, 1))),
             relu("relu", "overlapping"),
             AvgPool(name="mean", input="relu", window=(2, 3), stride=(1, 2), divisor=6,
                     padding=(1, 0, 0, 1)),
             MaxPool(name="cut", input="a", pool=Pool(window=(4, 5), stride=(4, 5))),
             conv("b", "cut", 5, 5, 5, (1, 1)),
             conv("c", "mean", 6, 5, 5, (3, 3)),
             Add(name="sum", left="c", right="b")]
    graph = network(nodes)
    kept = [isinstance(graph.tensors[n.output].exponent, Kept) for n in graph.nodes]
    assert list(zip((n.name for n in graph.nodes), (n.kind for n in graph.nodes), kept,
                    strict=True)) == [
        ("a", "conv", False), ("overlapping", "select", True), ("mean", "average", False),
        ("cut.part1", "select", True), ("cut", "select", True), ("b", "conv", False),
        ("c", "conv", False)]
    result = compare(graph, images(2))
    assert (result.exponents["cut"] == result.exponents["a"]).all()
    pooled = result.mantissas["a"][:, :, :4, :5].max(axis=(2, 3))
    assert (result.mantissas["cut"][..., 0, 0] == pooled).all()


@pytest.mark.parametrize("bits", [4, 8, 9])
def test_a_network_that_only_selects_loses_nothing(bits: int) -> None:
    graph = network([relu("r", "x")], weight_bits=bits, activation_bits=bits)
    result = compare(graph, images(2))
    assert (result.mantissas["r"] == np.maximum(result.mantissas["x"], 0) << 16 - bits).all()
    assert (result.exponents["r"] == result.exponents["x"]).all()


def test_static_exponents_clip_and_say_so() -> None:
    graph = network(odd_nodes(), exponents="static", calibration=images(4, scale=0.25))
    x = np.concatenate([images(1, scale=0.02), images(1, scale=8.0)])
    result = compare(graph, x)
    assert result.saturated.tolist() == [False, True]
    assert golden.input_saturated(graph, x).tolist() == [False, True]
    assert {name: static_exponent(graph.tensors, name) for name in graph.tensors} == {
        name: e[1] for name, e in result.exponents.items()}


def test_quantise_input_is_what_run_stores() -> None:
    graph = network(odd_nodes())
    m, exponents = golden.quantise_input(graph, images(3))
    result = golden.run(graph, images(3))
    assert (m == result.mantissas["x"]).all()
    assert (exponents == result.exponents["x"]).all()
    assert m.dtype == exponents.dtype == np.int32


def test_chunks_and_dropped_tensors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network(residual_nodes(1.0))
    whole = golden.run(graph, images(7))
    monkeypatch.setattr(model, "CHUNK", 2 * max(model._operand_elements(graph)))
    parts = golden.run(graph, images(7), keep_tensors=False)
    assert list(parts.mantissas) == [graph.output]
    assert (parts.mantissas[graph.output] == whole.mantissas[graph.output]).all()
    assert (parts.saturated == whole.saturated).all()
    for name, exponents in whole.exponents.items():
        assert (parts.exponents[name] == exponents).all()


def test_no_images_give_an_empty_result() -> None:
    graph = network(odd_nodes())
    assert golden.run(graph, images(0)).mantissas["fc"].shape == (0, 4, 1, 1)


@pytest.mark.parametrize("density", [0.02, 0.9])
@pytest.mark.parametrize("rows", [40, 6000])
def test_sums_are_exact_in_every_form_of_the_weights(rows: int, density: float) -> None:
    """Below and above 2^24, where single precision stops; dense and sparse."""
    weight = RNG(1).integers(64, 128, (3, rows, 1, 1)) * (RNG(2).random((3, rows, 1, 1)) < density)
    layer = Conv(name="a", input="x", weight=weight.astype(np.float64), bias=None)
    node = network([layer], (rows, 1, 1)).nodes[0]
    m = RNG(3).integers(100, 128, (4, rows, 1, 1))
    sums = exact_sums(m, weight_operand(node, Format(bits=8)), node.geometry)
    wanted = m[:, :, 0, 0] @ node.matrix.toarray().astype(np.int64).T
    assert (sums[:, :, 0, 0] == wanted).all()
    assert (wanted.max() > 1 << 24) == (rows == 6000 and density == 0.9)


@pytest.mark.parametrize(("x", "message"), [
    (np.zeros((2, 5, 7, 8)), r"^x: the input must have the shape \(N, 5, 7, 9\), not "
                             r"\(2, 5, 7, 8\)$"),
    (np.float32(1), r"^x: the input must have the shape \(N, 5, 7, 9\), not \(\)$"),
    (np.where(np.arange(630).reshape(2, 5, 7, 9) == 400, np.nan, 0),
     "^x: image 1 of the input holds values that are not finite in float32$"),
    (np.full((1, 5, 7, 9), 1e39), "^x: image 0 of the input holds values that are not finite"),
    (np.full((1, 5, 7, 9), -65536.0), "^x: image 0 of the input needs the block exponent 16, "
                                      "above 15; scale the input down$")])
def test_inputs_that_are_refused(x: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        golden.run(network(odd_nodes()), x)
