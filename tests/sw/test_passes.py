"""Each pass, against a float interpreter of the graph that knows no fusion."""

import math
from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Curve,
    Graph,
    Leaky,
    MaxPool,
    Node,
    Pad,
    Reshape,
)
from celosia.graph_rules import verify
from celosia.graph_text import dump
from celosia.passes import PASSES, optimise
from celosia.passes.average_to_linear import average_to_linear
from celosia.passes.fold_batchnorm import fold_batchnorm
from celosia.passes.fold_flatten import fold_flatten
from celosia.passes.fold_forward import fold_forward
from celosia.passes.fold_padding import fold_padding
from celosia.passes.fuse_epilogue import fuse_epilogue
from celosia.passes.lift_moves import lift_moves
from celosia.passes.part_pools import part_pools
from celosia.passes.select_nodes import select_nodes
from celosia.passes.vector_input import vector_input
from celosia.pieces import Pieces
from celosia_spec.epilogue import Clamp, Epilogue, Identity, Pool, Relu
from celosia_spec.errors import ArgumentError, CompileError
from celosia_spec.qgraph import NodeKind
from float_graph import interpret

RNG = np.random.default_rng
POOL = Pool(window=(2, 2), stride=(2, 2))
RELU = Epilogue(activation=Relu())


def relu(name: str, source: str) -> Activate:
    return Activate(name=name, input=source, activation=Relu())


def conv(name: str, source: str, rows: int, own: int, kernel: tuple[int, int] = (1, 1),
         **fields) -> Conv:
    rng = RNG(sum(map(ord, name)))
    return Conv(name=name, input=source, weight=rng.normal(size=(rows, own, *kernel)),
                bias=rng.normal(size=rows), **fields)


def graph_of(*nodes, shape: tuple[int, int, int] = (4, 6, 6), output: str | None = None) -> Graph:
    draft = Graph(nodes=nodes, input="x", input_map=shape, input_shape=shape,
                  output=output or nodes[-1].name, output_shape=())
    return verify(replace(draft, output_shape=draft.shapes[draft.output]))


def same(before: Graph, after: Graph) -> Graph:
    """Assert that both graphs compute the same; return the second."""
    verify(after)
    assert (after.input_shape, after.output_shape) == (before.input_shape, before.output_shape)
    for seed in range(3):
        x = RNG(seed).normal(size=before.input_map)
        np.testing.assert_allclose(interpret(after, x), interpret(before, x), rtol=1e-9,
                                   atol=1e-12)
    return after


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.nodes]


def norm(name: str, source: str, channels: int = 4) -> BatchNorm:
    rng = RNG(7)
    return BatchNorm(name=name, input=source, scale=rng.normal(size=channels),
                     shift=rng.normal(size=channels))


def test_batchnorm_folds_into_the_layer_before() -> None:
    before = graph_of(replace(conv("a", "x", 4, 2, (3, 3), groups=2), bias=None), norm("n", "a"),
                      conv("b", "n", 3, 4), norm("m", "b", 3), norm("l", "m", 3))
    after = same(before, fold_batchnorm(before))
    assert names(after) == ["a", "b"]
    assert after.output == "b"
    assert (after.nodes[0].weight == before.nodes[0].weight
            * before.nodes[1].scale[:, None, None, None]).all()


def near(name: str, source: str, channels: int = 4, shift: bool = True) -> BatchNorm:
    """A BatchNorm whose scales differ by less than 2."""
    rng = RNG(8)
    return BatchNorm(name=name, input=source, scale=rng.uniform(1, 1.9, channels),
                     shift=rng.normal(size=channels) * shift)


