"""Shapes of an ONNX graph's tensors, node by node, by ONNX's own rules.

ONNX also infers whole graphs, constants that shapes depend on among them, without a bound on what
these come to. So here they are computed by `folding`, and told to the rules.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from celosia.frontend.onnx.node import Node
from celosia_spec.errors import quoted, said

_TOLD = 64
"""Most values of a constant whose values are told; sizes and axes are fewer."""


class Shapes(Mapping[str, tuple[int, ...]]):
    """Shapes of tensors that depend on the inputs, 0 where a size is not known."""

    def __init__(self, opsets: Sequence[onnx.OperatorSetIdProto],
                 given: Sequence[onnx.ValueInfoProto]) -> None:
        self.opsets = list(opsets)
        self.types = {info.name: info.type for info in given}

    def __getitem__(self, name: str) -> tuple[int, ...]:
        return tuple(size.dim_value for size in self.types[name].tensor_type.shape.dim)

    def __iter__(self) -> Iterator[str]:
        return iter(self.types)

    def __len__(self) -> int:
        return len(self.types)

    def same(self, name: str, of: str) -> None:
        """Give a tensor the type of another."""
        self.types[name] = self.types[of]

    def infer(self, node: Node) -> None:
        """Learn the shapes of a node's results; CompileError where its operands do not fit."""
        names = dict.fromkeys(name for name in node.proto.input if name)
        constants = {name: node.constants[name] for name in names if name in node.constants}
        types = {name: self.types[name] for name in names if name in self.types} | {
            name: onnx.helper.make_tensor_type_proto(
                onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in constants.items()}
        values = {name: onnx.numpy_helper.from_array(np.asarray(array), name)
                  for name, array in constants.items() if array.size <= _TOLD}
        try:
            schema = onnx.defs.get_schema(node.proto.op_type, node.opset, "")
            self.types |= onnx.shape_inference.infer_node_outputs(
                schema, node.proto, types, values, opset_imports=self.opsets)
        except (onnx.defs.SchemaError, onnx.checker.ValidationError,
                onnx.shape_inference.InferenceError, KeyError, TypeError, ValueError,
                RuntimeError) as problem:
            raise node.refuse("its operands and attributes do not fit "
                              f"({quoted(said(problem))[:160]})",
                              "export the model again, with one input instead of a batch"
                              ) from None
