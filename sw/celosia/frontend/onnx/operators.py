"""ONNX's operators as modules of torch."""

import functools
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from celosia.frontend.onnx import moves, windows
from celosia.frontend.onnx.node import First, Node, filled


def gemm(node: Node) -> nn.Module:
    weight, bias = node.tensor(1), node.optional(2)
    if node.attribute("transA", 0):
        raise node.refuse("it transposes its input", "transpose the weights instead")
    weight = node.attribute("alpha", 1.0) * (weight if node.attribute("transB", 0) else weight.T)
    if bias is not None:
        bias = (node.attribute("beta", 1.0) * bias).expand(1, weight.shape[0])[0].clone()
    return filled(nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta"),
                  weight.contiguous(), bias)


def matmul(node: Node) -> nn.Module:
    left = node.proto.input[0] in node.constants
    if not left and node.proto.input[1] not in node.constants:
        raise node.refuse("no constant on its right or left",
                          "use linear layers with constant weights")
    weight = node.tensor(0 if left else 1)
    if weight.ndim < 2 or any(size > 1 for size in weight.shape[:-2]):
        raise node.refuse(f"a constant of shape {tuple(weight.shape)}", "multiply by a matrix")
    weight = weight.reshape(weight.shape[-2:])
    if not left:
        return filled(nn.Linear(*weight.shape, bias=False, device="meta"),
                      weight.T.contiguous(), None)
    if len(node.shape(1)) == 3:
        return filled(nn.Conv1d(*weight.T.shape, 1, bias=False, device="meta"),
                      weight[:, :, None].contiguous(), None)
    return First(lambda x: F.linear(x.transpose(-1, -2), weight).transpose(-1, -2))


def batch_norm(node: Node) -> nn.Module:
    scale, shift, mean, variance = (node.tensor(at) for at in range(1, 5))
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(len(node.shape()))
    if kind is None:
        raise node.refuse(f"an operand of shape {node.shape()}", "normalise maps or vectors")
    if node.attribute("training_mode", 0) or not node.attribute("spatial", 1):
        raise node.refuse("it takes its statistics from the batch, or for each place of a map",
                          "export the model in evaluation mode")
    layer = filled(kind(len(mean), node.attribute("epsilon", 1e-5)), scale, shift)
    layer.running_mean, layer.running_var = mean, variance
    return layer


def clip(node: Node) -> nn.Module:
    low, high = node.setting(1, "min", None), node.setting(2, "max", None)
    if low is None and high is None:
        return nn.Identity()
    return First(lambda x: torch.clamp(x, low, high))


def reduced(node: Node) -> nn.Module:
    function: Callable[..., torch.Tensor] = {
        "ReduceMean": torch.mean, "ReduceMax": torch.amax, "ReduceSum": torch.sum,
        "ReduceMin": lambda x, *axes, **how: -torch.amax(-x, *axes, **how),
        "ReduceL1": lambda x, *axes, **how: torch.sum(torch.abs(x), *axes, **how),
        "ReduceSumSquare": lambda x, *axes, **how: torch.sum(x * x, *axes, **how)}[
            node.proto.op_type]
    axes, keep = node.setting(1, "axes", None), bool(node.attribute("keepdims", 1))
    if axes is None or len(axes) == 0:
        if node.attribute("noop_with_empty_axes", 0):
            if node.proto.op_type in ("ReduceL1", "ReduceSumSquare"):
                raise node.refuse("it takes no axes", "name the axes")
            return nn.Identity()
        if not keep:
            raise node.refuse("it takes all axes, the batch among them", "name the axes")
        axes = list(range(1, len(node.shape())))     # the batch is one
    return First(lambda x: function(x, tuple(axes), keepdim=keep))


def along(node: Node) -> nn.Module:
    """Return a softmax; before version 13 one over all axes from the one that is named."""
    rank, named = len(node.shape()), node.attribute("axis", 1 if node.opset < 13 else -1)
    if node.opset < 13 and named % rank != rank - 1:
        raise node.refuse(f"it takes the axes from {named} on together",
                          "export it with opset_version 13 or later")
    return {"Softmax": nn.Softmax, "LogSoftmax": nn.LogSoftmax}[node.proto.op_type](named)


def argmax(node: Node) -> nn.Module:
    if node.attribute("select_last_index", 0):
        raise node.refuse("of equal values it takes the last", "take the first")
    axis, keep = node.attribute("axis", 0), bool(node.attribute("keepdims", 1))
    return First(lambda x: torch.argmax(x, axis, keep))


def cast(node: Node) -> nn.Module:
    kind = node.attribute("to", 0)
    if kind == BOOL:
        return First(lambda x: x if x.dtype == torch.bool else x != 0)
    if kind not in FLOATS:
        raise node.refuse("it makes whole numbers of the input", "keep the network in float32")
    return nn.Identity()


def does(function: Callable[..., torch.Tensor]) -> Callable[[Node], nn.Module]:
    return lambda node: node.does(function)


