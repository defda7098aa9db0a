"""Random networks with mantissas with and without a sign, against fractions bit for bit; and that
storing sums rounded to odd changes none of their bits."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celosia.graph import Activate, Add, AvgPool, Conv, Graph, MaxPool
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.epilogue import Clamp, Kept, Pool, Relu, highest
from celosia_spec.floats import exponent_of, finish, to_odd
from celosia_spec.isa.numbers import UNIT_MARGIN
from celosia_spec.qgraph import QGraph
from reference import compare, reference_before_rounding

CHANNELS, SIZE = 3, (4, 5)


@dataclass(frozen=True)
class Case:
    """A random network and two inputs of it, of which the second may have other magnitudes."""

    graph: QGraph
    x: np.ndarray


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a chain of two to five layers, with residual operands between maps of one shape."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    nodes: list = []
    shapes = {"x": (CHANNELS, *SIZE)}
    last = "x"

    def put(node) -> None:
        nonlocal last
        nodes.append(node)
        last = node.name
        draft = Graph(nodes=tuple(nodes), input="x", input_map=shapes["x"],
                      input_shape=shapes["x"], output=last, output_shape=())
        shapes[last] = draft.shapes[last]

    for at in range(draw(st.integers(2, 5))):
        (channels, height, width), name = shapes[last], f"n{at}"
        match draw(st.sampled_from(["conv", "conv", "depthwise", "add", "pool", "average"])):
            case "conv" | "depthwise" as kind:
                groups = channels if kind == "depthwise" else 1
                rows = channels if kind == "depthwise" else draw(st.integers(1, 4))
                size = draw(st.integers(1, 3)) if min(height, width) > 2 else 1
                weight = rng.normal(size=(rows, channels // groups, size, size))
                weight *= 2.0 ** draw(st.integers(-12, 4)) * (rng.random(weight.shape) < 0.8)
                weight *= 2.0 ** rng.integers(-4, 1, (rows, 1, 1, 1))
                bias = rng.normal(size=rows) * 2.0 ** draw(st.integers(-10, 4))
                put(Conv(name=name, input=last, weight=weight, groups=groups,
                         bias=bias if draw(st.booleans()) else None,
                         padding=(size // 2,) * 4))
            case "add":
                other = draw(st.sampled_from([n for n, s in shapes.items() if s == shapes[last]]))
                put(Add(name=name, left=other, right=last))
            case "pool" if min(height, width) > 1:
                put(MaxPool(name=name, input=last, pool=Pool(window=(2, 2), stride=(1, 2))))
            case "average" if min(height, width) > 1:
                put(AvgPool(name=name, input=last, window=(2, 2), stride=(2, 1), divisor=4))
        activation = draw(st.sampled_from([None, Relu(), Relu(), Clamp(low=0, high=6.0),
                                           Clamp(low=0, high=0.3), Clamp(low=-1.5, high=1.5)]))
        if activation is not None and nodes:
            put(Activate(name=f"a{at}", input=last, activation=activation))
    if not nodes or not any(isinstance(node, Conv) for node in nodes):
        put(Conv(name="end", input=last, bias=None,
                 weight=rng.normal(size=(2, shapes[last][0], 1, 1))))
    unsigned_input = draw(st.booleans())
    x = rng.normal(size=(2, *shapes["x"])) * 2.0 ** np.array(
        [draw(st.integers(-10, 4)) for _ in range(2)])[:, None, None, None]
    x = (np.abs(x) if unsigned_input else x).astype(np.float32)
    draft = Graph(nodes=tuple(nodes), input="x", input_map=shapes["x"], input_shape=shapes["x"],
                  output=last, output_shape=shapes[last])
    static = draw(st.booleans())
    graph = quantise(
        optimise(draft), unsigned=draw(st.booleans()), unsigned_input=unsigned_input,
        weight_bits=draw(st.integers(4, 9)), activation_bits=draw(st.integers(4, 9)),
        acc_bits=draw(st.sampled_from([None, 24, 32])), calibration=x[:1] if static else None,
        exponents="static" if static else "dynamic")
    return Case(graph, x)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_every_bit_is_the_rule(case: Case) -> None:
    result = compare(case.graph, case.x)
    for name, tensor in case.graph.tensors.items():
        m = result.mantissas[name]
        assert m.max() <= 2 ** (tensor.bits - tensor.signed) - 1
        assert m.min() >= (1 - 2 ** (tensor.bits - 1) if tensor.signed else 0)
        if isinstance(tensor.exponent, Kept) and tensor.bits == case.graph.activation_bits:
            # Choosing rounds nothing: all values are values of the input, or 0.
            node = next(n for n in case.graph.nodes if n.output == name)
            source = case.graph.tensors[node.input]
            step = source.signed - tensor.signed
            assert set(np.unique(m).tolist()) <= {0, *np.unique(
                result.mantissas[node.input] << step).tolist()}


@settings(max_examples=60, deadline=None)
@given(cases())
def test_sums_rounded_to_odd_give_the_same_mantissas(case: Case) -> None:
    """Whole nodes: each sum is stored as an element before the tensor's exponent is known."""
    graph = case.graph
    found = golden.run(graph, case.x)
    for image in range(len(case.x)):
        stored = {name: (dict(np.ndenumerate(found.mantissas[name][image])),
                         int(found.exponents[name][image])) for name in graph.tensors}
        for node in graph.nodes:
            tensor = graph.tensors[node.output]
            if node.output == graph.output:
                continue
            sums, scales = reference_before_rounding(graph, node, *stored[node.input], stored)
            units = [-(Fraction(1) / scale).numerator.bit_length() + 1 if scale < 1
                     else scale.numerator.bit_length() - 1 for scale in scales]
            assert all(Fraction(2) ** unit == scale
                       for unit, scale in zip(units, scales, strict=True))
            values = np.array(list(sums.values()), dtype=np.int64)
            unit = np.array([units[at[0]] for at in sums])
            live = np.diff(node.matrix.indptr)[[at[0] for at in sums]] > 0
            assert (unit[live] >= -(graph.acc_bits + UNIT_MARGIN)).all()
            elements = to_odd(values, unit, signed=tensor.signed)
            exponent = stored[node.output][1]
            rule, activation = tensor.exponent, node.epilogue.activation
            if rule.found:
                wanted = int(exponent_of(elements).max())
                assert exponent == min(max(wanted, rule.least), highest(activation, rule.least))
            m, _ = finish(elements, exponent, tensor.bits, signed=tensor.signed)
            if activation.clamps:
                step = Fraction(2) ** (exponent - tensor.format.fraction)
                low, high = (round(Fraction(bound) / step) for bound in activation.bounds)
                m = m.clip(low, high)
            assert dict(zip(sums, m.tolist(), strict=True)) == stored[node.output][0]


