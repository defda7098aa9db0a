"""BatchNorm folds into the layer before or behind it, or is a layer of its own."""

import math
from dataclasses import replace

import numpy as np
import pytest

from celosia.graph import (
    Add,
    BatchNorm,
    MaxPool,
    Pad,
    Reshape,
)
from celosia.passes import optimise
from celosia.passes.fold_batchnorm import fold_batchnorm
from celosia.passes.fold_flatten import fold_flatten
from celosia.passes.fold_forward import fold_forward
from celosia.passes.part_pools import part_pools
from celosia_spec.epilogue import Pool
from celosia_spec.qgraph import NodeKind
from graphs import RNG, conv, graph_of, names, norm, relu, same


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
