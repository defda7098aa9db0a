"""One node of an ONNX graph, with what is known of its operands."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from celosia_spec.errors import CompileError

IDLE = frozenset({
    "allowzero", "beta", "consumed_inputs", "kernel_shape", "momentum", "num_outputs", "pads",
    "ratio", "saturate", "seed", "storage_order"})
"""Attributes that say what operands or results say, too, or nothing that matters where they are not
asked for: of training, of sizes that are 0 where there is none, of padding that is found."""


@dataclass(frozen=True, eq=False)
class Node:
    """constants : arrays by name.   shapes : of tensors by name, batch axis first, 0 where a size
    is not known.   opset : the version of ONNX's operators.   read : names of attributes that
    somebody asked for.
    """

    proto: onnx.NodeProto
    constants: Mapping[str, np.ndarray]
    shapes: Mapping[str, tuple[int, ...]]
    opset: int
    read: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return self.proto.name or (self.proto.output[0] if self.proto.output else "")

    def refuse(self, problem: str, remedy: str) -> CompileError:
        return CompileError(self.name, self.proto.op_type, problem, remedy)

    def attribute(self, name: str, default: Any) -> Any:
        self.read.add(name)
        for attribute in self.proto.attribute:
            if attribute.name == name:
                value = onnx.helper.get_attribute_value(attribute)
                return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        return default

    def unread(self) -> Iterator[str]:
        """Yield the names of attributes that nobody asked for, though they may say that the node
        computes something else than it does without them."""
        known = onnx.defs.get_schema(self.proto.op_type, self.opset, "").attributes
        for attribute in self.proto.attribute:
            if attribute.name in self.read | IDLE:
                continue
            usual = known[attribute.name].default_value if attribute.name in known else None
            value = onnx.helper.get_attribute_value(attribute)
            if usual is None or not usual.type or onnx.helper.get_attribute_value(usual) != value:
                yield attribute.name

    def shape(self, at: int = 0) -> tuple[int, ...]:
        """Return the shape of an operand; CompileError where a size of it is not known."""
        shape = self.shapes.get(self.proto.input[at])
        if shape is None or not all(shape):
            raise self.refuse("the shape of an operand is not known", "export it with fixed shapes")
        return shape

    def has(self, at: int) -> bool:
        return len(self.proto.input) > at and self.proto.input[at] != ""

    def constant(self, at: int) -> np.ndarray:
        found = self.constants.get(self.proto.input[at])
        if found is None:
            raise self.refuse(f"its operand {at + 1} is computed from the input",
                              "keep it a constant of the file")
        return found

    def tensor(self, at: int) -> torch.Tensor:
        return as_tensor(self.constant(at))

    def optional(self, at: int) -> torch.Tensor | None:
        """Return a constant operand, or None where it is left out."""
        return self.tensor(at) if self.has(at) else None

    def setting(self, at: int, name: str, default: Any) -> Any:
        """Return what newer operators take as an operand and older ones as an attribute."""
        if self.has(at):
            return self.constant(at).tolist()
        return self.attribute(name, default)

    def does(self, function: Callable[..., Any]) -> nn.Module:
        """Return a module that calls a function of all operands, constants among them."""
        return Does(function, [self.constants.get(name) for name in self.proto.input if name])


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor of its own; NumPy has no bfloat16, and ONNX brings one."""
    if array.dtype.name == "bfloat16":
        return torch.tensor(array.astype(np.float32), dtype=torch.bfloat16)
    return torch.from_numpy(np.array(array))


class First(nn.Module):
    """A function of a node's first operand; its others are constants, used already."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


class Does(nn.Module):
    """A function of tensors, some of which are constants."""

    def __init__(self, function: Callable[..., Any], operands: list[np.ndarray | None]) -> None:
        super().__init__()
        self.function, self.names = function, []
        for at, value in enumerate(operands):
            self.names.append(None if value is None else f"constant{at}")
            if value is not None:
                self.register_buffer(f"constant{at}", as_tensor(value))

    def forward(self, *tensors: torch.Tensor) -> Any:
        live = iter(tensors)
        return self.function(*(next(live) if name is None else getattr(self, name)
                               for name in self.names))


def filled(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    """Return a layer with these parameters in place of its own."""
    layer.weight = nn.Parameter(weight)
    layer.bias = None if bias is None else nn.Parameter(bias)
    return layer
