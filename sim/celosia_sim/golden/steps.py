"""Run a network step by step, bit for bit as over the whole window."""

from dataclasses import dataclass, replace

import numpy as np

from celosia_sim.golden.clipped import Clipped
from celosia_sim.golden.linear import weight_operand
from celosia_sim.golden.model import Reading, Sums, given, node_sums, quantise_input, reading
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import Ring, View, stored_name


@dataclass(frozen=True, eq=False, kw_only=True)
class GoldenStep:
    """What a step gives.

    mantissas : of the output's newest lines, int32 (C, H, W).   exponent : theirs.
    saturated : clipping changed a value of a tensor that is read, of any line that is kept, or of
                these.
    unread    : that, but none that any sum of this step needs.
    """

    mantissas: np.ndarray
    exponent: int
    saturated: bool
    unread: bool


class GoldenSteps:
    """A step's graph (`celosia_spec.steps.Steps.graph`) and what is kept of the steps so far.

    rings : mantissas that are kept, int32 (1, C, lines, W) by name, the newest line last; before
            the first step of a period line k is that of the machine's line k.
    clipped : bool, which of them were clipped.

    Of those that are read at an exponent of the reading the sums are kept, too: they are rounded as
    they are read.
    """

    def __init__(self, graph: QGraph) -> None:
        self.graph = graph
        self._weights = [weight_operand(node, graph.tensors[node.input].format)
                         for node in graph.nodes]
        self._rounded = {stored_name(graph.tensors, name) for node in graph.nodes if node.rounds
                         for name in node.inputs}
        self.reset()

    def reset(self) -> None:
        """Forget all steps."""
        self.rings: dict[str, np.ndarray] = {}
        self.clipped: dict[str, np.ndarray] = {}
        self._sums: dict[str, Sums] = {}
        for name, tensor in self.graph.tensors.items():
            if isinstance(tensor, Ring):
                count, _, width = tensor.shape
                self.rings[name] = np.zeros((1, count, tensor.lines, width), np.int32)
                self.clipped[name] = self.rings[name] > 0

    def run(self, x: np.ndarray) -> GoldenStep:
        """Take a step: its lines x (*user_shape) of the input."""
        graph = self.graph
        m, exponents = quantise_input(graph, x[None])
        stored, blocks = {graph.input: m}, {graph.input: exponents}
        exact: dict[str, Sums] = {}
        if graph.input in self._rounded:
            exact[graph.input] = self._push_sums(graph.input, given(graph, m, exponents))
        clipped = Clipped(graph, 1)
        _push(self.rings, graph.input, m)
        for node, weights in zip(graph.nodes, self._weights, strict=True):
            self._look(node, stored, blocks, exact, clipped)
            if node.rounds:
                read, changed = reading(graph, node, exact, blocks)
                clipped.rounds(node, changed)
            else:
                read = Reading(mantissas=stored[node.input], exponents=blocks[node.input])
                clipped.reads(node)
            sums, name = node_sums(graph, node, weights, read, stored, blocks), node.output
            blocks[name] = sums.exponents
            stored[name], changed = sums.rounded(sums.exponents, graph.tensors[name].format,
                                                 graph.acc_bits)
            _push(self.rings, name, stored[name])
            _push(self.clipped, name, changed)
            clipped.stores(name, self.clipped.get(name, changed))
            if name in self._rounded:
                exact[name] = self._push_sums(name, sums)
        return GoldenStep(mantissas=stored[graph.output][0],
                          exponent=int(blocks[graph.output][0]), saturated=bool(clipped.any[0]),
                          unread=bool(clipped.any[0] & ~clipped.needed[0]))

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
              exact: dict[str, Sums], clipped: Clipped) -> None:
        """Add the views that a node has."""
        for name in (*node.inputs, node.epilogue.add):
            view = self.graph.tensors[name] if name is not None else None
            if not isinstance(view, View) or name is None:
                continue
            lines = self.rings.get(view.of, stored[view.of])
            first = lines.shape[2] - view.back
            seen = slice(first, first + view.shape[1])
            stored[name], blocks[name] = lines[:, :, seen], blocks[view.of]
            clipped.looks(name, view.of, seen)
            if view.of in exact:
                sums = exact[view.of]
                exact[name] = replace(sums, values=sums.values[:, :, seen])


def _push(rings: dict[str, np.ndarray], name: str, new: np.ndarray) -> None:
    """Add new lines (1, C, H, W) to what is kept of a tensor, if it is."""
    if name in rings:
        rings[name] = np.concatenate([rings[name][:, :, new.shape[2]:], new], axis=2)
