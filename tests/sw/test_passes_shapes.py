"""Flattening, inputs that are vectors, and padding move into the layers beside them."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    Leaky,
    MaxPool,
    Node,
    Pad,
    Reshape,
)
from celosia.passes import optimise
from celosia.passes.fold_flatten import fold_flatten
from celosia.passes.fold_padding import fold_padding
from celosia.passes.lift_moves import lift_moves
from celosia.passes.vector_input import vector_input
from celosia_spec.epilogue import Clamp, Epilogue, Pool
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import NodeKind
from graphs import POOL, RNG, conv, graph_of, names, norm, relu, same


def test_flatten_becomes_a_kernel_of_the_whole_map() -> None:
    before = graph_of(conv("a", "x", 3, 4, (3, 2)), Reshape(name="f", input="a", shape=(60, 1, 1)),
                      relu("r", "f"), Add(name="s", left="r", right="f"),
                      conv("fc", "s", 5, 60, kind=NodeKind.LINEAR),
                      Reshape(name="again", input="fc", shape=(5, 1, 1)))
    after = same(before, fold_flatten(before))
    assert names(after) == ["a", "r", "s", "fc"]
    assert after.nodes[-1].weight.shape == (5, 3, 4, 5)
    assert after.output == "fc"


def test_a_layer_that_reads_the_whole_input_reads_a_vector() -> None:
    before = graph_of(conv("a", "x", 3, 4, (6, 6), stride=(2, 3)), relu("r", "a"))
    after = same(before, vector_input(before))
    assert after.input_map == after.nodes[0].weight.shape[1:] == (144, 1, 1)
    assert names(after) == ["a", "r"]


@pytest.mark.parametrize("nodes", [
    [conv("a", "x", 3, 4, (6, 5))],
    [conv("a", "x", 4, 1, (6, 6), groups=4)],
    [conv("a", "x", 3, 4, (6, 6), padding=(1, 1, 0, 0))],
    [conv("a", "x", 3, 4, (7, 6), padding=(1, 0, 0, 0))],
    [relu("r", "x"), conv("a", "r", 3, 4, (6, 6))],
    [conv("a", "x", 3, 4, (6, 6)), conv("b", "x", 3, 4, (6, 6)),
     Add(name="s", left="a", right="b")],
    [conv("a", "x", 4, 4), conv("b", "a", 4, 4, epilogue=Epilogue(add="x"))],
])
def test_an_input_that_is_read_otherwise_stays_a_map(nodes: list[Node]) -> None:
    graph = graph_of(*nodes)
    assert vector_input(graph) is graph


def test_a_picture_that_is_flattened_first_becomes_a_vector() -> None:
    """Whatever constants of a channel stand before the flattening."""
    before = graph_of(norm("n", "x"), Reshape(name="f", input="n", shape=(144, 1, 1)),
                      conv("fc", "f", 5, 144, kind=NodeKind.LINEAR), relu("r", "fc"))
    before = replace(before, nodes=(
        replace(before.nodes[0], scale=np.array([1.0, -1.5, 0.8, 1.2])), *before.nodes[1:]))
    after = same(before, optimise(before))
    assert names(after) == ["fc"]
    assert after.input_map == (144, 1, 1)
    assert after.input_shape == (4, 6, 6)


def test_a_normalised_picture_may_be_padded_and_flattened() -> None:
    for shift in (0.0, 1.0):
        before = graph_of(norm("n", "x"), Pad(name="p", input="n", padding=(0, 1, 1, 0)),
                          Reshape(name="f", input="p", shape=(196, 1, 1)),
                          conv("fc", "f", 5, 196, kind=NodeKind.LINEAR))
        before = replace(before, nodes=(
            replace(before.nodes[0], scale=np.array([1.0, -1.5, 0.8, 1.2]),
                    shift=shift * RNG(1).normal(size=4)), *before.nodes[1:]))
        after = same(before, optimise(before))
        assert names(after) == (["n", "fc"] if shift else ["fc"])


def test_a_flattened_output_stays_a_map_inside() -> None:
    before = graph_of(conv("a", "x", 3, 4), Reshape(name="f", input="a", shape=(108, 1, 1)))
    after = same(before, fold_flatten(before))
    assert after.output == "a"
    assert after.output_shape == (108, 1, 1)


def test_a_vector_input_may_become_a_map() -> None:
    before = replace(graph_of(Reshape(name="map", input="x", shape=(4, 6, 6)),
                              conv("a", "map", 2, 4, (3, 3)), shape=(144, 1, 1)),
                     input_shape=(144,))
    after = same(before, fold_flatten(before))
    assert after.input_map == (4, 6, 6)
    assert names(after) == ["a"]


def test_a_vector_input_that_is_read_as_such_stays_one() -> None:
    graph = replace(graph_of(Reshape(name="map", input="x", shape=(4, 6, 6)),
                             conv("a", "map", 2, 4, (6, 6)), conv("fc", "x", 2, 144),
                             Add(name="s", left="a", right="fc"), shape=(144, 1, 1)),
                    input_shape=(144,))
    after = fold_flatten(graph)
    assert after.input_map == (144, 1, 1)
    assert [node.name for node in after.nodes if isinstance(node, Reshape)] == ["map"]
    copy, *others = optimise(graph).nodes
    assert copy.keeps and copy.map == (4, 6, 6) and [node.map for node in others] == [None, None]


@pytest.mark.parametrize(("nodes", "message"), [
    ([Reshape(name="f", input="x", shape=(144, 1, 1)),
      Leaky(name="n", input="f", slope=np.arange(144) / 144)],
     r"^n \(leaky_relu\): works on a flattened map of shape \(4, 6, 6\), otherwise from place to "
     r"place; put it before the flattening, or let one linear layer alone read it$"),
    ([conv("c", "x", 115, 4), Reshape(name="f", input="c", shape=(4140, 1, 1)),
      norm("n", "f", 4140)],
     r"^n \(batch_norm\): it has numbers for each of 4,140 elements of a map of shape "
     r"\(115, 6, 6\), and of a layer with weights for each place 4,096 elements are made at most; "
     r"use one number for each channel, or give the network those that it adds as a second input$"),
    ([Reshape(name="f", input="x", shape=(144, 1, 1)), conv("fc", "f", 144, 144),
      Add(name="s", left="fc", right="f")],
     r"^s \(add\): adds flattened tensors of the shapes \(144, 1, 1\) and \(4, 6, 6\); let a "),
    ([Reshape(name="f", input="x", shape=(144, 1, 1)), conv("a", "f", 144, 1, groups=144)],
     r"^a \(conv2d\): convolves a flattened map of shape \(4, 6, 6\); use a linear layer"),
])
def test_flattening_that_cannot_be_folded(nodes: list, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        fold_flatten(graph_of(*nodes))


def test_padding_moves_into_its_readers() -> None:
    before = graph_of(Pad(name="p", input="x", padding=(1, 0, 2, 1)),
                      Pad(name="q", input="p", padding=(0, 1, 0, 0)),
                      conv("a", "q", 2, 4, (3, 3), padding=(1, 1, 1, 1)),
                      AvgPool(name="m", input="p", window=(3, 1), stride=(1, 1), divisor=3),
                      conv("b", "m", 2, 4, (1, 1), padding=(1, 0, 1, 1)),
                      Add(name="s", left="a", right="b"))
    after = same(before, fold_padding(before))
    assert names(after) == ["a", "m", "b", "s"]
    assert after.nodes[0].padding == (2, 2, 3, 2)


@pytest.mark.parametrize("last", [
    [], [relu("r", "p")], [MaxPool(name="m", input="p", pool=POOL)],
    [relu("r", "p"), conv("a", "p", 2, 4), MaxPool(name="m", input="r", pool=POOL)],
    [Reshape(name="f", input="p", shape=(256, 1, 1))],
    [conv("a", "x", 4, 4, (3, 3), padding=(2, 2, 2, 2)), Add(name="s", left="a", right="p")],
])
def test_padding_before_anything_else_is_a_move(last) -> None:
    before = graph_of(Pad(name="p", input="x", padding=(1, 1, 1, 1)), *last)
    assert not any(isinstance(node, Pad) for node in lift_moves(before).nodes)
    same(before, optimise(before))


@pytest.mark.parametrize(("nodes", "zeros"), [
    ([], False), ([relu("b", "x")], True),
    ([Activate(name="b", input="x", activation=Clamp(low=-1.0, high=1.0))], False),
    ([relu("a", "x"), AvgPool(name="b", input="a", window=(2, 2), stride=(1, 1), divisor=4)], True),
    ([relu("a", "x"), norm("b", "a")], False), ([relu("a", "x"), conv("b", "a", 3, 4)], False),
    ([relu("a", "x"), relu("c", "x"), Add(name="b", left="a", right="c")], True),
    ([relu("a", "x"), MaxPool(name="b", input="a", pool=POOL)], True),
])
def test_max_pools_are_padded_with_zeros_where_these_are_not_the_largest(nodes, zeros) -> None:
    """Else with what stands at the edge."""
    pool = MaxPool(name="p", input=nodes[-1].name if nodes else "x", padding=(1, 0, 0, 1),
                   pool=Pool(window=(2, 2), stride=(1, 2)))
    before = graph_of(*nodes, pool)
    made = same(before, optimise(before)).nodes
    assert any(any(node.padding) for node in made) == zeros
    assert any(any(node.border) for node in made) != zeros
    behind = graph_of(*nodes, pool, MaxPool(name="q", input="p", pool=POOL), relu("z", "q"))
    same(behind, optimise(behind))
