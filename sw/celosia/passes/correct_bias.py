"""Biases take up what rounding adds to every row in the mean (Nagel et al., ICCV 2019, arXiv
1906.04721, section 4.2)."""

from dataclasses import replace

import numpy as np

from celosia.float_values import values
from celosia.graph import Conv, Graph
from celosia_sim.golden.linear import weight_operand
from celosia_sim.golden.model import Reading, Sums, given, node_sums, quantise_input, reading
from celosia_spec.block import Format, block_exponents
from celosia_spec.epilogue import Epilogue
from celosia_spec.isa.numbers import EXPONENT_MAX, OUTPUT_BITS
from celosia_spec.qgraph import NodeKind, QGraph, QNode


def correct_bias(graph: Graph, quantised: QGraph, x: np.ndarray) -> Graph:
    """Add to every bias what the sums of its row lack in the mean over inputs ``x``
    (N, *input_shape) and all positions.

    quantised : the graph with its mantissas.

    Nodes are taken in order, each behind those that are corrected already. Averages and what
    chooses elements stay as they are.
    """
    wanted = _means(graph, x)
    images = [_Image(quantised, image[None]) for image in x]
    layers = {layer.name: layer for layer in graph.nodes}
    for node in quantised.nodes:
        layer = layers.get(node.name)       # low parts of the input have none
        if isinstance(layer, Conv) and layer.kind not in (NodeKind.AVERAGE, NodeKind.SELECT):
            means = np.mean([image.mean(node) for image in images], axis=0)
            bias = np.zeros(len(layer.weight)) if layer.bias is None else layer.bias
            bias = bias + wanted[layer.name] - means
            layers[layer.name], node = replace(layer, bias=bias), _with_bias(node, bias)
        for image in images:
            image.store(node)
    return replace(graph, nodes=tuple(layers.values()))


def _means(graph: Graph, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the mean of every row's sums, float64 (rows,), by the node's name."""
    found = {node.name: np.zeros(1) for node in graph.nodes}
    for _, sums in values(graph, x):
        for name, of in sums.items():
            found[name] = found[name] + of.mean(axis=(1, 2)) / len(x)
    return found


def _with_bias(node: QNode, bias: np.ndarray) -> QNode:
    """Return a node with a bias, float64 (rows,), as mantissas."""
    format = Format(bits=OUTPUT_BITS)
    exponents = block_exponents(bias[:, None]).clip(max=EXPONENT_MAX)
    m = format.mantissas(bias[:, None], exponents)[0][:, 0].astype(np.int64)
    return replace(node, bias=m, sb=np.where(m == 0, node.sw, format.lsb(exponents)))


class _Image:
    """What the machine has stored of one input, (1, ...), node by node."""

    def __init__(self, graph: QGraph, x: np.ndarray) -> None:
        self.graph = graph
        m, exponents = quantise_input(graph, x)
        self.stored, self.blocks = {graph.input: m}, {graph.input: exponents}
        self._exact: dict[str, Sums] = {graph.input: given(graph, m, exponents)}

    def mean(self, node: QNode) -> np.ndarray:
        """Return the mean of a node's sums before its activation, float64 (rows,)."""
        sums = self._sums(replace(node, epilogue=Epilogue(add=node.epilogue.add)))
        values, scale = (part.reshape(len(part), node.sw.size, -1)
                         for part in (sums.values, sums.scale))
        found: np.ndarray = np.ldexp(values.mean(axis=(0, 2)), scale[0, :, 0])
        return found

    def store(self, node: QNode) -> None:
        """Store what a node makes."""
        sums = self._sums(node)
        self.blocks[node.output] = sums.exponents
        self.stored[node.output], _ = sums.rounded(
            sums.exponents, self.graph.tensors[node.output].format, self.graph.acc_bits)
        self._exact[node.output] = sums

    def _sums(self, node: QNode) -> Sums:
        if node.rounds:
            read, _ = reading(self.graph, node, self._exact, self.blocks)
        else:
            read = Reading(mantissas=self.stored[node.input], exponents=self.blocks[node.input])
        weights = weight_operand(node, self.graph.tensors[node.input].format)
        return node_sums(self.graph, node, weights, read, self.stored, self.blocks)
