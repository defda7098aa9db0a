"""Exact fusion: batch normalisation and average pooling go into the convolution before them.

Both are linear algebra (P0, section 4, before any retraining), so the network computes what it
computed, up to rounding. Layers that follow one another are found in the traced graph
(`torch.fx`), not by their names.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_weights

from celosia.compress.layers import evaluating
from celosia.compress.pruning.masks import Mask
from celosia.errors import ArgumentError

__all__ = ["Pool", "fold_average_pool", "fold_batchnorm", "fold_pools", "pool_of", "remove",
           "sole_reader", "symmetric_padding", "trace", "used_once"]

Pair = tuple[int, int]
_LINEAR = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX = {torch.max_pool2d, functional.max_pool2d}
_AVERAGE = {functional.avg_pool2d, torch._C._nn.avg_pool2d}
_ARGUMENTS = {
    "max": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "average": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
                "divisor_override"),
}
_DEFAULTS = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False,
             "return_indices": False, "count_include_pad": True, "divisor_override": None}


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A two-dimensional pooling.   kind : "max" or "average".

    kernel, stride, padding : rows and columns.
    plain : no padding, no rounding up of the size, no dilation, no divisor of its own.
    """

    kind: str
    kernel: Pair
    stride: Pair
    padding: Pair
    plain: bool


def trace(model: nn.Module) -> fx.GraphModule:
    """Return the model's graph as it runs in eval mode; layers are shared with the model.

    `Identity` layers are left out of it. Raises ArgumentError if its forward cannot be traced
    (`torch.fx`).
    """
    try:
        with evaluating(model):
            traced = fx.symbolic_trace(model)
    except Exception as problem:    # whatever the user's forward raises on a symbolic tensor
        raise ArgumentError(
            f"{type(model).__name__}.forward cannot be traced by torch.fx: {problem}; layers that "
            "follow one another are found that way, so write forward without branches on values"
        ) from problem
    traced.training = model.training
    for node in list(traced.graph.nodes):
        if isinstance(_module(traced, node), nn.Identity):
            remove(node)
    traced.recompile()
    return traced


def fold_batchnorm(model: nn.Module) -> tuple[str, ...]:
    """Fold each batch normalisation into the convolution or linear layer before it, in place.

    With g = gamma / sqrt(var + eps): W' = g W and b' = beta + g (b - mean), computed in float64
    (`torch.nn.utils.fusion`). The result is what the network computes in eval mode; each folded
    layer is replaced by an `Identity`, so all other names stay. A mask on the weight stays.

    Left alone are normalisations that follow no such layer of their own (its output is read
    elsewhere too, or it runs twice) and those without running statistics. A linear layer counts
    only in front of `BatchNorm1d` on (N, features).

    Returns the names of the folded normalisations, in the order of the graph.

    Raises ArgumentError if the model cannot be traced, or a weight has a parametrisation that is
    no mask.
    """
    if not any(isinstance(module, _NORMS) for module in model.modules()):
        return ()
    traced = trace(model)
    folded = []
    for node in traced.graph.nodes:
        norm = _module(traced, node)
        if not isinstance(norm, _NORMS) or norm.running_mean is None:
            continue
        before = node.all_input_nodes[0]
        layer = _module(traced, before)
        if (isinstance(layer, _LINEAR) and len(layer.weight) == norm.num_features
                and sole_reader(before) is node and used_once(traced, before, node)):
            _fold(layer, norm, before.target)
            model.set_submodule(node.target, nn.Identity())
            folded.append(node.target)
    return tuple(folded)


def _fold(layer: nn.Module, norm: nn.Module, name: str) -> None:
    """Scale a layer's rows by the normalisation's factor, and its bias along."""
    target: Any = layer
    attribute = "weight"
    if parametrize.is_parametrized(layer, "weight"):
        parts = layer.parametrizations.weight
        if not all(isinstance(part, Mask) for part in parts):
            raise ArgumentError(
                f"layer {name!r} has a parametrisation other than a mask; remove that first with "
                "torch.nn.utils.parametrize.remove_parametrizations")
        target, attribute = parts, "original"
    weight = getattr(target, attribute)
    numbers = (weight, layer.bias, norm.running_mean, norm.running_var)
    w, b, mean, var = (None if n is None else n.detach().double() for n in numbers)
    gamma, beta = (None if n is None else n.detach().double() for n in (norm.weight, norm.bias))
    w, b = fuse_conv_bn_weights(w, b, mean, var, norm.eps, gamma, beta)
    for owner, key, value in ((target, attribute, w), (layer, "bias", b)):
        setattr(owner, key, nn.Parameter(value.detach().to(weight.dtype), weight.requires_grad))