FORWARD = {     # nodes; the names that are left
    "alone": ([near("n", "x"), conv("a", "n", 3, 4, (3, 3))], ["a"]),
    "two": ([near("m", "x"), near("n", "m"), conv("a", "n", 3, 4)], ["a"]),
    "grouped": ([near("n", "x"), conv("a", "n", 6, 2, (3, 2), groups=2, stride=(2, 1))], ["a"]),
    "without bias": ([near("n", "x"), replace(conv("a", "n", 3, 4), bias=None)], ["a"]),
    "behind ReLU": ([relu("r", "x"), near("n", "r"), conv("a", "n", 3, 4)], ["r", "a"]),
    "scale in front of zeros": ([near("n", "x", shift=False), Pad(name="p", input="n", padding=(
        1, 0, 2, 1)), conv("a", "p", 3, 4, (3, 3), padding=(1, 1, 1, 1))], ["p", "a"]),
    "flattened behind": ([near("n", "x"), Reshape(name="f", input="n", shape=(144, 1, 1)),
                          conv("fc", "f", 5, 144, kind=NodeKind.LINEAR)], ["f", "fc"]),
    "by place, flattened": ([relu("r", "x"), Reshape(name="f", input="r",
                                                                shape=(144, 1, 1)),
                             norm("n", "f", 144), conv("fc", "n", 5, 144, kind=NodeKind.LINEAR)],
                            ["r", "f", "fc"]),
    "zero scales": ([BatchNorm(name="n", input="x", scale=np.zeros(4), shift=np.ones(4)),
                     conv("a", "n", 3, 4)], ["a"]),
}


@pytest.mark.parametrize("name", FORWARD)
def test_batchnorm_in_front_folds_into_the_layer_behind(name: str) -> None:
    nodes, left = FORWARD[name]
    before = graph_of(*nodes)
    assert names(same(before, fold_forward(before))) == left
    if name != "by place, flattened":
        same(before, optimise(before))


STAYS = {
    "shift in front of zeros": [near("n", "x"), conv("a", "n", 3, 4, (3, 3),
                                                     padding=(1, 1, 1, 1))],
    "shift in front of a pad": [near("n", "x"), Pad(name="p", input="n", padding=(1, 0, 0, 0)),
                                conv("a", "p", 3, 4, (3, 3))],
    "scales far apart": [BatchNorm(name="n", input="x", scale=np.array([1.0, 2.1, 1.0, 1.0]),
                                   shift=np.zeros(4)), conv("a", "n", 3, 4)],
    "behind a layer": [conv("a", "x", 4, 4), near("n", "a"), conv("b", "n", 3, 4)],
    "read twice": [near("n", "x"), conv("a", "n", 4, 4), Add(name="s", left="a", right="n")],
    "the output": [near("n", "x")],
    "in front of ReLU": [near("n", "x"), relu("r", "n"), conv("a", "r", 3, 4)],
}


@pytest.mark.parametrize("name", STAYS)
def test_batchnorm_that_stays_where_it_is(name: str) -> None:
    before = graph_of(*STAYS[name])
    assert names(fold_forward(before)) == names(before)
    same(before, optimise(before))


def test_batchnorm_on_a_flattened_map_works_by_channel() -> None:
    flat = np.repeat(RNG(3).normal(size=4), 36)
    before = graph_of(relu("r", "x"), Reshape(name="f", input="r", shape=(144, 1, 1)),
                      BatchNorm(name="n", input="f", scale=flat, shift=flat + 1),
                      relu("s", "n"), conv("fc", "s", 5, 144, kind=NodeKind.LINEAR))
    assert names(same(before, optimise(before))) == ["r", "n", "fc"]


def test_the_output_may_be_reshaped_unless_it_is_read() -> None:
    reshape = Reshape(name="f", input="a", shape=(12, 3, 3))
    before = graph_of(conv("a", "x", 3, 4), reshape)
    assert names(same(before, fold_flatten(before))) == ["a"]
    before = graph_of(conv("a", "x", 3, 4), reshape, relu("r", "f"), output="f")
    after = same(before, fold_flatten(before))
    assert [type(node).__name__ for node in after.nodes] == ["Conv", "Move", "Activate"]
    assert after.output == "f"


@pytest.mark.parametrize(("shape", "window", "stride", "sizes"), [
    ((2, 6, 6), (5, 6), (5, 6), [6, 5]), ((2, 8, 9), (7, 6), (1, 2), [6, 7]),
    ((2, 12, 70), (12, 70), (12, 70), [14, 5, 12]), ((1, 1, 74), (1, 37), (1, 37), [37]),
    ((2, 10, 8), (5, 8), (2, 1), [8, 5]), ((1, 9, 40), (1, 33), (3, 1), [33, 1]),
])
def test_large_pools_are_parted(shape, window, stride, sizes) -> None:
    before = graph_of(MaxPool(name="p", input="x", pool=Pool(window=window, stride=stride)),
                      relu("r", "p"), shape=shape)
    after = same(before, part_pools(before))
    assert [math.prod(node.pool.window) for node in after.nodes[:-1]] == sizes
    assert after.nodes[-2].name == "p"


