"""Activations that stand in an ONNX file as nothing but the range of a quantiser.

Tools leave a ReLU or a clamp out in front of a quantiser that cuts the same off. So what a
quantiser cuts off sums is cut off here, too; behind an activation nothing is left to be cut.
Whether a range with both signs is a clamp or what was measured, a file does not tell. At the end
and in front of an addition the clamp would be a layer more: it is left out there, and told of.
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import onnx
from torch import nn

from celosia.frontend.onnx.node import Node
from celosia.frontend.onnx.quantisers import ends, quantises
from celosia_spec.errors import quoted

_SUMS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "Add", "Sum"})
MOVES = frozenset({"Concat", "Split", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze",
                   "Unsqueeze", "Expand", "Tile", "Gather", "MaxPool", "Identity"})
"""What does the same to whole numbers as to what these stand for."""
_FOLLOWED = MOVES - {"Concat"} | {"DequantizeLinear"}
_LINEAR = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""What takes a shift of what it reads into its bias, and one of what it makes."""
_ENDS = frozenset({"Softmax", "LogSoftmax", "ArgMax"})
"""What the host computes of the last sums."""
_FREE = _ENDS | {"Add", "Sum"}
"""What reads sums themselves."""
_CUTTING = frozenset({"Clip", "Relu"})
"""What cuts off more itself, or is followed by a quantiser that does, as `MOVES` are."""
_MARGIN = 1.01
"""Ranges of one clamp, and the two ends of one around 0, differ by a step of 1 in 127."""
_REMARK_LENGTH = 500


class Bounds:
    """of     : the least and the largest value of sums, and of what is moved of them, by name.
    layers : those that are made by one layer, also by name.
    left   : names of tensors whose ranges are not cut off, or at the further end alone.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.of: dict[str, tuple[float, float]] = {}
        self.layers: set[str] = set()
        self.left: list[str] = []
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
        top = max(-own[0], own[1])
        if not 0 < top < math.inf:
            raise node.refuse(f"it lets nothing through but {own[0]:g} to {own[1]:g}",
                              "quantise with scales above 0")
        result = node.proto.output[0]
        readers = frozenset(self._read_by(result))
        even = own[0] >= 0 or top <= min(-own[0], own[1]) * _MARGIN
        if own[0] < 0 and readers <= _FREE and not (even and readers <= _ENDS):
            self.left.append(name)
            return nn.Identity()
        self.of[result] = -top if own[0] < 0 else 0.0, top
        if not even and readers <= _LINEAR and name in self.layers:
            self.of[result] = own
        elif not even and not readers <= MOVES | _CUTTING:
            self.left.append(name)
        return nn.Hardtanh(*self.of[result])

    def told(self) -> tuple[str, ...]:
        """Return a remark on what is not cut off, if there is such."""
        if not self.left:
            return ()
        return (quoted(f"ranges of quantisers are not taken as clamps, or not at both ends, of "
                       f"{', '.join(self.left)}; where a clamp was there, keep it in the file "
                       "(QDQKeepRemovableActivations of onnxruntime)", _REMARK_LENGTH),)

    def learn(self, node: Node) -> None:
        """Note what the results of a node lie in."""
        kind, read = node.proto.op_type, node.proto.input[0]
        follows = kind in _FOLLOWED or quantises(node.proto)
        for name in node.proto.output:
            if kind in _SUMS:
                self.of[name] = -math.inf, math.inf
            elif follows and read in self.of:
                self.of.setdefault(name, self.of[read])
            if kind in _LINEAR or (follows and read in self.layers):
                self.layers.add(name)

    def _read_by(self, name: str) -> Iterator[str]:
        for reader in self.readers[name]:
            if reader.op_type == "DequantizeLinear":
                yield from self._read_by(reader.output[0])
            else:
                yield reader.op_type