def selu(node: Node) -> nn.Module:
    alpha, gamma = node.attribute("alpha", _SELU[0]), node.attribute("gamma", _SELU[1])
    if np.allclose((alpha, gamma), _SELU, rtol=1e-6):
        return nn.SELU()
    return First(lambda x: gamma * F.elu(x, alpha))


def prelu(node: Node) -> nn.Module:
    slope, rank = node.tensor(1), len(node.shape())
    sizes = (1,) * (rank - slope.ndim) + tuple(slope.shape)
    if slope.numel() > 1 and sizes != (1, node.shape()[1], *(1,) * (rank - 2)):
        raise node.refuse(f"slopes of shape {tuple(slope.shape)} for an operand of shape "
                          f"{node.shape()}", "give it one slope, or one for each channel")
    return First(lambda x: F.prelu(x, slope.flatten()))


def hard_sigmoid(node: Node) -> nn.Module:
    alpha, beta = node.attribute("alpha", 0.2), node.attribute("beta", 0.5)
    return First(lambda x: torch.clamp(x * alpha + beta, 0, 1))


def swish(node: Node) -> nn.Module:
    alpha = node.attribute("alpha", 1.0)
    return First(lambda x: x * torch.sigmoid(x * alpha))


def concat(node: Node) -> nn.Module:
    axis = node.attribute("axis", 1)
    return node.does(lambda *parts: torch.cat(parts, axis))


_SELU = 1.67326319217681884765625, 1.05070102214813232421875
"""Alpha and gamma where a Selu does not name them: torch's."""


def gelu(node: Node) -> nn.Module:
    return nn.GELU(node.attribute("approximate", "none"))


FLOATS = {1, 10, 11, 16}
"""ONNX's numbers for float32, float16, float64 and bfloat16."""

BOOL = 9
"""That for truth values."""

OPERATORS: dict[str, Callable[[Node], nn.Module]] = {
    "Conv": windows.conv, "ConvTranspose": windows.conv_transpose, "Gemm": gemm, "MatMul": matmul,
    "BatchNormalization": batch_norm, "MaxPool": windows.max_pool,
    "AveragePool": windows.average_pool, "GlobalMaxPool": windows.global_pool,
    "GlobalAveragePool": windows.global_pool, "ReduceMean": reduced, "ReduceMax": reduced,
    "ReduceSum": reduced, "ReduceMin": reduced, "ReduceL1": reduced, "ReduceSumSquare": reduced,
    "Relu": lambda node: nn.ReLU(), "Clip": clip, "Identity": lambda node: nn.Identity(),
    "LeakyRelu": lambda node: nn.LeakyReLU(node.attribute("alpha", 0.01)),
    "PRelu": prelu, "HardSigmoid": hard_sigmoid,
    "Dropout": lambda node: nn.Identity(), "Cast": cast,
    "Add": does(torch.add), "Sub": does(torch.sub), "Mul": does(torch.mul), "Div": does(torch.div),
    "Sum": does(lambda *parts: functools.reduce(torch.add, parts)), "Neg": does(torch.neg),
    "Mean": does(lambda *parts: functools.reduce(torch.add, parts) / len(parts)),
    "Concat": concat,
    "Split": moves.split, "Slice": moves.cut, "Gather": moves.gather, "Reshape": moves.reshape,
    "Flatten": moves.flatten, "Transpose": moves.transpose, "Squeeze": moves.squeeze,
    "Unsqueeze": moves.unsqueeze, "Expand": moves.expand, "Tile": moves.tile,
    "Pad": moves.pad, "Resize": moves.resize, "Upsample": moves.resize,
    "DepthToSpace": moves.depth_to_space,
    "SpaceToDepth": moves.space_to_depth, "Softmax": along, "LogSoftmax": along, "ArgMax": argmax,
    "Sigmoid": lambda node: nn.Sigmoid(), "Tanh": lambda node: nn.Tanh(),
    "Elu": lambda node: nn.ELU(node.attribute("alpha", 1.0)), "Selu": selu,
    "Gelu": gelu, "HardSwish": lambda node: nn.Hardswish(), "Mish": lambda node: nn.Mish(),
    "Softplus": lambda node: nn.Softplus(), "Softsign": lambda node: nn.Softsign(),
    "Celu": lambda node: nn.CELU(node.attribute("alpha", 1.0)), "Swish": swish,
    "Abs": does(torch.abs), "Erf": does(torch.erf), "Atan": does(torch.atan),
    # Of these, formulas are made.
    "Exp": does(torch.exp), "Log": does(torch.log), "Sqrt": does(torch.sqrt),
    "Reciprocal": does(torch.reciprocal), "Pow": does(torch.pow), "Where": does(torch.where),
    "Greater": does(torch.gt), "Less": does(torch.lt), "GreaterOrEqual": does(torch.ge),
    "LessOrEqual": does(torch.le),
    "Max": does(lambda *parts: functools.reduce(torch.maximum, parts)),
    "Min": does(lambda *parts: functools.reduce(torch.minimum, parts)),
}
