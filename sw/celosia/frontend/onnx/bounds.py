"""Activations that stand in an ONNX file as nothing but the range of a quantiser.

Tools leave a ReLU or a clamp out in front of a quantiser that cuts the same off. So what a
quantiser cuts off sums is cut off here, too; behind an activation nothing is left to be cut.
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import onnx
from torch import nn

from celosia.frontend.onnx.node import Node
from celosia.frontend.onnx.quantisers import ends, quantises

_SUMS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Sum"})
MOVES = frozenset({"Concat", "Split", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze",
                   "Unsqueeze", "Gather", "MaxPool", "Identity"})
"""What does the same to whole numbers as to what these stand for."""
_FOLLOWED = MOVES - {"Concat"} | {"DequantizeLinear"}
_FREE = frozenset({"Add", "Sum", "Softmax", "LogSoftmax", "ArgMax"})
"""What reads sums themselves: a range with both signs, in front of it, is what was measured."""
_MARGIN = 1.01
"""Ranges of one clamp differ by a step of 1 in 127."""


class Bounds:
    """of : the least and the largest value of sums, and of what is moved of them, by name."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.of: dict[str, tuple[float, float]] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)

    def cut(self, node: Node) -> nn.Module:
        """Return what stands for a quantiser of a tensor that depends on the input."""
        kind, name = node.proto.op_type, node.proto.input[0]
        if kind == "BipolarQuant":
            raise node.refuse("it leaves nothing of the input but its sign",
                              "quantise the weights so, and what lies between with more bits")
        if kind == "DequantizeLinear" or name not in self.of:
            return nn.Identity()
        (low, high), own = self.of[name], ends(node)
        if low >= own[0] * _MARGIN and high <= own[1] * _MARGIN:
            return nn.Identity()
        if own[0] < 0 and _FREE.issuperset(self._read_by(node.proto.output[0])):
            return nn.Identity()
        top = max(-own[0], own[1])
        if not 0 < top < math.inf:
            raise node.refuse(f"it lets nothing through but {own[0]:g} to {own[1]:g}",
                              "quantise with scales above 0")
        self.of[node.proto.output[0]] = (-top if own[0] < 0 else 0.0, top)
        return nn.Hardtanh(*self.of[node.proto.output[0]])

    def learn(self, node: Node) -> None:
        """Note what the results of a node lie in."""
        kind, source = node.proto.op_type, self.of.get(node.proto.input[0])
        for name in node.proto.output:
            if kind in _SUMS:
                self.of[name] = -math.inf, math.inf
            elif source and (kind in _FOLLOWED or quantises(node.proto)):
                self.of.setdefault(name, source)

    def _read_by(self, name: str) -> Iterator[str]:
        for reader in self.readers[name]:
            if reader.op_type == "DequantizeLinear":
                yield from self._read_by(reader.output[0])
            else:
                yield reader.op_type