def test_batchnorm_alone_is_a_depthwise_layer() -> None:
    before = graph_of(norm("first", "x"), conv("a", "first", 4, 4), norm("shared", "a"),
                      Add(name="s", left="shared", right="a"))
    after = same(before, fold_batchnorm(before))
    assert names(after) == ["first", "a", "shared", "s"]
    assert [getattr(node, "groups", None) for node in after.nodes] == [4, 1, 4, None]


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


def test_average_pooling_is_a_depthwise_constant() -> None:
    before = graph_of(AvgPool(name="m", input="x", window=(3, 2), stride=(1, 2), divisor=5,
                              padding=(1, 1, 0, 1)))
    after = same(before, average_to_linear(before))
    assert (after.nodes[0].kind, after.nodes[0].groups) == ("average", 4)
    assert np.unique(after.nodes[0].weight).tolist() == [0.2]


def test_an_addition_goes_to_the_last_linear_node() -> None:
    before = graph_of(conv("a", "x", 4, 4), conv("b", "x", 4, 4),
                      Add(name="s", left="b", right="a"))
    after = same(before, fuse_epilogue(before))
    assert [(n.name, n.epilogue.add) for n in after.nodes] == [("a", None), ("b", "a")]


def test_an_addition_waits_for_its_other_operand() -> None:
    before = graph_of(conv("a", "x", 4, 4), conv("b", "x", 4, 4), relu("r", "b"),
                      Add(name="s", left="a", right="r"), relu("end", "s"))
    after = same(before, fuse_epilogue(before))
    assert [(n.name, n.epilogue) for n in after.nodes] == [
        ("b", RELU), ("a", replace(RELU, add="b"))]


def test_additions_without_a_free_linear_node_get_one() -> None:
    before = graph_of(conv("a", "x", 4, 4), Add(name="twice", left="a", right="a"),
                      Add(name="s", left="x", right="twice"), Add(name="t", left="a", right="s"))
    after = same(before, fuse_epilogue(before))
    assert [(n.name, n.input, n.epilogue.add) for n in after.nodes] == [
        ("a", "x", None), ("twice", "a", "a"), ("s", "twice", "x"), ("t", "s", "a")]
    assert {node.kind for node in after.nodes} == {"conv"}
    clamped = graph_of(conv("a", "x", 4, 4, epilogue=RELU), Add(name="s", left="x", right="a"))
    assert names(same(clamped, fuse_epilogue(clamped))) == ["a", "s"]


def test_relu_is_fused_before_and_behind_a_max_pool() -> None:
    for order in ([relu("r", "a"), MaxPool(name="p", input="r", pool=POOL)],
                  [MaxPool(name="p", input="a", pool=POOL), relu("r", "p")]):
        before = graph_of(conv("a", "x", 3, 4), *order, conv("b", order[-1].name, 2, 3))
        after = same(before, fuse_epilogue(before))
        assert names(after) == ["a", "b"]
        assert after.nodes[0].epilogue == replace(RELU, pool=POOL)


def test_shared_sums_are_not_clamped() -> None:
    before = graph_of(conv("a", "x", 4, 4), relu("r", "a"),
                      Add(name="s", left="a", right="r"))
    assert names(same(before, fuse_epilogue(before))) == ["a", "r", "s"]
    ends = graph_of(conv("a", "x", 4, 4), relu("r", "a"), output="a")
    assert names(fuse_epilogue(ends)) == ["a", "r"]