def single(weight: list[list[float]], bias: list[float] | None = None, **options) -> QGraph:
    """Return one linear layer, then a ReLU, then an identity layer."""
    array = np.array(weight, dtype=float)[:, :, None, None]
    rows, columns = array.shape[:2]
    nodes = (Conv(name="a", input="x", weight=array,
                  bias=None if bias is None else np.array(bias)),
             Activate(name="r", input="a", activation=Relu()),
             Conv(name="y", input="r", weight=np.eye(rows)[:, :, None, None], bias=None))
    return quantise(optimise(Graph(
        nodes=nodes, input="x", input_map=(columns, 1, 1), input_shape=(columns, 1, 1), output="y",
        output_shape=(rows, 1, 1))), **options)


def test_which_tensors_have_no_sign() -> None:
    def signs(**options: bool) -> list[bool]:
        return [tensor.signed for tensor in single([[1.0]], **options).tensors.values()]

    assert signs() == [True, False, True]                               # x, a with its ReLU, y
    assert signs(unsigned=False) == [True, True, True]
    assert signs(unsigned=False, unsigned_input=True) == [False, True, True]
    assert signs(unsigned_input=True) == [False, False, True]


def test_what_chooses_from_a_tensor_without_a_sign_has_none() -> None:
    pool = MaxPool(name="p", input="x", pool=Pool(window=(1, 2), stride=(1, 2)))
    last = Conv(name="y", input="p", weight=np.ones((1, 1, 1, 1)), bias=None)
    graph = quantise(optimise(Graph(nodes=(pool, last), input="x", input_map=(1, 1, 4),
                                    input_shape=(1, 1, 4), output="y", output_shape=(1, 1, 2))),
                     unsigned_input=True)
    assert [t.signed for t in graph.tensors.values()] == [False, False, True]
    m = compare(graph, np.float32([[[[1.0, 255 / 128, 0.5, 0.25]]]])).mantissas
    assert m["p"].ravel().tolist() == [255, 64]