def fold_average_pool(model: nn.Module) -> fx.GraphModule:
    """Return a copy in which each average pool is part of the convolution in front of it.

    A pool p x p of stride q directly after a convolution k x k of stride s gives one convolution
    of size k + s (p - 1) and stride s q, its kernel the mean of shifted copies. That holds only
    without a ReLU between and without borders of the pool's own, so a pool with padding, with
    ``ceil_mode`` or with a divisor is left alone, as is every pool that follows anything else. The
    merged layer has the convolution's name. Raises ArgumentError if the model cannot be traced.
    """
    traced = trace(copy.deepcopy(model))
    fold_pools(traced)
    return traced


def fold_pools(traced: fx.GraphModule) -> tuple[str, ...]:
    """Do the work of `fold_average_pool` on a traced model, in place; return the pools' names."""
    folded = []
    for node in list(traced.graph.nodes):
        pool = pool_of(traced, node)
        if pool is None or pool.kind != "average" or not pool.plain:
            continue
        before = node.all_input_nodes[0]
        conv = _module(traced, before)
        if (isinstance(conv, nn.Conv2d) and sole_reader(before) is node
                and used_once(traced, before) and symmetric_padding(conv) is not None):
            traced.set_submodule(before.target, _with_pool(conv, pool))
            folded.append(str(node.target) if node.op == "call_module" else node.name)
            remove(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return tuple(folded)


def _with_pool(conv: nn.Conv2d, pool: Pool) -> nn.Conv2d:
    """Return the convolution that does a convolution and then an average pool."""
    weight = conv.weight.detach().double()
    size = [d * (k - 1) + 1 + s * (p - 1) for d, k, s, p in
            zip(conv.dilation, conv.kernel_size, conv.stride, pool.kernel, strict=True)]
    kernel = weight.new_zeros(*weight.shape[:2], *size)
    spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            top, left = i * conv.stride[0], j * conv.stride[1]
            kernel[:, :, top:top + spans[0]:conv.dilation[0],
                   left:left + spans[1]:conv.dilation[1]] += weight
    kernel /= pool.kernel[0] * pool.kernel[1]
    merged = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, conv.out_channels, tuple(size),
        stride=tuple(map(operator.mul, conv.stride, pool.stride)),
        padding=symmetric_padding(conv), groups=conv.groups, bias=conv.bias is not None,
        padding_mode=conv.padding_mode, device=conv.weight.device, dtype=conv.weight.dtype)
    with torch.no_grad():
        merged.weight.copy_(kernel)
        if conv.bias is not None:
            merged.bias.copy_(conv.bias)
    return merged.requires_grad_(conv.weight.requires_grad).train(conv.training)


def symmetric_padding(conv: nn.Conv2d) -> Pair | None:
    """Return a convolution's padding in rows and columns; None if its sides differ ("same")."""
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        return conv.padding
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return None if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


def pool_of(traced: fx.GraphModule, node: fx.Node) -> Pool | None:
    """Return what a node pools, be it a module or a function; None if it is no such pool."""
    module = _module(traced, node)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
        given = {name: getattr(module, name) for name in _ARGUMENTS[kind] if hasattr(module, name)}
    elif node.op == "call_function" and node.target in _MAX | _AVERAGE:
        kind = "max" if node.target in _MAX else "average"
        given = dict(zip(_ARGUMENTS[kind], node.args[1:], strict=False)) | {
            name: value for name, value in node.kwargs.items() if name in _ARGUMENTS[kind]}
    else:
        return None
    options = _DEFAULTS | given
    kernel, padding = _pair(options["kernel_size"]), _pair(options["padding"])
    plain = (padding == (0, 0) and _pair(options["dilation"]) == (1, 1)
             and not options["ceil_mode"] and not options["return_indices"]
             and options["divisor_override"] is None)
    stride = _pair(options["stride"]) if options["stride"] else kernel
    return Pool(kind=kind, kernel=kernel, stride=stride, padding=padding, plain=plain)


def _pair(value: int | tuple[int, ...] | list[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _module(traced: fx.GraphModule, node: Any) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return traced.get_submodule(node.target)


def sole_reader(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads a node's result; None if there are more."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def used_once(traced: fx.GraphModule, *nodes: fx.Node) -> bool:
    """Return whether the module of each node runs once only."""
    runs = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    return all(runs[node.target] == 1 for node in nodes)


def remove(node: fx.Node) -> None:
    """Take a node with one input out of its graph; its readers read the input."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)
