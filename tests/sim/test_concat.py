"""Nodes that read several tensors together: at one exponent, each rounded once from its sums."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from celosia.static_exponents import fixed
from celosia_sim import golden
from celosia_spec.block import Format
from celosia_spec.epilogue import Dynamic, Epilogue, Kept, Pool, Relu
from celosia_spec.faint_rows import raised_lsbs
from celosia_spec.graph_rules import check_nodes, check_tensors, check_weights
from celosia_spec.isa.array import Array
from celosia_spec.isa.numbers import EXPONENT_MIN
from celosia_spec.qgraph import NodeKind, QGraph, QNode
from concats import SIZE, graph_of, joined, linear
from reference import compare

ARRAY = Array(lanes=8)


@settings(max_examples=60, deadline=None)
@given(joined())
def test_every_bit_is_the_rule(case: tuple[QGraph, np.ndarray]) -> None:
    graph, x = case
    result = compare(graph, x)
    for node in graph.nodes:
        if node.rounds:
            largest = np.max([result.exponents[name] for name in node.inputs], axis=0)
            if node.room is not None:
                largest = np.maximum(largest, result.exponents[node.epilogue.add] - node.room)
            assert (result.readings[node.name].exponents == largest.clip(node.least, 15)).all()
    light = golden.run(graph, x, keep_tensors=False)
    assert (light.mantissas["y"] == result.mantissas["y"]).all()
    assert (light.saturated == result.saturated).all()
    assert light.readings == {}


def branches() -> QGraph:
    """Return two branches behind a ReLU, b 2^5 times as large, that y reads together. A pool reads
    a by itself."""
    one = np.array([[64]])
    relu = Epilogue(activation=Relu())
    pool = Epilogue(pool=Pool(window=(1, 2), stride=(1, 1)))
    nodes = [linear("a", ("x",), np.array([[127]]), -7, 37, epilogue=relu),
             linear("p", ("a",), one, -6, kind=NodeKind.SELECT, epilogue=pool),
             linear("b", ("x",), one, -1, epilogue=relu),
             linear("q", ("p",), np.array([[64], [32]]), -6),
             linear("y", ("a", "b"), np.array([[64, 0, 0, 0], [0, 0, 64, 0]]), -6, kernel=(1, 2),
                    epilogue=Epilogue(add="q"))]
    shapes = dict.fromkeys(("x", "a", "b"), (1, *SIZE)) | {
        "p": (1, 3, 3), "q": (2, 3, 3), "y": (2, 3, 3)}
    return graph_of(nodes, shapes, {"a", "b", "p"})


X = np.linspace(0.1, 1.99, 12, dtype=np.float32).reshape(1, 1, *SIZE).repeat(2, 0)
X[1] *= 0.37


def test_rounding_twice_would_differ() -> None:
    """a, rounded at its own exponent and then shifted to that of b, is not a rounded once; and who
    reads a by itself has all its bits."""
    result = compare(branches(), X)
    read = result.readings["y"]
    assert (read.exponents == result.exponents["b"]).all()
    assert (read.exponents - result.exponents["a"] == 5).all()
    shifted = np.rint(np.ldexp(result.mantissas["a"].astype(float), -5))
    assert np.abs(read.mantissas[:, :1] - shifted).max() == 1
    assert (read.mantissas[:, 1:] == result.mantissas["b"]).all()
    assert (result.exponents["p"] == result.exponents["a"]).all()
    a = result.mantissas["a"]
    assert (result.mantissas["p"] == np.maximum(a[..., 1:], a[..., :-1])).all()


def test_what_one_reader_needs_is_no_other_readers_matter() -> None:
    """A large bias of y raises the exponent at which y reads, and no tensor's own."""
    graph = branches()
    y = graph.nodes[-1]
    y = replace(y, bias=y.bias + 20_000, sb=y.sb + 6)
    large = graph_of([*graph.nodes[:-1], y], {name: t.shape for name, t in graph.tensors.items()},
                     {"a", "b", "p"})
    assert large.nodes[-1].least > EXPONENT_MIN
    check(large)
    before, after = compare(graph, X), compare(large, X)
    assert (after.readings["y"].exponents == large.nodes[-1].least).all()
    for name in set(graph.tensors) - {"y"}:
        assert (before.exponents[name] == after.exponents[name]).all()
        assert (before.mantissas[name] == after.mantissas[name]).all()
    with pytest.raises(ValueError, match="'y': the bias of row 0 may leave the accumulator"):
        check(node(4, least=large.nodes[-1].least - 1)(large))


