"""What the passes make of a network, in float64, and what PyTorch computes."""

import warnings

import numpy as np
import torch
from torch import nn

from celosia.frontend import import_model
from celosia.graph import Conv, Graph
from celosia.passes import optimise
from float_graph import interpret


def compare(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    """Assert that a network's optimised graph computes what it computes; return the graph.

    The model is in float64 afterwards.
    """
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    model.eval()
    graph = optimise(import_model(model, shape))
    assert all(isinstance(node, Conv) and node.up == (1, 1) for node in graph.nodes)
    joined = [node for node in graph.nodes if isinstance(node, Conv) and node.others]
    assert all(graph.input not in node.read for node in joined)
    x = np.random.default_rng(0).standard_normal(shape[1:])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = model.double()(torch.from_numpy(x[None])).numpy()
    np.testing.assert_allclose(interpret(graph, x), wanted.ravel(), rtol=1e-4, atol=1e-5)
    return graph
