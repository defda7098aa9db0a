"""Nodes that read several tensors together: one exponent, found before any of them is rounded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from celosia.quantise import fixed
from celosia.schedule.check import check_graph
from celosia_boards.targets import target
from celosia_sim import golden
from celosia_spec.epilogue import PLAIN, Clamp, Dynamic, Epilogue, Kept, Pool, Relu
from celosia_spec.errors import CompileError
from celosia_spec.faint_rows import exponent_minima, input_minima
from celosia_spec.graph_rules import check_nodes, check_tensors, check_weights
from celosia_spec.isa import EXPONENT_MIN, ArrayConfig
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor
from reference import compare

ARRAY = ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2)
SIZE = (3, 4)


def linear(name: str, inputs: tuple[str, ...], weights: np.ndarray, sw: np.ndarray | int,
           bias: np.ndarray | int = 0, kernel: tuple[int, int] = (1, 1), **fields) -> QNode:
    """Return a node with weights (rows, columns); a bias has the unit of a weight times 2^-4."""
    rows = np.zeros(len(weights), np.int64)
    return QNode(name=name, kind=fields.pop("kind", NodeKind.CONV), inputs=inputs, output=name,
                 matrix=csr_array(weights.astype(np.int16)), weights=weights.size,
                 geometry=Geometry(kernel=kernel), sw=rows + sw, bias=rows + bias,
                 sb=rows + sw - 4 * (np.asarray(bias) != 0), **fields)


def graph_of(nodes: list[QNode], shapes: dict[str, tuple[int, int, int]], block: set[str],
             unsigned: bool = False, width: int = 24) -> QGraph:
    """Return the graph of nodes, the last of which makes the output; ``block`` shares one, and what
    copies keep theirs."""
    kept = {node.output: node.input for node in nodes if node.kind == NodeKind.COPY}
    output = nodes[-1].output
    tensors = {name: QTensor(
        name=name, shape=shape, user_shape=shape, bits=16 if name == output else 8,
        exponent=Dynamic(least=EXPONENT_MIN), signed=not (unsigned and name in block),
        block="joint" if name in block else None) for name, shape in shapes.items()}
    needed = {node.name: int(input_minima(node, node.sw, width,
                                          tensors[node.input].format).max()) for node in nodes}
    minima = exponent_minima(list(tensors), nodes, needed, kept)
    tensors = {name: replace(t, exponent=Kept(of=kept[name], least=minima[name]) if name in kept
                             else Dynamic(least=minima[name])) for name, t in tensors.items()}
    return QGraph(tensors=tensors, nodes=tuple(nodes), input="x", output=output, weight_bits=8,
                  activation_bits=8, acc_bits=width)


@st.composite
def joined(draw: st.DrawFn) -> tuple[QGraph, np.ndarray]:
    """Draw two or three branches of one input, a node that reads them together in some order, one
    that reads some of them, and a residual addition of another."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    unsigned = draw(st.booleans())
    names = ["a", "b", "c"][:draw(st.integers(2, 3))]
    nodes, shapes = [], {"x": (2, *SIZE)}
    for name in names:
        rows = 2 if name == "a" else draw(st.integers(1, 3))
        bounds = [Relu(), Clamp(low=0, high=draw(st.sampled_from([0.25, 6.0])))]
        activation = draw(st.sampled_from(bounds if unsigned else [
            *bounds, PLAIN.activation, Clamp(low=-1.5, high=1.5)]))
        nodes.append(linear(name, ("x",), rng.integers(-127, 128, (rows, 2)),
                            draw(st.integers(-14, -2)) + rng.integers(-2, 1, rows),
                            rng.integers(-200, 200, rows),
                            epilogue=Epilogue(activation=activation)))
        shapes[name] = (rows, *SIZE)
    order = tuple(draw(st.permutations(names)))
    channels = sum(shapes[name][0] for name in names)
    nodes.append(linear("d", order, rng.integers(-127, 128, (2, channels)), -7,
                        epilogue=Epilogue(add="a", activation=Relu())))
    some = order[:draw(st.integers(1, len(order)))]
    nodes.append(linear("e", some, rng.integers(
        -127, 128, (2, 4 * sum(shapes[name][0] for name in some))), -8, kernel=(2, 2)))
    nodes.append(linear("y", ("d",), rng.integers(-127, 128, (1, 2)), -6))
    # Everything that is made is read: e goes into the output's sums.
    nodes[-1] = replace(nodes[-1], geometry=Geometry(kernel=(2, 2)), epilogue=Epilogue(add="e"),
                        matrix=csr_array(rng.integers(-127, 128, (2, 8)).astype(np.int16)),
                        weights=16, **{f: np.repeat(getattr(nodes[-1], f), 2)
                                       for f in ("sw", "bias", "sb")})
    shapes |= {"d": (2, *SIZE), "e": (2, 2, 3), "y": (2, 2, 3)}
    graph = graph_of(nodes, shapes, set(names), unsigned, draw(st.sampled_from([24, 32])))
    x = (rng.normal(size=(2, *shapes["x"])) * 2.0 ** draw(st.integers(-6, 4))).astype(np.float32)
    if draw(st.booleans()):
        found = golden.run(graph, x[:1], keep_tensors=False).exponents
        graph = fixed(graph, {name: int(exponents[0]) for name, exponents in found.items()})
    return graph, x


@settings(max_examples=60, deadline=None)
@given(joined())
def test_every_bit_is_the_rule(case: tuple[QGraph, np.ndarray]) -> None:
    graph, x = case
    result = compare(graph, x)
    block = [name for name, tensor in graph.tensors.items() if tensor.block is not None]
    assert len(block) >= 2
    for name in block[1:]:
        assert (result.exponents[name] == result.exponents[block[0]]).all()
    assert (golden.run(graph, x, keep_tensors=False).mantissas["y"] == result.mantissas["y"]).all()