@pytest.mark.parametrize("alone", [False, True])
def test_flags_are_of_what_is_read(alone: bool) -> None:
    """a's own exponent would cut it, that of the reading does not: this harms who reads a alone."""
    graph = branches()
    if not alone:
        keep = [n for n in graph.nodes if n.name not in ("p", "q")]
        keep[-1] = replace(keep[-1], epilogue=Epilogue())
        graph = graph_of(keep, {name: t.shape for name, t in graph.tensors.items()
                                if name not in ("p", "q")}, {"a", "b"})
    dynamic = compare(graph, X)
    found = {name: int(exponents[0]) for name, exponents in dynamic.exponents.items()}
    result = compare(fixed(graph, found | {"a": found["a"] - 2, "b": found["b"] + 1}), X)
    assert result.saturated.tolist() == [alone, alone]
    read = result.readings["y"]
    assert (read.exponents == found["b"] + 1).all()
    assert result.mantissas["a"][0].max() == 255 > read.mantissas[0, 0].max()


def check(graph: QGraph) -> None:
    tensors = check_tensors(graph.tensors.values(), input="x", output="y", bits=8,
                            static=False)
    check_nodes(tensors, graph.nodes, ARRAY, input="x", output="y")
    check_weights(graph)


def tensor(name: str, **fields):
    return lambda g: replace(g, tensors=g.tensors | {name: replace(g.tensors[name], **fields)})


def node(at: int, **fields):
    return lambda g: replace(g, nodes=tuple(replace(n, **fields) if k == at else n
                                            for k, n in enumerate(g.nodes)))


def test_a_graph_that_keeps_the_rules() -> None:
    check(branches())
    check(tensor("b", exponent=Dynamic(least=-3))(branches()))


def test_choosing_from_several_tensors_rounds_nothing() -> None:
    """Without keeping an exponent: the largest value needs none above that of the reading."""
    graph = branches()
    pool = linear("p", ("a", "b"), 64 * np.eye(2), -6, kind=NodeKind.CONV,
                  epilogue=Epilogue(pool=Pool(window=(1, 2), stride=(1, 2)), activation=Relu()))
    y = linear("y", ("p",), 64 * np.eye(2), -6)
    kept = [n for n in graph.nodes if n.name not in ("p", "q", "y")]
    shapes = {name: t.shape for name, t in graph.tensors.items() if name != "q"}
    graph = graph_of([*kept, pool, y], shapes | {"p": (2, 3, 2), "y": (2, 3, 2)}, {"a", "b", "p"})
    check(graph)
    result = compare(graph, X)
    read = result.readings["p"]
    largest = read.mantissas.reshape(2, 2, 3, 2, 2).max(-1)
    shift = read.exponents - result.exponents["p"]
    assert (shift >= 0).all()
    assert (result.mantissas["p"] == largest << shift[:, None, None, None]).all()


@pytest.mark.parametrize(("change", "message"), [
    (tensor("b", signed=True), "'y' reads 'a' and 'b' together, and only one of them has a sign"),
    (node(4, inputs=("a", "x")), "'y' reads other tensors together with the input 'x', which the "
                                 "host has rounded already"),
    (tensor("y", exponent=Kept(of="a", least=EXPONENT_MIN)),
     "'y' keeps exponents, and reads several tensors, each with its own"),
    (node(4, least=-17), "'y': least exponent must be -16 to 15, not -17"),
    (node(4, least=16), "'y': least exponent must be -16 to 15, not 16"),
    (node(3, least=-15), "'q': least exponent must be -16 to -16, not -15"),
    (node(4, inputs=()), "'y' reads nothing"),
    (node(4, inputs=("a", "z")), "'y' reads 'z', which no node before it makes"),
    (node(4, inputs=("a", "a")), "every other tensor be read"),
    (node(4, inputs=("a", "p")), "'y' reads maps of several sizes together"),
    (tensor("b", shape=(1, 4, 3), user_shape=(12,)), "'b': its geometry does not lead from")])
def test_what_is_refused(change, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(change(branches()))


def test_faint_rows_are_raised_for_the_reading() -> None:
    """A row that needs a coarser input than is expected of the largest tensor is raised; one that
    needs no more than that is not, though it is more than is expected of the other."""
    rows = np.array([[64, 0], [0, 64], [64, 64]])
    reads = linear("y", ("a", "b"), rows, np.array([-6, -6, -16]), np.array([0, 0, 16_000]))
    by_itself = linear("y", ("a",), rows[:, :1], reads.sw, reads.bias)
    formats = dict.fromkeys(("a", "b", "y"), Format(bits=8))

    def raised(node: QNode, **expected: int) -> int:
        found = raised_lsbs([node], {"y": 0} | expected, 24, formats, ())["y"] - node.sw
        assert found[:2].tolist() == [0, 0]
        return int(found[2])

    assert raised(reads, a=-12, b=-12) == raised(by_itself, a=-12) > 0
    assert raised(reads, a=-12, b=0) == raised(by_itself, a=0) == 0
