"""Run a network step by step, bit for bit as over the whole window."""

from dataclasses import replace

import numpy as np

from celosia_sim.golden.linear import weight_operand
from celosia_sim.golden.model import Reading, Sums, joined_reading, node_sums, quantise_input
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import Ring, View, stored_name


class GoldenSteps:
    """A step's graph (`celosia_spec.steps.Steps.graph`) and what is kept of the steps so far.

    rings : mantissas that are kept, int32 (1, C, lines, W) by name, the newest line last; before
            the first step of a period line k is that of the machine's line k.

    Of those that are read together with others the sums are kept, too: they are rounded as they are
    read.
    """

    def __init__(self, graph: QGraph) -> None:
        self.graph = graph
        self._weights = [weight_operand(node, graph.tensors[node.input].format)
                         for node in graph.nodes]
        self._joined = {stored_name(graph.tensors, name) for node in graph.nodes if node.joins
                        for name in node.inputs}
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        self.rings: dict[str, np.ndarray] = {}
        self._sums: dict[str, Sums] = {}
        for name, tensor in self.graph.tensors.items():
            if isinstance(tensor, Ring):
                count, _, width = tensor.shape
                self.rings[name] = np.zeros((1, count, tensor.lines, width), np.int32)

    def run(self, x: np.ndarray) -> tuple[np.ndarray, int, bool]:
        """Take a step: its lines x (*user_shape) of the input. Return the mantissas of the output's
        newest lines, int32 (C, H, W), their exponent, and whether a new value was clipped."""
        graph = self.graph
        m, exponents = quantise_input(graph, x[None])
        stored, blocks = {graph.input: m}, {graph.input: exponents}
        exact: dict[str, Sums] = {}
        clipped = False
        self._push(graph.input, m)
        for node, weights in zip(graph.nodes, self._weights, strict=True):
            self._look(node, stored, blocks, exact)
            if node.joins:
                read, found = joined_reading(graph, node, exact, blocks)
                clipped |= bool(found.any())
            else:
                read = Reading(mantissas=stored[node.input], exponents=blocks[node.input])
            sums, name = node_sums(graph, node, weights, read, stored, blocks), node.output
            blocks[name] = sums.exponents
            stored[name], found = sums.rounded(sums.exponents, graph.tensors[name].format,
                                               graph.acc_bits)
            clipped |= bool(found.any())
            self._push(name, stored[name])
            if name in self._joined:
                exact[name] = self._push_sums(name, sums)
        return stored[graph.output][0], int(blocks[graph.output][0]), clipped

    def _push(self, name: str, m: np.ndarray) -> None:
        if name in self.rings:
            self.rings[name] = np.concatenate([self.rings[name][:, :, m.shape[2]:], m], axis=2)

    def _push_sums(self, name: str, sums: Sums) -> Sums:
        """Return the sums of all lines that are kept, the new ones last."""
        if name in self.rings:
            if name not in self._sums:
                self._sums[name] = replace(sums, values=self.rings[name].astype(np.int64) * 0)
            before = self._sums[name].values[:, :, sums.values.shape[2]:]
            sums = replace(sums, values=np.concatenate([before, sums.values], axis=2))
            self._sums[name] = sums
        return sums

    def _look(self, node: QNode, stored: dict[str, np.ndarray], blocks: dict[str, np.ndarray],
              exact: dict[str, Sums]) -> None:
        """Add the views that a node has."""
        for name in (*node.inputs, node.epilogue.add):
            view = self.graph.tensors[name] if name is not None else None
            if not isinstance(view, View) or name is None:
                continue
            lines = self.rings.get(view.of, stored[view.of])
            first = lines.shape[2] - view.back
            seen = slice(first, first + view.shape[1])
            stored[name], blocks[name] = lines[:, :, seen], blocks[view.of]
            if view.of in exact:
                sums = exact[view.of]
                exact[name] = replace(sums, values=sums.values[:, :, seen])