def branches() -> QGraph:
    """Return two branches behind a ReLU, b 2^5 times as large, that y reads together; each has a
    copy of the input, as today's rules of graphs want it."""
    one = np.array([[64]])
    copies = [linear(f"x{k}", ("x",), one, -6, kind=NodeKind.COPY) for k in range(2)]
    relu = Epilogue(activation=Relu())
    nodes = [*copies, linear("a", ("x0",), np.array([[127]]), -7, 37, epilogue=relu),
             linear("b", ("x1",), one, -1, epilogue=relu),
             linear("y", ("a", "b"), np.array([[64, 0], [0, 64]]), -6)]
    shapes = dict.fromkeys(("x", "x0", "x1", "a", "b"), (1, *SIZE)) | {"y": (2, *SIZE)}
    return graph_of(nodes, shapes, {"a", "b"}, unsigned=True)


def test_rounding_twice_would_differ() -> None:
    """a, rounded by itself and then shifted to the exponent that it shares with b, is not a rounded
    once."""
    graph = branches()
    x = np.linspace(0.1, 1.99, 12, dtype=np.float32).reshape(1, 1, *SIZE).repeat(2, 0)
    x[1] *= 0.37
    alone = replace(graph, tensors={name: replace(tensor, block=None)
                                    for name, tensor in graph.tensors.items()})
    once, twice = compare(graph, x), golden.run(alone, x)      # of alone, y means nothing
    distance = once.exponents["a"] - twice.exponents["a"]
    assert (distance == 5).all()
    assert (once.exponents["b"] == twice.exponents["b"]).all()
    shifted = np.rint(np.ldexp(twice.mantissas["a"].astype(float), -5))
    assert np.abs(once.mantissas["a"] - shifted).max() == 1
    assert (once.mantissas["b"] == twice.mantissas["b"]).all()


def check(graph: QGraph) -> None:
    tensors = check_tensors(graph.tensors.values(), ARRAY, input="x", output="y", bits=8,
                            static=False)
    check_nodes(tensors, graph.nodes, ARRAY, input="x", output="y")
    check_weights(graph, ARRAY)


def tensor(name: str, **fields):
    return lambda g: replace(g, tensors=g.tensors | {name: replace(g.tensors[name], **fields)})


def node(at: int, **fields):
    return lambda g: replace(g, nodes=tuple(replace(n, **fields) if k == at else n
                                            for k, n in enumerate(g.nodes)))


def test_a_graph_that_keeps_the_rules() -> None:
    check(branches())
    graph = branches()
    pool = linear("p", ("a", "b"), 64 * np.eye(2), -6, kind=NodeKind.SELECT,
                  epilogue=Epilogue(pool=Pool(window=(1, 2), stride=(1, 2))))
    nodes = (*graph.nodes[:-1], pool, replace(graph.nodes[-1], inputs=("p",)))
    tensors = graph.tensors | {
        "p": replace(graph.tensors["a"], name="p", block=None, shape=(2, 3, 2), user_shape=(12,),
                     exponent=Kept(of="a", least=EXPONENT_MIN)),
        "y": replace(graph.tensors["y"], shape=(2, 3, 2), user_shape=(12,))}
    check(replace(graph, nodes=nodes, tensors=tensors))
    x = np.linspace(-0.5, 1.99, 12, dtype=np.float32).reshape(1, 1, *SIZE)
    result = compare(replace(graph, nodes=nodes, tensors=tensors), x)
    assert (result.mantissas["p"][:, 0] == result.mantissas["a"][:, 0].reshape(1, 3, 2, 2).max(-1)
            ).all()


@pytest.mark.parametrize(("change", "message"), [
    (tensor("a", signed=True), "'b' and 'a' share the block 'joint', and differ in mantissas"),
    (tensor("y", block="joint"), "'y' and 'a' share the block 'joint', and differ in mantissas"),
    (tensor("x", block="joint"), "'x' has its exponent before the others of its block 'joint'"),
    (tensor("x0", block="joint"), "'x0' has its exponent before the others of its block"),
    (lambda g: tensor("a", block="a\nb")(tensor("b", block="a\nb")(g)), "block 'a.*b' must have"),
    (tensor("a", block=None), "'b' is alone in the block 'joint'"),
    (node(4, inputs=("a", "x")), "'y' reads tensors of several blocks"),
    (node(3, inputs=("a",)), "'b' reads 'a' before 'b' is made, which is of the same block"),
    (node(3, epilogue=Epilogue(add="a", activation=Relu())), "'b' reads 'a' before 'b' is made"),
    (node(4, inputs=()), "'y' reads nothing"),
    (node(4, inputs=("a", "z")), "'y' reads 'z', which no node before it makes"),
    (tensor("b", shape=(1, 4, 3), user_shape=(12,)), "'b': its geometry does not lead from")])
def test_what_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(change(branches()))


def test_the_present_array_refuses_it() -> None:
    array = target("ulx3s-85f").array
    signed = branches()
    signed = replace(signed, tensors={name: replace(t, signed=True)
                                      for name, t in signed.tensors.items()})
    with pytest.raises(CompileError, match=r"^y \(conv\): it reads 2 tensors, one behind another, "
                                           r"and a layer of this array one; split its weights"):
        check_graph(signed, array)
    with pytest.raises(CompileError, match=r"^a \(tensor\): it shares the block 'joint' with "
                                           r"others, and on this array every tensor has an exp"):
        check_graph(node(4, inputs=("a",))(signed), array)
