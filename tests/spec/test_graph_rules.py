"""What a quantised graph of tensors without a sign must keep."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from celosia_spec.epilogue import Clamp, Dynamic, Epilogue, Kept, Relu, Static
from celosia_spec.graph_rules import check_nodes, check_tensors, check_weights
from celosia_spec.isa.array import Array
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor, static_exponent

ARRAY = Array(lanes=8)


def tensor(name: str, bits: int = 8, signed: bool = False, **fields) -> QTensor:
    rule = fields.pop("exponent", Dynamic(least=-16))
    return QTensor(name=name, shape=(1, 2, 2), user_shape=(1, 2, 2), bits=bits, exponent=rule,
                   signed=signed)


def node(name: str, source: str, result: str, weight: int = 64, sw: int = -6, **fields) -> QNode:
    zeros = np.zeros(1, np.int64)
    return QNode(name=name, kind=fields.pop("kind", NodeKind.CONV), inputs=(source,), output=result,
                 matrix=csr_array(np.array([[weight]], np.int16)), weights=1,
                 geometry=Geometry(kernel=(1, 1)), sw=zeros + sw, bias=zeros, sb=zeros + sw,
                 **fields)


def graph() -> QGraph:
    """Return x without a sign, a behind a ReLU, s that chooses from a, and the output y."""
    tensors = (tensor("x"), tensor("a"), tensor("s", exponent=Kept(of="a", least=-16)),
               tensor("y", bits=16, signed=True))
    nodes = (node("one", "x", "a", weight=-64, epilogue=Epilogue(activation=Relu())),
             node("two", "a", "s", kind=NodeKind.SELECT), node("three", "s", "y"))
    return QGraph(tensors={t.name: t for t in tensors}, nodes=nodes, input="x", output="y",
                  weight_bits=8, activation_bits=8, acc_bits=24)


def check(found: QGraph) -> None:
    tensors = check_tensors(found.tensors.values(), input=found.input, output=found.output,
                            bits=8, static=False)
    check_nodes(tensors, found.nodes, ARRAY, input=found.input, output=found.output)
    check_weights(found)


def with_tensor(name: str, **fields) -> Callable[[QGraph], QGraph]:
    return lambda g: replace(g, tensors=g.tensors | {name: replace(g.tensors[name], **fields)})


def with_node(at: int, **fields) -> Callable[[QGraph], QGraph]:
    return lambda g: replace(g, nodes=tuple(
        replace(n, **fields) if k == at else n for k, n in enumerate(g.nodes)))


def test_circles_of_kept_exponents_are_refused() -> None:
    kept = tensor("s", exponent=Kept(of="s", least=-16))
    with pytest.raises(ValueError, match="'s' keeps the exponent of tensors that keep its own"):
        static_exponent({"x": tensor("x"), "s": kept}, "s")
    assert static_exponent({"x": tensor("x", exponent=Static(value=3, least=-16)),
                            "s": tensor("s", exponent=Kept(of="x", least=-16))}, "s") == 3


def test_a_graph_that_keeps_the_rules() -> None:
    check(graph())
    check(with_node(0, epilogue=Epilogue(activation=Clamp(low=0, high=255 / 128)))(graph()))
    check(with_tensor("a", raised=(31,))(graph()))
    parts = csr_array(np.array([[-64, 0]], np.int16))
    check(with_node(0, matrix=parts)(with_tensor("x", low=7, shape=(2, 2, 2))(graph())))


@pytest.mark.parametrize(("change", "message"), [
    (with_tensor("y", signed=False), "'y': the output's mantissas have a sign"),
    (with_node(0, epilogue=Epilogue()), "'one' may give numbers below 0, and the mantissas of 'a' "
                                        "have no sign"),
    (with_node(0, epilogue=Epilogue(activation=Clamp(low=-1, high=1))),
     "'one' may give numbers below 0"),
    (with_tensor("a", signed=True), "'two' may give numbers below 0"),
    (with_tensor("s", signed=True), "'two' keeps exponents, but 's' has a sign and 'a' has none"),
    (with_node(0, epilogue=Epilogue(activation=Clamp(low=0, high=511 / 256))),
     "'one' clamps to 1.99609, which is no mantissa of 8 bits"),
    (with_tensor("x", low=8, shape=(2, 2, 2)), "'x': bits of low parts must be 0 to 7, not 8"),
    (with_tensor("a", low=1, shape=(2, 2, 2)), "'a': bits of low parts must be 0 to 0, not 1"),
    (with_tensor("x", low=7), "'x': 1 channels are no high and low parts"),
    (with_tensor("x", low=7, shape=(2, 2, 2), user_shape=(2, 2, 2)),
     re.escape("'x': user_shape (2, 2, 2) is not a shape of (1, 2, 2)")),
    (with_tensor("a", raised=(32,)), "'a': bits of raised channels must be 0 to 31, not 32"),
    (with_tensor("a", raised=(1, 1)), "'a': 2 channels raised, there are 1"),
    (with_node(2, sw=np.array([-32]), sb=np.array([-32])),
     "'three': the unit of row 0's sums may be too small, 's' may have exponents of -16")])
def test_what_is_refused(change: Callable[[QGraph], QGraph], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(change(graph()))


@pytest.mark.parametrize(("plus", "minus", "fits"), [
    (129, 0, True), (0, 129, True), (129, 129, True), (130, 0, False), (129, 130, False)])
def test_sums_of_an_input_without_a_sign(plus: int, minus: int, fits: bool) -> None:
    """129 weights of one sign reach 129 * 127 * 255 = 4,177,665 of 2^22 - 1; those of the other
    sign add nothing to it."""
    row = np.array([[127] * plus + [-127] * minus], np.int16)
    wide = replace(tensor("x"), shape=(row.size, 1, 1), user_shape=(row.size,))
    out = replace(tensor("y", bits=16, signed=True), shape=(1, 1, 1), user_shape=(1,))
    only = replace(node("one", "x", "y"), matrix=csr_array(row), weights=row.size)
    found = QGraph(tensors={"x": wide, "y": out}, nodes=(only,), input="x", output="y",
                   weight_bits=8, activation_bits=8, acc_bits=24)
    if fits:
        check(found)
    else:
        with pytest.raises(ValueError, match="the sums of row 0 may leave a 24-bit accumulator"):
            check(found)
