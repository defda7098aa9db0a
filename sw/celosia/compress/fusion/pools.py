"""Two-dimensional pools in a traced network, and convolutions that average on their own."""

from __future__ import annotations

import copy
import operator
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

from celosia.compress.fusion.graph import module_of
from celosia.compress.layers import obstacle
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.trial import random_input, same_up_to_rounding

__all__ = ["Pair", "Pool", "pool_of", "symmetric_padding", "with_pool"]

Pair = tuple[int, int]

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


def pool_of(traced: fx.GraphModule, node: fx.Node) -> Pool | None:
    """Return what a node pools, be it a module or a function.

    None if it is no such pool, has a hook, or takes a size from the network's maps.
    """
    module = module_of(traced, node)
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d) and obstacle(module) is None:
        kind = "max" if isinstance(module, nn.MaxPool2d) else "average"
        given = {name: getattr(module, name) for name in _ARGUMENTS[kind] if hasattr(module, name)}
    elif node.op == "call_function" and node.target in _MAX | _AVERAGE:
        kind = "max" if node.target in _MAX else "average"
        given = dict(zip(_ARGUMENTS[kind], node.args[1:], strict=False)) | {
            name: value for name, value in node.kwargs.items() if name in _ARGUMENTS[kind]}
    else:
        return None
    if len(node.all_input_nodes) != 1:
        return None
    options = _DEFAULTS | given
    kernel, padding = _pair(options["kernel_size"]), _pair(options["padding"])
    plain = (padding == (0, 0) and _pair(options["dilation"]) == (1, 1)
             and not options["ceil_mode"] and not options["return_indices"]
             and options["divisor_override"] is None)
    stride = _pair(options["stride"]) if options["stride"] else kernel
    return Pool(kind=kind, kernel=kernel, stride=stride, padding=padding, plain=plain)


def symmetric_padding(conv: nn.Conv2d) -> Pair | None:
    """Return a convolution's padding in rows and columns; None if its sides differ ("same")."""
    if conv.padding == "valid":
        return (0, 0)
    if conv.padding != "same":
        padding: Pair = conv.padding
        return padding
    total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    return None if any(t % 2 for t in total) else (total[0] // 2, total[1] // 2)


def with_pool(conv: nn.Conv2d, pool: Pool) -> nn.Conv2d | None:
    """Return the convolution that does a convolution and then a plain average pool.

    It is tried on random inputs; None where rounding of its weights costs too much.
    """
    kernel = _spread(conv, pool, conv.weight.detach().double())
    kernel /= pool.kernel[0] * pool.kernel[1]
    merged = nn.utils.skip_init(
        nn.Conv2d, conv.in_channels, conv.out_channels, tuple(kernel.shape[2:]),
        stride=tuple(map(operator.mul, conv.stride, pool.stride)),
        padding=symmetric_padding(conv), groups=conv.groups, bias=conv.bias is not None,
        padding_mode=conv.padding_mode, device=conv.weight.device, dtype=conv.weight.dtype)
    with torch.no_grad():
        merged.weight.copy_(kernel)
        if conv.bias is not None:
            merged.bias.copy_(conv.bias)
            merged.bias.requires_grad_(conv.bias.requires_grad)
    merged.weight.requires_grad_(conv.weight.requires_grad)
    kept = current_mask(conv)
    if not kept.all():
        apply_mask(merged, _spread(conv, pool, kept.double()) > 0)
    return merged.train(conv.training) if _same(conv, pool, merged) else None


def _spread(conv: nn.Conv2d, pool: Pool, weight: torch.Tensor) -> torch.Tensor:
    """Return the sum of a kernel's copies, one for each position in the pool's window."""
    size = [d * (k - 1) + 1 + s * (p - 1) for d, k, s, p in
            zip(conv.dilation, conv.kernel_size, conv.stride, pool.kernel, strict=True)]
    spans = [d * (k - 1) + 1 for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
    kernel = weight.new_zeros(*weight.shape[:2], *size)
    for i in range(pool.kernel[0]):
        for j in range(pool.kernel[1]):
            top, left = i * conv.stride[0], j * conv.stride[1]
            kernel[:, :, top:top + spans[0]:conv.dilation[0],
                   left:left + spans[1]:conv.dilation[1]] += weight
    return kernel


def _same(conv: nn.Conv2d, pool: Pool, merged: nn.Conv2d) -> bool:
    """Tell whether a merged convolution does what the two did, on random inputs, in float64."""
    old, new = (copy.deepcopy(part).double() for part in (conv, merged))
    window = [s * (p + q) for s, p, q in zip(conv.stride, pool.kernel, pool.stride, strict=True)]
    x = random_input(conv, window)
    with torch.no_grad():
        before = functional.avg_pool2d(old(x), pool.kernel, pool.stride)
        after = new(x)
        for part in new.parameters():
            part.abs_()
        size = new(x.abs())
    return same_up_to_rounding(before, after, size, conv.weight.dtype)


def _pair(value: int | tuple[int, ...] | list[int]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