def test_clamps_in_a_row_are_one_and_one_that_stands_alone_rounds() -> None:
    six, two = Clamp(low=0.0, high=6.0), Clamp(low=-2.0, high=2.0)
    before = graph_of(conv("a", "x", 4, 4), Activate(name="s", input="a", activation=six),
                      Activate(name="t", input="s", activation=two),
                      MaxPool(name="p", input="x", pool=POOL),
                      Activate(name="u", input="p", activation=two), relu("r", "u"),
                      conv("b", "r", 4, 4), conv("c", "t", 4, 4, (3, 3), stride=(2, 2),
                                                 padding=(1, 1, 1, 1)),
                      Add(name="sum", left="b", right="c"))
    after = same(before, select_nodes(fuse_epilogue(before)))
    both = Clamp(low=0.0, high=2.0)
    assert [(n.name, n.kind, n.epilogue.activation) for n in after.nodes] == [
        ("a", "conv", both), ("p", "conv", both), ("b", "conv", Identity()),
        ("c", "conv", Identity())]
    assert " clamp 0 ... 2" in dump(after)


@pytest.mark.parametrize("pool", [Pool(window=(3, 3), stride=(2, 3)),
                                  Pool(window=(2, 3), stride=(2, 2))])
def test_overlapping_pools_stand_alone(pool: Pool) -> None:
    before = graph_of(conv("a", "x", 3, 4), MaxPool(name="p", input="a", pool=pool))
    assert names(same(before, fuse_epilogue(before))) == ["a", "p"]


def test_pools_behind_a_residual_or_a_pool_stand_alone() -> None:
    before = graph_of(conv("a", "x", 4, 4, epilogue=Epilogue(add="x")),
                      MaxPool(name="p", input="a", pool=POOL), conv("b", "p", 4, 4),
                      MaxPool(name="q", input="b", pool=Pool(window=(1, 3), stride=(1, 3))),
                      MaxPool(name="r", input="q", pool=Pool(window=(3, 1), stride=(3, 1))))
    assert names(same(before, fuse_epilogue(before))) == ["a", "p", "b", "r"]


def test_what_stands_alone_is_selected() -> None:
    before = graph_of(relu("r", "x"), MaxPool(name="p", input="r", pool=POOL),
                      MaxPool(name="q", input="x", pool=POOL), relu("s", "q"),
                      Add(name="t", left="p", right="s"))
    after = same(before, select_nodes(fuse_epilogue(before)))
    both = replace(RELU, pool=POOL)
    assert [(n.name, n.kind, n.epilogue) for n in after.nodes] == [
        ("r", "select", both), ("q", "select", both), ("t", "conv", Epilogue(add="r"))]


def test_a_select_node_with_two_readers_is_not_changed() -> None:
    before = graph_of(MaxPool(name="p", input="x", pool=POOL), relu("r", "p"),
                      conv("a", "p", 4, 4, epilogue=Epilogue(add="r")))
    after = same(before, optimise(before))
    assert [(n.name, n.epilogue) for n in after.nodes] == [
        ("p", Epilogue(pool=POOL)), ("r", RELU), ("a", Epilogue(add="r"))]


def test_a_network_of_nothing_copies_its_input() -> None:
    before = graph_of(Reshape(name="f", input="x", shape=(144, 1, 1)))
    after = same(before, optimise(before))
    assert [(n.name, n.kind) for n in after.nodes] == [("x.copy", "select")]


def everything() -> Graph:
    return graph_of(
        Pad(name="pad", input="x", padding=(0, 1, 1, 0)), conv("a", "pad", 4, 4, (2, 2)),
        norm("an", "a"), relu("ar", "an"), conv("b", "ar", 4, 2, (3, 3), groups=2,
                                                           padding=(1, 1, 1, 1)),
        norm("bn", "b"), Add(name="s", left="ar", right="bn"), relu("sr", "s"),
        MaxPool(name="p", input="sr", pool=POOL), norm("pn", "p"),
        AvgPool(name="m", input="pn", window=(2, 2), stride=(1, 1), divisor=4),
        Reshape(name="f", input="m", shape=(16, 1, 1)), relu("fr", "f"),
        conv("fc", "fr", 3, 16, kind=NodeKind.LINEAR))


