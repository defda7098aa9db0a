"""The dense baseline has every weight that a layer has, and computes the same."""

import numpy as np
import pytest
import torch
from torch import nn

from celosia.compiler import Compiler
from celosia.densify import densify
from celosia_sim import golden

LAYERS = {      # layer, its input's shape, and its weights, zeros with them
    "convolution": (lambda: nn.Conv2d(4, 6, 3), (4, 7, 7), 4 * 6 * 9),
    "two groups": (lambda: nn.Conv2d(4, 6, 3, groups=2), (4, 7, 7), 2 * 6 * 9),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (4, 7, 7), 8 * 9),
    "linear": (lambda: nn.Linear(20, 7), (20,), 140),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 7, 7), 4 * 6 * 4),
    "transposed, overlapping": (
        lambda: nn.ConvTranspose2d(8, 8, 3, stride=2, padding=1, output_padding=1), (8, 7, 7),
        8 * 8 * 9),
    "transposed, depthwise": (lambda: nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8), (8, 7, 7),
                              8 * 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_dense(name):
    make, shape, weights = LAYERS[name]
    torch.manual_seed(0)
    layer, rng = make().eval(), np.random.default_rng(0)
    with torch.no_grad():
        layer.weight *= torch.from_numpy(rng.random(layer.weight.shape) < 0.6)
        layer.weight += 0.1 * (layer.weight != 0)       # none becomes a zero mantissa
    compiler = Compiler()
    graph = compiler.quantised(compiler.graph(layer, (1, *shape)), None)
    dense = densify(graph)
    (sparse_node,), (node,) = graph.nodes, dense.nodes
    assert node.matrix.nnz == weights
    assert sparse_node.matrix.nnz < 0.7 * weights
    assert (node.matrix != sparse_node.matrix).nnz == 0
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    found, wanted = (golden.run(one, x).mantissas[graph.output] for one in (dense, graph))
    assert np.array_equal(found, wanted)
