"""What the passes make of a network, in float64, and what PyTorch computes."""

import warnings

import numpy as np
import torch
from torch import nn

import celosia
from celosia.frontend import import_model
from celosia.graph import Conv, Graph
from celosia.passes import optimise
from celosia.program import Program
from float_graph import interpret


def near(network: nn.Module, shape: tuple[int, ...]) -> Program:
    """Compile a network; assert that its answers have the shape of those that it computes itself,
    and 25 dB; return the program."""
    x = np.random.default_rng(1).standard_normal((4, *shape[1:])).astype(np.float32)
    with torch.no_grad():
        wanted = torch.cat([network(torch.from_numpy(one[None])) for one in x]).numpy()
    program = celosia.compile(network, shape, target="ulx3s-25f")
    answer = celosia.run(program, x).answer
    assert answer.shape == wanted.shape
    assert 10 * np.log10(np.square(wanted).sum() / np.square(answer - wanted).sum()) > 25
    return program


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
