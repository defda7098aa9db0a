"""Quantisation in ONNX files: QuantizeLinear and DequantizeLinear (QDQ), and QONNX's operators.

The array has a number format of its own: scales on the way are left out, and constants are
computed as the file says.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from celosia.frontend.onnx.node import Node

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_QONNX = ("Quant", "IntQuant", "BipolarQuant")
_DOMAINS = {"": _QDQ, "ai.onnx": _QDQ, "com.microsoft": _QDQ, "qonnx.custom_op.general": _QONNX,
            "onnx.brevitas": _QONNX, "finn.custom_op.general": _QONNX}
_ROUNDED: dict[str, Callable[..., Any]] = {
    "ROUND": np.round, "CEIL": np.ceil, "FLOOR": np.floor, "ROUND_TO_ZERO": np.trunc}


def quantises(proto: onnx.NodeProto) -> bool:
    """Whether a node is one of the operators here."""
    return (proto.op_type in _DOMAINS.get(proto.domain, ())
            and len(proto.input) > 1 and len(proto.output) == 1)


def constant(node: Node) -> np.ndarray:
    """Return what a quantiser makes of a constant."""
    kind, x, scale = node.proto.op_type, node.constant(0), _operand(node, 1)
    if node.attribute("block_size", 0):
        raise node.refuse("it has a scale for each block", "quantise with a scale for each channel")
    if kind == "BipolarQuant":
        return np.where(x >= 0, scale, -scale).astype(np.float32)
    zero = _operand(node, 2) if node.has(2) else np.float32(0)
    if kind == "DequantizeLinear":
        return ((x.astype(np.float32) - zero) * scale).astype(np.float32)
    how = node.attribute("rounding_mode", "ROUND").upper()
    if how not in _ROUNDED:
        raise node.refuse(f"it rounds by {how}", f"use one of {', '.join(_ROUNDED)}")
    low, high = _range(node)
    whole = np.clip(_ROUNDED[how](x / scale + zero), low, high)
    if kind == "QuantizeLinear":
        return whole.astype(_type(node))
    return ((whole - zero) * scale).astype(np.float32)


def ends(node: Node) -> tuple[float, float]:
    """Return the least and the largest value that a quantiser on the way lets through."""
    scale = node.constant(1).astype(np.float64)
    zero = node.constant(2).astype(np.float64) if node.has(2) else 0.0
    low, high = (scale * (end - zero) for end in _range(node))
    return float(np.min(low)), float(np.max(high))


def _operand(node: Node, at: int) -> np.ndarray:
    """Return a scale or zero point as float32, spread along the node's axis."""
    values, x = node.constant(at).astype(np.float32), node.constant(0)
    if node.proto.op_type not in _QDQ or values.size == 1:
        return values.reshape(()) if values.size == 1 else values
    sides = [1] * x.ndim
    sides[node.attribute("axis", 1)] = -1
    return values.reshape(sides)


def _type(node: Node) -> np.dtype:
    """Return the type of QuantizeLinear's results."""
    if node.has(2):
        return node.constant(2).dtype
    number = node.attribute("output_dtype", 0) or onnx.TensorProto.UINT8
    return onnx.helper.tensor_dtype_to_np_dtype(number)


def _range(node: Node) -> tuple[int, int]:
    """Return the least and the largest whole number of a quantiser's results."""
    if node.proto.op_type == "QuantizeLinear":
        words = _type(node).name        # "int8", "uint4"
        signed, bits = not words.startswith("u"), int(words.lstrip("uint"))
        narrow = False
    else:
        signed, narrow = bool(node.attribute("signed", 1)), bool(node.attribute("narrow", 0))
        bits = math.ceil(float(node.constant(3).reshape(())))
    if not 1 <= bits <= 32:
        raise node.refuse(f"it has {bits} bits", "quantise to 1 to 32")
    if signed:
        return narrow - (1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow


def remark(weights: int, tensors: int) -> str:
    """Return what was done with a quantised network."""
    return (f"the file is quantised: {weights} constants are taken as they are behind it, the "
            f"scales of {tensors} tensors are left out, and the array rounds to its own format")
