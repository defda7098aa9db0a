"""Each pass, against a float interpreter of the graph that knows no fusion."""

from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    Conv,
    Curve,
    Graph,
    Leaky,
    MaxPool,
    Pad,
    Reshape,
)
from celosia.graph_text import dump
from celosia.passes import PASSES, optimise
from celosia.passes.average_to_linear import average_to_linear
from celosia.passes.fuse_epilogue import fuse_epilogue
from celosia.passes.select_nodes import select_nodes
from celosia.pieces import Pieces
from celosia_spec.epilogue import Clamp, Epilogue, Identity, Pool, Relu
from celosia_spec.errors import ArgumentError
from celosia_spec.qgraph import NodeKind
from graphs import POOL, conv, graph_of, names, norm, relu, same

RELU = Epilogue(activation=Relu())


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
