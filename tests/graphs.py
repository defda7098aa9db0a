"""Small float graphs, and whether a pass keeps what they compute."""

from dataclasses import replace

import numpy as np

from celosia.graph import (
    Activate,
    BatchNorm,
    Conv,
    Graph,
)
from celosia.graph_rules import verify
from celosia_spec.epilogue import Pool, Relu
from float_graph import interpret

RNG = np.random.default_rng
POOL = Pool(window=(2, 2), stride=(2, 2))


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