def test_the_passes_together() -> None:
    before = everything()
    after = same(before, optimise(before))
    assert all(isinstance(node, Conv) for node in after.nodes)
    assert [(n.name, n.kind) for n in after.nodes] == [
        ("a", "conv"), ("b", "conv"), ("p", "select"), ("pn", "conv"), ("m", "average"),
        ("fc", "linear")]
    again = optimise(after)
    assert dump(again) == dump(after)


def test_passes_leave_their_input_alone() -> None:
    before = everything()
    text = dump(before)
    optimise(before)
    assert dump(before) == text


def test_the_dump_shows_every_node(capsys: pytest.CaptureFixture[str]) -> None:
    optimise(everything(), dump_after="fuse_epilogue")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == """# after fuse_epilogue
x: 4x6x6 = input
a: 4x6x6 = conv(x) weight 4x4x2x2 nonzeros 64 padding (0, 1, 1, 0) bias relu
b: 4x6x6 = conv(a, a) weight 4x2x3x3 nonzeros 72 groups 2 padding (1, 1, 1, 1) bias relu
p: 4x3x3 = max_pool2d(b) window (2, 2) stride (2, 2)
pn: 4x3x3 = conv(p) weight 4x1x1x1 nonzeros 4 groups 4 bias
m: 4x2x2 = average(pn) weight 4x1x2x2 nonzeros 16 groups 4 relu
fc: 3x1x1 = linear(m) weight 3x4x2x2 nonzeros 48 bias
return fc
"""
    optimise(everything(), dump_after="all")
    assert capsys.readouterr().err.count("# after ") == len(PASSES)
    optimise(everything())
    assert capsys.readouterr() == ("", "")
    for node in ("pad: 4x7x7 = pad(x) padding (0, 1, 1, 0)", "an: 4x6x6 = batch_norm(a)",
                 "s: 4x6x6 = add(ar, bn)", "f: 16x1x1 = reshape(m)",
                 "m: 4x2x2 = avg_pool2d(pn) window (2, 2) stride (1, 1) divisor 4"):
        assert node in dump(everything()).splitlines()


def test_an_unknown_pass_is_named() -> None:
    with pytest.raises(ArgumentError, match=r"^dump_after must be 'all' or one of "
                                            r"leave_quantisers, .*, not 'fuse_all'$"):
        optimise(everything(), dump_after="fuse_all")


@pytest.mark.parametrize(("below", "above", "last"), [
    (0.0, 0.0, ["c.1", "c"]), (0.0, 1.0, ["c.1", "c.2", "c.4", "c"]),
    (1.0, 1.0, ["c.1", "c.3", "c"]), (0.5, -2.0, ["c.1.1", "c.1", "c.2", "c.4", "c"]),
    (3.0, 0.0, ["c.1", "c.3", "c.5", "c"]), (-2.0, -2.0, ["c.1", "c.3", "c"])])
@pytest.mark.parametrize("knots", [3, 1])
def test_a_curve_is_clamped_pieces_and_its_ends(below, above, last, knots) -> None:
    pieces = Pieces(knots=np.array([-1.5, 0.25, 1.0])[:knots], below=below, above=above,
                    values=np.array([0.5, -1.0, 2.0])[:knots])
    before = graph_of(conv("a", "x", 4, 4), Curve(name="c", input="a", pieces=pieces, off=0.0,
                                                  operator="silu"), conv("b", "c", 3, 4))
    after = same(before, optimise(before))
    if knots > 1:
        assert names(after) == ["a", *last, "b"]
    assert all(isinstance(node, Conv) for node in after.nodes)


def test_leaky_relu_is_a_layer_of_what_is_before_and_its_relu() -> None:
    slope = np.array([0.1, 0.0, -0.5, 2.0])
    before = graph_of(conv("a", "x", 4, 4), Leaky(name="l", input="a", slope=slope),
                      norm("n", "l"), Reshape(name="f", input="n", shape=(144, 1, 1)),
                      Leaky(name="m", input="f", slope=np.repeat(slope, 36)),
                      conv("fc", "m", 5, 144, kind=NodeKind.LINEAR))
    after = same(before, optimise(before))
    assert names(after) == ["a", "l.1", "l", "m.1", "m", "fc"]
    assert after.nodes[2].others == ("l.1",)
    assert np.count_nonzero(after.nodes[2].live) == 8
