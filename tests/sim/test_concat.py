"""Nodes that read several tensors together: one exponent, found before any of them is rounded."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from celosia.schedule.check import check_graph
from celosia_boards.targets import target
from celosia_sim import golden
from celosia_spec.epilogue import Epilogue, Kept, Pool, Relu
from celosia_spec.errors import CompileError
from celosia_spec.graph_rules import check_nodes, check_tensors, check_weights
from celosia_spec.isa import EXPONENT_MIN, ArrayConfig
from celosia_spec.qgraph import NodeKind, QGraph
from concats import SIZE, graph_of, joined, linear
from reference import compare

ARRAY = ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2)
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
