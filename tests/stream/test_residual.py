"""Residual networks of published depths, of small pictures: every bit of the output."""

import numpy as np
import pytest
import torch

from celosia.compiler import Compiler
from celosia.models import ResNet
from celosia.quantise import quantise
from celosia_spec.isa.array import Array
from stream.compared import compare
from stream.sharing import in_place

ARRAYS = {"16": Array(main_words=1 << 16), "8": Array(lanes=8, main_words=1 << 16)}


def network(depth, shortcut):
    """A network of few weights, in which ``shortcut`` "A" is a 1 x 1 convolution that chooses
    elements."""
    torch.manual_seed(depth)
    found = ResNet(depth, "B").eval()
    for layer in found.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.weight.data *= torch.rand_like(layer.weight) < 0.15
    for block in found.modules():
        if shortcut == "A" and len(getattr(block, "shortcut", ())):
            weight = torch.zeros_like(block.shortcut[0].weight)
            before = (weight.shape[0] - weight.shape[1]) // 2
            for channel in range(weight.shape[1]):
                weight[before + channel, channel] = 1
            block.shortcut[0].weight.data = weight
            block.shortcut = block.shortcut[:1]
    return found


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS)
@pytest.mark.parametrize(("depth", "shortcut"), [(20, "A"), (20, "B"), (56, "B")])
def test_network(array, depth, shortcut):
    x = torch.rand(1, 3, 8, 8)
    graph = quantise(Compiler().graph(network(depth, shortcut), x),
                     unsigned_input=True, acc_bits=24)
    assert depth < 56 or len(graph.tensors) > 32
    program = compare(graph, array, x.numpy()[0].astype(np.float32)).program
    added = [node for node in program.graph.nodes if node.epilogue.add]
    assert len(added) == (depth - 2) // 2
    assert all(in_place(program, node) for node in added)
