"""Quantisation in ONNX files: QuantizeLinear and DequantizeLinear (QDQ), and QONNX's operators.

The array has a number format of its own: constants are computed as the file says, and of scales on
the way static exponents are made.
"""

import math

import numpy as np
import onnx

from celosia.frontend.onnx.node import Node
from celosia.grids import MOST_BITS, ROUNDINGS, Grid, real, whole

_QDQ = ("QuantizeLinear", "DequantizeLinear")
_QONNX = ("Quant", "IntQuant", "BipolarQuant")
_DOMAINS = {"": _QDQ, "ai.onnx": _QDQ, "com.microsoft": _QDQ, "qonnx.custom_op.general": _QONNX,
            "onnx.brevitas": _QONNX, "finn.custom_op.general": _QONNX}


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
    zero = _operand(node, 2) if node.has(2) else np.zeros((), np.float32)
    if kind == "DequantizeLinear":
        return real(x, scale, zero)
    how = node.attribute("rounding_mode", "ROUND").upper()
    if how not in ROUNDINGS:
        raise node.refuse(f"it rounds by {how}", f"use one of {', '.join(ROUNDINGS)}")
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise node.refuse("a scale is not above 0, or not finite", "quantise with scales above 0")
    found = whole(x / scale, zero, _range(node), how)
    return found.astype(_type(node)) if kind == "QuantizeLinear" else real(found, scale, zero)


def grid(node: Node, of: Grid | None = None) -> Grid:
    """Return the grid of a quantiser of a tensor that depends on the input.

    of : of a dequantiser, its quantiser's, which says which whole numbers there are.

    ValueError, which says why, where it cannot be.
    """
    if node.attribute("block_size", 0):
        raise ValueError("it has a scale for each block")
    scale = _of_channels(node, 1)
    zero = _of_channels(node, 2) if node.has(2) else np.zeros(1)
    least, most = (of.least, of.most) if of is not None else _range(node)
    return Grid(scale=scale, zero=zero, least=least, most=most)


def _of_channels(node: Node, at: int) -> np.ndarray:
    """Return scales or zero points of a tensor on the way, float64 (1,) or (C,)."""
    values = node.constant(at).astype(np.float64)
    if values.size == 1:
        return values.reshape(1)
    shape = node.shapes.get(node.proto.input[0], ())
    sides = [1] * len(shape)
    if len(shape) > 1:
        sides[1] = values.size
    own = node.proto.op_type in _QDQ
    along = node.attribute("axis", 1) % max(len(shape), 1) if own else 1
    spread = tuple(sides) if own else (1,) * (len(shape) - values.ndim) + values.shape
    if len(shape) < 2 or along != 1 or spread != tuple(sides) or shape[1] != values.size:
        raise ValueError(f"it has {values.size} scales, and no channels of that number")
    return values.reshape(-1)


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
    if not 1 <= bits <= MOST_BITS:
        raise node.refuse(f"it has {bits} bits", "quantise to 1 to 32")
    if signed:
        return narrow - (1 << (bits - 1)), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - narrow