def test_one_bit_more() -> None:
    """All 2^L codes of a tensor without a sign occur, and half of the step is kept."""
    graph = single([[1.0]], unsigned=True, unsigned_input=True)
    x = np.arange(256, dtype=np.float32)[:, None, None, None] / 128
    static = single([[1.0]], unsigned=True, unsigned_input=True, exponents="static", calibration=x)
    m = compare(static, x).mantissas
    assert m["x"].ravel().tolist() == m["a"].ravel().tolist() == list(range(256))
    assert compare(graph, x[-1:]).mantissas["a"].item() == 255


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
def test_an_input_below_0_is_refused(exponents: str) -> None:
    x = np.float32([[2.0], [-0.5]])[:, :, None, None]
    graph = single([[1.0]], unsigned_input=True, exponents=exponents, calibration=x[:1])
    with pytest.raises(ValueError, match=r"^x: image 1 of the input reaches down to -0.5, and the "
                                         r"network was compiled for inputs of 0 and more; compile "
                                         r"it with calibration inputs like these, and without "
                                         r"scale$"):
        golden.run(graph, x)
    golden.run(graph, np.array([[[[-0.0]]]]))


def test_the_proof_of_sums_takes_one_sign_at_a_time() -> None:
    """A row whose positive and negative weights are as many may be twice as long; one weight
    more, of the sign that leads, and the sums no longer fit."""
    most = (2**22 - 1) // (255 * 127)
    row = [127 / 64] * most + [-127 / 64] * most
    graph = single([row], unsigned_input=True, acc_bits=24)
    ends = np.zeros((2, 2 * most, 1, 1), np.float32)
    ends[0, :most] = ends[1, most:] = 255 / 128
    compare(graph, ends)
    assert graph.nodes[0].sw.tolist() == [-6]
    for one_more in (single([[*row, 127 / 64]], unsigned_input=True, acc_bits=24),
                     single([[*row[:most], 127 / 64]], acc_bits=24)):
        assert one_more.nodes[0].sw.tolist() == [-5]
        compare(one_more, np.full((1, one_more.nodes[0].weights, 1, 1), 1.99, np.float32))


def test_the_unit_of_a_row_holds_its_input_up() -> None:
    """A sum's highest bit is worth 2^-16 at least: the smallest exponents of the input are those
    at which the unit of every row with weights is 2^-(W + 14) or more."""
    small = 2.0**-16
    for unsigned in (False, True):
        for width in (24, 32):
            graph = single([[small], [0.0]], unsigned_input=unsigned, acc_bits=width)
            s_w, fraction = -16 - 6, 7 if unsigned else 6
            least = graph.tensors["x"].exponent.least
            assert least == max(-16, fraction - s_w - (width + UNIT_MARGIN))
            assert width == 32 or s_w + least - fraction == -(width + UNIT_MARGIN)
            compare(graph, np.float32([[[[2.0**-20]]], [[[1.0]]]]))
    assert single([[1.0]], acc_bits=24).tensors["x"].exponent.least == -16


def test_a_bound_is_a_mantissa_of_its_tensor() -> None:
    """6 is exact in every format; 0.3 has one bit more where there is no sign."""
    nodes = (Conv(name="a", input="x", weight=np.ones((1, 1, 1, 1)), bias=None),
             Activate(name="c", input="a", activation=Clamp(low=0, high=0.3)),
             Conv(name="y", input="c", weight=np.ones((1, 1, 1, 1)), bias=None))
    graph = optimise(Graph(nodes=nodes, input="x", input_map=(1, 1, 1), input_shape=(1, 1, 1),
                           output="y", output_shape=(1, 1, 1)))
    for unsigned, step in ((False, 2.0**-8), (True, 2.0**-9)):
        found = quantise(graph, unsigned=unsigned)
        high = found.nodes[0].epilogue.activation.bounds[1]
        assert high == round(0.3 / step) * step
        m = compare(found, np.float32([[[[1.0]]]])).mantissas["a"].item()
        assert m * math.ldexp(1, -8 - unsigned) == high
    ends = replace(graph, nodes=graph.nodes[:1], output=graph.nodes[0].name)
    last = quantise(ends, unsigned=True)
    assert last.tensors[last.output].signed
    assert last.nodes[0].epilogue.activation.bounds[1] == round(0.3 * 2**8) / 2**8
