"""Which clipped values a network's sums need: what its `saturated` flag tells of."""

import numpy as np

from celosia_sim.golden.epilogue import max_pool
from celosia_sim.golden.linear import exact_sums
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import stored_name


class Clipped:
    """The clipped values of N images, node by node.

    any    : bool (N,): some value of a tensor that is read was clipped, or of the output.
    needed : bool (N,): one of them goes into a sum that is not dropped, or leaves the network.
    """

    def __init__(self, graph: QGraph, images: int) -> None:
        self.any, self.needed = np.zeros((2, images), bool)
        self._graph = graph
        self._by_itself = {stored_name(graph.tensors, name) for node in graph.nodes for name in (
            *(() if node.rounds else node.inputs), node.epilogue.add) if name is not None}
        self._values: dict[str, np.ndarray] = {}

    def stores(self, name: str, clipped: np.ndarray) -> None:
        """A tensor is stored; of its values, bool (N, C, H, W), some were clipped."""
        if name == self._graph.output:
            self._count(clipped, clipped)
        elif clipped.any() and name in self._by_itself:
            self._values[name] = clipped
            self._count(clipped, None)

    def looks(self, view: str, name: str, lines: slice) -> None:
        """Lines of a stored tensor are read by another name."""
        if name in self._values:
            self._values[view] = self._values[name][:, :, lines]

    def reads(self, node: QNode) -> None:
        """A node reads one tensor, and perhaps adds another one."""
        self._read(node, self._values.get(node.input))

    def rounds(self, node: QNode, clipped: np.ndarray) -> None:
        """A node reads at an exponent of the reading; of what it reads, bool (N, C, H, W), some
        values were clipped."""
        self._count(clipped, None)
        self._read(node, clipped if clipped.any() else None)

    def _read(self, node: QNode, read: np.ndarray | None) -> None:
        found = [] if read is None else [exact_sums(
            read, (node.matrix != 0).astype(np.float32), node.geometry)]
        if (added := self._values.get(node.epilogue.add or "")) is not None:
            found.append(added.astype(np.int64))
        for counts in found:
            self._count(None, max_pool(counts, node.epilogue.pool))

    def _count(self, clipped: np.ndarray | None, needed: np.ndarray | None) -> None:
        for flags, values in ((self.any, clipped), (self.needed, needed)):
            if values is not None:
                flags |= values.any(axis=(1, 2, 3))
