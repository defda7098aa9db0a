"""Nodes of constants alone: computed once, by ONNX's own reference, within bounds."""

import math
from collections.abc import Sequence

import numpy as np
import onnx
import onnx.reference

from celosia.frontend.onnx import quantisers
from celosia.frontend.onnx.node import Node
from celosia_spec.errors import CelosiaError, quoted

MAX_FOLDED = 1 << 26
"""Most values that the constants computed of a file's own may have, all together."""

_BROADCAST = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Equal", "Where", "Mod"})
_OTHERS = frozenset({
    "Cast", "Concat", "Constant", "ConstantOfShape", "Expand", "Gather", "Identity", "Range",
    "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze", "Floor", "Ceil", "Neg", "Abs", "Exp",
    "Sqrt", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"})


class Folding:
    """Computes nodes of constants, and counts what comes of them."""

    def __init__(self, opsets: Sequence[onnx.OperatorSetIdProto]) -> None:
        self.opsets, self.left = opsets, MAX_FOLDED

    def results(self, node: Node) -> list[np.ndarray] | None:
        """Return what a node of constants alone computes, or None where it is no such node."""
        proto = node.proto
        if proto.op_type in ("Shape", "Size"):
            of = node.constants.get(proto.input[0])
            shape = node.shapes.get(proto.input[0], (0,)) if of is None else of.shape
            if of is not None or all(shape):
                if proto.op_type == "Size":
                    return [np.array(math.prod(shape), np.int64)]
                start, end = node.attribute("start", 0), node.attribute("end", None)
                return [np.array(shape[start:end], np.int64)]
        given = {name: node.constants.get(name) for name in proto.input if name}
        operands = [array for array in given.values() if array is not None]
        known = proto.op_type in _BROADCAST | _OTHERS or quantisers.quantises(proto)
        if not known or len(operands) < len(given):
            return None
        try:
            self.left -= _size(node, [node.constants[name] for name in proto.input if name])
            if self.left >= 0:
                with np.errstate(all="ignore"):
                    return ([quantisers.constant(node)] if quantisers.quantises(proto) else
                            self._run(node, given))
        except CelosiaError:
            raise
        except Exception as problem:    # the reference raises whatever NumPy does
            raise node.refuse(f"a constant cannot be computed ({quoted(str(problem))[:120]})",
                              "export the model again") from None
        raise node.refuse(f"constants of more than {MAX_FOLDED} values", "keep constants small")

    def _run(self, node: Node, given: dict[str, np.ndarray | None]) -> list[np.ndarray]:
        proto = node.proto
        graph = onnx.helper.make_graph([proto], "fold", [onnx.ValueInfoProto(name=name)
                                                         for name in given],
                                       [onnx.ValueInfoProto(name=name) for name in proto.output])
        model = onnx.helper.make_model(graph, opset_imports=self.opsets)
        return list(map(np.asarray, onnx.reference.ReferenceEvaluator(model).run(None, given)))


def _size(node: Node, operands: list[np.ndarray]) -> int:
    """Return how many values a node makes of its operands, at most."""
    kind = node.proto.op_type
    if kind in _BROADCAST:
        return math.prod(np.broadcast_shapes(*(array.shape for array in operands)))
    if kind == "Expand":
        return math.prod(np.broadcast_shapes(operands[0].shape, tuple(operands[1].tolist())))
    if kind == "ConstantOfShape":
        return math.prod(abs(size) for size in operands[0].tolist())
    if kind == "Range":
        start, limit, delta = (float(array) for array in operands)
        return max(0, math.ceil((limit - start) / delta))
    if kind == "Gather":
        of = operands[0]
        most: int = of.size // of.shape[node.attribute("axis", 0)] * operands[1].size
        return most
    return sum(array.size for array in operands)
