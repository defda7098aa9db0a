"""What each operator of core ATen reads, for `celosia.compress.unread.paths`.

Each rule gives a Path that is 1 wherever the operator's result may be other than 0, as a function
whose gradient is 1 wherever the result depends on an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import fx
from torch.nn import functional
from torch.utils import _pytree

from celosia.compress.unread.path import RULES, Path, pattern, rule, unknown

__all__ = ["RULES"]

Numbers: TypeAlias = torch.Tensor


@rule("getitem")
def _getitem(node: fx.Node, parts: Any, index: int) -> Any:
    return parts[index]


@rule("_assert_tensor_metadata")
def _nothing(node: fx.Node, *args: Any, **kwargs: Any) -> None:
    return None


# Each number from those at its own place


@rule("abs", "alias", "asin", "asinh", "atan", "atanh", "ceil", "clone", "contiguous", "detach",
      "elu", "erf", "expm1", "floor", "gelu", "leaky_relu", "lift_fresh_copy", "log1p",
      "nan_to_num", "neg", "positive", "relu", "round", "sgn", "sign", "silu", "sin", "sinh",
      "sqrt", "tan", "tanh", "to", "_to_copy", "trunc")  # fmt: skip
def _zero_at_zero(node: fx.Node, x: Path, *args: Any, **kwargs: Any) -> Path:
    return Path(x.value + _others(args, kwargs))


@rule("acos", "acosh", "bitwise_not", "cos", "cosh", "erfc", "exp", "exp2", "hardsigmoid", "isinf",
      "isnan", "log", "log10", "log2", "log_sigmoid", "logical_not", "reciprocal",
      "rsqrt", "sigmoid")
def _of_one(node: fx.Node, x: Path, *args: Any, **kwargs: Any) -> Path:
    return Path(x.value + 1 + _others(args, kwargs))


@rule("clamp", "hardtanh")
def _clamp(node: fx.Node, x: Path, low: Any = None, high: Any = None) -> Path:
    bounds = [bound for bound in (low, high) if bound is not None]
    if not all(isinstance(bound, int | float) for bound in bounds):
        return _of_some(node, x, *bounds)
    holds = (low is None or low <= 0) and (high is None or high >= 0)
    return Path(x.value if holds else x.value + 1)


@rule("pow")
def _power(node: fx.Node, base: Any, exponent: Any) -> Path:
    if isinstance(exponent, int | float) and exponent > 0:
        return Path(base.value)
    return _of_some(node, base, exponent)


@rule("atan2", "bitwise_and", "bitwise_or", "bitwise_xor", "copysign", "eq", "floor_divide", "fmod",
      "ge", "gt", "hypot", "le", "logical_and", "logical_or", "logical_xor", "lt", "ne",
      "remainder")  # fmt: skip
def _of_some(node: fx.Node, *args: Any, **kwargs: Any) -> Path:
    return Path(_total(args) + 1)


@rule("add", "maximum", "minimum", "sub")
def _sum(node: fx.Node, *args: Any, **kwargs: Any) -> Path:
    return Path(_total(args[:2]))


@rule("mul")
def _product(node: fx.Node, a: Any, b: Any) -> Path:
    return Path(pattern(a) * pattern(b))    # a factor that is held at 0 hides the other


@rule("div")
def _quotient(node: fx.Node, a: Any, b: Any, **kwargs: Any) -> Path:
    if isinstance(b, Path):
        return _of_some(node, a, b)
    shape = a.shape if not isinstance(b, torch.Tensor) else torch.broadcast_shapes(a.shape, b.shape)
    return Path(a.value.expand(shape))


@rule("where")
def _where(node: fx.Node, condition: Any, a: Any, b: Any) -> Path:
    if isinstance(condition, torch.Tensor):
        return Path(torch.where(condition, pattern(a), pattern(b)))
    return Path((pattern(a) + pattern(b)) * (condition.value + 1))


def _others(*trees: Any) -> Numbers:
    """Return one number that stands for all Paths in some arguments, each of which may matter."""
    parts = [part.value.sum() for part in _pytree.tree_leaves(trees) if isinstance(part, Path)]
    return sum(parts, torch.zeros(()))


def _total(operands: Sequence[Any]) -> Numbers:
    """Return the sum of the patterns of Paths, tensors and numbers."""
    patterns = [torch.as_tensor(pattern(part)) for part in operands]
    return sum(patterns[1:], patterns[0])


# Numbers that only move


@rule("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "cat", "col2im",
      "constant_pad_nd", "diagonal", "expand", "flip", "im2col", "permute",
      "pixel_shuffle", "pixel_unshuffle", "repeat", "roll", "select", "select_scatter", "slice",
      "slice_scatter", "split", "split_with_sizes", "squeeze", "stack", "t", "transpose", "tril",
      "triu", "unbind", "unfold", "unsqueeze", "upsample_bilinear2d",
      "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
      "upsample_trilinear3d", "mm", "bmm", "mv", "dot", "matmul", "linear", "convolution",
      "cumsum", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")  # fmt: skip
def _linear(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """Operators that place numbers, or add and multiply them: run on the patterns."""
    args, kwargs = _pytree.tree_map_only((Path, torch.Tensor), pattern, (args, kwargs))
    return _pytree.tree_map_only(torch.Tensor, Path, node.target(*args, **kwargs))


@rule("view", "_unsafe_view")
def _viewed(node: fx.Node, x: Path, shape: Sequence[int]) -> Path:
    return Path(x.value.reshape(shape))     # a pattern may lie in memory in another way


@rule("addmm", "addmv", "baddbmm")
def _product_and_sum(node: fx.Node, start: Any, a: Any, b: Any, **kwargs: Any) -> Path:
    return Path(pattern(start) + torch.matmul(pattern(a), pattern(b)))


@rule("gather", "index", "index_put", "index_select")
def _picked(node: fx.Node, x: Any, *args: Any, **kwargs: Any) -> Path:
    """Places that do not depend on the inputs; `index_put` has values behind them."""
    put = 1 if str(node.target._schema.name) == "aten::index_put" else len(args)
    if any(isinstance(part, Path) for part in _pytree.tree_leaves((args[:put], kwargs))):
        raise unknown(node)
    values = [pattern(part) if isinstance(part, Path | torch.Tensor) else part
              for part in args[put:]]
    return Path(node.target(pattern(x), *args[:put], *values, **kwargs))


@rule("copy")
def _copied(node: fx.Node, x: Any, source: Any, *args: Any) -> Path:
    return Path(torch.as_tensor(pattern(source)).expand(x.shape))


@rule("embedding")
def _row(node: fx.Node, weight: Any, indices: Any, *args: Any, **kwargs: Any) -> Path:
    if isinstance(indices, Path):       # any row may be the one
        return Path(pattern(weight).sum(0) + indices.value[..., None])
    return Path(torch.embedding(pattern(weight), indices))


@rule("empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like",
      "zeros_like")
def _of_a_form(node: fx.Node, *args: Any, **kwargs: Any) -> Numbers:
    """Tensors that have no more than a shape and a type from others."""
    meant = [torch.empty(part.shape, dtype=given.meta["val"].dtype) if isinstance(part, Path)
             else part for given, part in zip(node.args, args, strict=True)]
    return node.target(*meant, **kwargs)


# Many numbers into one


@rule("all", "amax", "amin", "any", "argmax", "argmin", "kthvalue", "linalg_vector_norm",
      "logsumexp", "max", "mean", "median", "min", "mode", "nanmedian", "prod", "std", "sum", "var",
      "var_mean")  # fmt: skip
def _reduced(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    if len([part for part in args if isinstance(part, Path | torch.Tensor)]) > 1:
        raise unknown(node)     # max of two tensors and such
    given = _named(node, args, kwargs)
    x, axes = given["self" if "self" in given else "input"].value, given.get("dim")
    axes = list(range(x.ndim)) if axes is None or axes == [] else axes
    total = x.sum(axes, keepdim=bool(given.get("keepdim", False)))
    zero_at_zero = _name(node) not in ("all", "argmax", "argmin", "logsumexp")
    return _results(node, Path(total if zero_at_zero else total + 1))


@rule("_log_softmax", "_softmax", "cumprod", "logcumsumexp", "sort", "topk")
def _mixed_along(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    given = _named(node, args, kwargs)
    x, axis = given["self"].value, given.get("dim", -1)
    mixed = x.sum(axis, keepdim=True).expand(x.shape)
    if "k" in given:
        mixed = mixed.narrow(axis, 0, given["k"])
    return _results(node, Path(mixed + 1 if _name(node).endswith(("softmax", "exp")) else mixed))


@rule("native_layer_norm")
def _layer_norm(node: fx.Node, x: Path, shape: Sequence[int], *args: Any) -> Any:
    axes = list(range(-len(shape), 0))
    mixed = x.value.sum(axes, keepdim=True).expand(x.shape)
    return _results(node, Path(mixed + 1 + _others(args)))


@rule("native_group_norm")
def _group_norm(node: fx.Node, x: Path, *args: Any) -> Any:
    groups = x.value.reshape(x.shape[0], args[-2], -1)
    mixed = groups.sum(-1, keepdim=True).expand(groups.shape)
    return _results(node, Path(mixed.reshape(x.shape) + 1 + _others(args)))


@rule("_native_batch_norm_legit_no_training")
def _batch_norm(node: fx.Node, x: Any, *args: Any) -> Any:
    return _results(node, Path(pattern(x) + 1 + _others(args)))


@rule("_native_batch_norm_legit")
def _batch_norm_of_batch(node: fx.Node, x: Path, *args: Any) -> Any:
    if len(_named(node, (x, *args), {})) != 6:
        raise unknown(node)     # with running statistics, in train mode
    axes = [axis for axis in range(x.value.ndim) if axis != 1]
    mixed = x.value.sum(axes, keepdim=True).expand(x.shape)
    return _results(node, Path(mixed + 1 + _others(args)))


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool2d_with_indices",
      "max_pool3d_with_indices")
def _pooled(node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    """Sums over windows, by a convolution with ones."""
    given = _named(node, args, kwargs)
    x, value = given["self"].value, node.meta["val"]
    wanted = (value if isinstance(value, torch.Tensor) else value[0]).shape
    axes = next(axes for axes in (1, 2, 3) if f"pool{axes}d" in _name(node))
    sizes, outs = x.shape[-axes:], wanted[-axes:]
    kernel, padding, dilation = (_each(given.get(name), axes, default) for name, default in (
        ("kernel_size", 1), ("padding", 0), ("dilation", 1)))
    stride = _each(given.get("stride") or given["kernel_size"], axes, 1)
    sides: list[int] = []
    for size, out, k, s, p, d in zip(sizes, outs, kernel, stride, padding, dilation, strict=True):
        sides = [p, max(0, (out - 1) * s + d * (k - 1) + 1 - size - p), *sides]
    maps = functional.pad(x.reshape(-1, 1, *sizes), sides)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    found = convolve(maps, torch.ones(1, 1, *kernel), stride=tuple(stride),
                     dilation=tuple(dilation))
    for axis, out in zip(range(-axes, 0), outs, strict=True):
        found = found.narrow(axis, 0, out)
    return _results(node, Path(found.reshape(wanted)))


@rule("adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive(node: fx.Node, x: Path, size: Sequence[int]) -> Any:
    average = (functional.adaptive_avg_pool2d if "2d" in _name(node)
               else functional.adaptive_avg_pool3d)
    return _results(node, Path(average(x.value, size)))


def _name(node: fx.Node) -> str:
    return str(node.target._schema.name).split("::")[-1]


def _named(node: fx.Node, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that were given, by their names in the operator's schema."""
    names = [argument.name for argument in node.target._schema.arguments]
    return dict(zip(names, args, strict=False)) | kwargs


def _each(value: Any, axes: int, default: int) -> list[int]:
    """Return one number for each axis."""
    if value is None or value == []:
        return [default] * axes
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _results(node: fx.Node, first: Path) -> Any:
    """Return what an operator gives: the first, and Paths from all of it to further results."""
    values = node.meta["val"]
    if isinstance(values, torch.Tensor):
        return first
    return (first, *(Path(first.value.sum() + torch.ones(value.shape)) for value in values[1:]))
