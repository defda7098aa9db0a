"""How many axes the tensors of a network have, as an example or its operators alone tell it.

A batch normalisation works along axis 1. Behind a linear layer that is the axis of its features
for (N, features), and another one for (N, length, features). An example tells which it is. Without
one the operators may: `flatten(1)` gives two axes, whatever it gets; and an input that would have
two lengths along one axis, because two normalisations of different sizes read it, is ruled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import fx, nn

from celosia.compress.fusion.graph import module_of, tensor_of
from celosia.compress.layers import evaluating
from celosia.compress.operators import ACTIVATIONS, FUNCTIONS, UNCHANGED, also_in_place
from celosia.compress.promise import example_for

__all__ = ["graph_ranks", "seen_ranks"]

_MOST = 6
"""Inputs of 1 to so many axes are considered."""

_Convs = nn.modules.conv._ConvNd
_MAPS = {1: (nn.Conv1d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d,
             nn.AdaptiveMaxPool1d),
         2: (nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
             nn.AdaptiveMaxPool2d, nn.BatchNorm2d),
         3: (nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d,
             nn.AdaptiveMaxPool3d, nn.BatchNorm3d)}  # fmt: skip
"""Layers of maps (N, channels, ...), by the axes that follow these two."""

_POOLS = {f"{kind}_pool{axes}d": axes for axes in (1, 2, 3)
          for kind in ("max", "avg", "adaptive_avg", "adaptive_max")}
_SAME = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
         nn.Mish, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus,
         nn.Softsign, nn.LogSigmoid, nn.Dropout, nn.AlphaDropout, nn.LayerNorm, nn.GroupNorm,
         nn.Identity, nn.Softmax, nn.LogSoftmax)  # fmt: skip
_SAME_NAMES = UNCHANGED | also_in_place(ACTIVATIONS | FUNCTIONS) | {"softmax", "log_softmax"}
"""Functions and methods that give the shape of their first argument."""

_ARITHMETIC = frozenset({"add", "sub", "mul", "truediv", "iadd", "isub", "imul", "div", "add_",
                         "sub_", "mul_", "div_"})


class _ImpossibleError(Exception):
    """No input of this form gets through the network."""


@dataclass(frozen=True)
class _Form:
    """rank : axes of a tensor.   length : size of axis 1.   None where it is not known."""

    rank: int | None = None
    length: int | None = None


_Forms = dict[fx.Node, _Form]
_UNKNOWN = _Form()


def seen_ranks(model: nn.Module, norms: Sequence[nn.Module],
               example_input: Any) -> dict[nn.Module, int]:
    """Return how many axes the inputs of batch normalisations have on an example.

    A normalisation that is not called, or with different ranks, is not in the result.
    """
    seen: dict[nn.Module, set[int]] = {norm: set() for norm in norms}
    handles = [norm.register_forward_pre_hook(lambda norm, given: seen[norm].add(given[0].dim()))
               for norm in norms]
    try:
        with evaluating(model), torch.no_grad():
            model(example_for(model, example_input).clone())
    finally:
        for handle in handles:
            handle.remove()
    return {norm: ranks.pop() for norm, ranks in seen.items() if len(ranks) == 1}


def graph_ranks(traced: fx.GraphModule) -> dict[nn.Module, int]:
    """Return how many axes the inputs of batch normalisations have, of those where it is certain.

    Convolutions and pools are taken to get a batch: (N, channels, ...).
    """
    inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
    guesses = [_Form(rank) for rank in range(1, _MOST + 1)] if len(inputs) == 1 else [_UNKNOWN]
    found = []
    for guess in guesses:
        try:
            found.append(_walk(traced, guess))
        except _ImpossibleError:
            continue
    return {norm: rank for norm, rank in (found[0] if found else {}).items()
            if rank is not None and all(other[norm] == rank for other in found)}


def _walk(traced: fx.GraphModule, guess: _Form) -> dict[nn.Module, int | None]:
    """Return the ranks of the normalisations' inputs if the network's input has a form."""
    forms: _Forms = {}
    ranks: dict[nn.Module, int | None] = {}
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        if node.op == "placeholder":
            forms[node] = guess
        elif node.op == "get_attr":
            forms[node] = _of_tensor(traced, node)
        elif module is not None:
            given = forms[node.all_input_nodes[0]] if node.all_input_nodes else _UNKNOWN
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                same = ranks.get(module, given.rank) == given.rank
                ranks[module] = given.rank if same else None
            forms[node] = _after_module(module, given)
        else:
            forms[node] = _after_function(node, forms)
    return ranks


def _of_tensor(traced: fx.GraphModule, node: fx.Node) -> _Form:
    tensor = tensor_of(traced, node)
    if not isinstance(tensor, torch.Tensor):
        return _UNKNOWN
    return _Form(tensor.dim(), tensor.shape[1] if tensor.dim() > 1 else None)


def _after_module(module: nn.Module, x: _Form) -> _Form:
    """Return the form of what a layer gives."""
    if isinstance(module, _SAME):
        return x
    for axes, kinds in _MAPS.items():
        if isinstance(module, kinds):
            return _map(module, x, axes)
    if isinstance(module, nn.BatchNorm1d):
        if x.rank not in (None, 2, 3) or x.length not in (None, module.num_features):
            raise _ImpossibleError
        return _Form(x.rank, module.num_features)
    if isinstance(module, nn.Linear):
        if x.rank == 2 and x.length not in (None, module.in_features):
            raise _ImpossibleError
        return replace(x, length=module.out_features) if x.rank == 2 else (
            x if x.rank is not None else _UNKNOWN)
    if isinstance(module, nn.Flatten):
        return _flattened(x, module.start_dim, module.end_dim)
    return _UNKNOWN


def _map(module: nn.Module | None, x: _Form, axes: int) -> _Form:
    """Return the form of what a layer of maps gives."""
    if x.rank not in (None, axes + 2):
        raise _ImpossibleError
    if isinstance(module, _Convs):
        return _Form(axes + 2, module.out_channels)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return _Form(axes + 2, module.num_features)
    return _Form(axes + 2, x.length)


def _after_function(node: fx.Node, forms: _Forms) -> _Form:
    """Return the form of what a function or a method of tensors gives."""
    name = node.target if isinstance(node.target, str) else _name(node.target)
    first = node.args[0] if node.args else node.kwargs.get("input")
    x = forms[first] if isinstance(first, fx.Node) else _UNKNOWN
    if name in _SAME_NAMES:
        return x
    if name in _POOLS:
        return _map(None, x, _POOLS[name])
    if name in _ARITHMETIC:
        return reduce(_broadcast, [forms[part] for part in node.all_input_nodes], _Form(0))
    rule = _RULES.get(name)
    return _UNKNOWN if rule is None else rule(node, x)


def _name(function: Any) -> str:
    """Return the name of a function of torch or an operator of Python's; "" for another."""
    home = getattr(function, "__module__", None) or "torch"
    return getattr(function, "__name__", "") if home.split(".")[0] in ("torch", "_operator") else ""


def _broadcast(a: _Form, b: _Form) -> _Form:
    if a.rank is None or b.rank is None:
        return _UNKNOWN
    if a.rank != b.rank:
        wider, other = (a, b) if a.rank > b.rank else (b, a)
        return wider if other.rank == 0 else _Form(wider.rank)
    lengths = {a.length, b.length} - {1}
    if len(lengths - {None}) > 1:
        raise _ImpossibleError
    return _Form(a.rank, max((n for n in lengths if n is not None), default=None)
                 if lengths else 1)


def _flattened(x: _Form, start: Any = 0, end: Any = -1) -> _Form:
    if not isinstance(start, int) or not isinstance(end, int):
        return _UNKNOWN
    if x.rank is None:
        return {(0, -1): _Form(1), (1, -1): _Form(2)}.get((start, end), _UNKNOWN)
    low, high = (axis % x.rank if -x.rank <= axis < x.rank else None for axis in (start, end))
    if low is None or high is None:
        raise _ImpossibleError
    return x if low == high else _Form(x.rank - (high - low), x.length if low > 1 else None)


def _flatten(node: fx.Node, x: _Form) -> _Form:
    names = ("start_dim", "end_dim")
    given = dict(zip(names, node.args[1:], strict=False)) | {
        name: node.kwargs[name] for name in names if name in node.kwargs}
    return _flattened(x, given.get("start_dim", 0), given.get("end_dim", -1))


def _view(node: fx.Node, x: _Form) -> _Form:
    sizes: tuple[Any, ...] = node.args[1:] or (node.kwargs.get("shape", node.kwargs.get("size")),)
    if len(sizes) == 1:
        if not isinstance(sizes[0], tuple | list):
            return _Form(1) if isinstance(sizes[0], int) else _UNKNOWN
        sizes = tuple(sizes[0])
    length = sizes[1] if len(sizes) > 1 and isinstance(sizes[1], int) else -1
    return _Form(len(sizes), length if length > 0 else None)


def _mean(node: fx.Node, x: _Form) -> _Form:
    axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    keep = node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False)
    axes = (axes,) if isinstance(axes, int) else axes
    if x.rank is None or not isinstance(axes, tuple | list) or not isinstance(keep, bool):
        return _UNKNOWN
    if any(not isinstance(axis, int) or not -x.rank <= axis < x.rank for axis in axes):
        raise _ImpossibleError
    length = x.length if min(axis % x.rank for axis in axes) > 1 else None
    return _Form(x.rank if keep else x.rank - len(axes), length)


_RULES: dict[str, Callable[[fx.Node, _Form], _Form]] = {
    "flatten": _flatten, "view": _view, "reshape": _view, "mean": _mean}
