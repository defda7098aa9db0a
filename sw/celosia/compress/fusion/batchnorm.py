"""Batch normalisation folded into the convolution or linear layer before it, where exact."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from celosia.compress.entry import entry
from celosia.compress.fusion.graph import module_of, reads_besides, trace, used_once
from celosia.compress.fusion.ranks import graph_ranks, seen_ranks
from celosia.compress.fusion.unseen import refuse_unseen
from celosia.compress.layers import (
    computed_weight,
    held_weight,
    names_of,
    obstacle,
    put,
    refuse_computed_weight,
    weight_sharers,
)
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import Promise, restoring
from celosia.compress.trial import random_input, same_up_to_rounding
from celosia_spec.errors import ArgumentError, CelosiaError

__all__ = ["Folded", "fold_batchnorm"]

_Norm = nn.modules.batchnorm._BatchNorm
_PARTNERS: dict[type, tuple[type, ...]] = {
    nn.BatchNorm1d: (nn.Conv1d, nn.Linear), nn.BatchNorm2d: (nn.Conv2d,),
    nn.BatchNorm3d: (nn.Conv3d,)}
"""The layers that each normalisation can go into: where axis 1 is that of their outputs."""


class Folded(tuple[str, ...]):
    """Names of the batch normalisations that were folded, in the order in which they run.

    left : {name: why} of the others.
    """

    left: Mapping[str, str]

    def __new__(cls, names: Iterable[str] = (), left: Mapping[str, str] | None = None) -> Folded:
        """Return the names with the reasons of those that are not among them."""
        folded = super().__new__(cls, names)
        folded.left = dict(left or {})
        return folded


@entry
def fold_batchnorm(model: nn.Module, example_input: Any | None = None, *,
                   skip: Collection[str] = ()) -> Folded:
    """Fold each batch normalisation into the convolution or linear layer before it, in place.

    With g = gamma / sqrt(var + eps): W' = g W and b' = beta + g (b - mean), computed in float64
    (`torch.nn.utils.fusion`). The result is what the network computes in eval mode. Each folded
    layer is replaced by an `Identity` under all its names; masks, frozen parameters and the
    parameters' identities stay.

    Left alone are normalisations that follow no such layer of their own (its output or one of its
    tensors is read elsewhere too, or it runs twice), those without running statistics, and layers
    with a forward of their own or hooks; the result says why. Behind a linear layer the
    normalisation must read (N, features): where the operators do not tell that, an example does.

    Every fold is tried on random inputs before it is done. With an example the outputs of the
    network are compared too; without one, its graph, and what the graph may not show is refused.

    Parameters
    ----------
    model
        Any module that `torch.fx` can trace. Without an example its convolutions are taken to get
        batches (N, channels, ...).
    example_input
        Inputs (N, ...), tensor or array, or None.
    skip
        Names of normalisations to leave alone.

    Returns
    -------
    Folded

    Raises
    ------
    ArgumentError
        The model cannot be traced or does not run on the example; `skip` names no normalisation;
        without an example, a hook, a forward of a layer's own or a ``__call__`` of the network's,
        which may read what is folded (`refuse_unseen`); a weight to fold into has a parametrisation
        that is no mask, or a mask of torch's own.
    CelosiaError
        The network computes something else afterwards; it is as before then.
    """
    norms = {module: name for name, module in model.named_modules() if isinstance(module, _Norm)}
    unknown = [name for name in skip if not any(name in names_of(model, norm) for norm in norms)]
    if unknown:
        raise ArgumentError(f"no batch normalisation is called {', '.join(map(repr, unknown))}; "
                            f"there are: {', '.join(map(repr, norms.values())) or 'none'}")
    if not norms:
        return Folded()
    traced = trace(model)
    ranks = (graph_ranks(traced) if example_input is None
             else seen_ranks(model, tuple(norms), example_input))
    left = dict.fromkeys(norms.values(),
                         "is not called in eval mode, or inside a layer with its own forward")
    pairs: dict[str, tuple[nn.Module, nn.Module]] = {}
    for node in traced.graph.nodes:
        norm = module_of(traced, node)
        if norm not in norms:
            continue
        name = norms[norm]
        layer = module_of(traced, node.all_input_nodes[0])
        reason = "named in skip" if set(names_of(model, norm)) & set(skip) else (
            next(_obstacles(model, traced, node, ranks.get(norm)), None))
        if reason is None:
            refuse_computed_weight(model, [layer], allowed=[Mask])
            reason = _inexact(layer, norm)
        if reason is None:
            pairs[name] = layer, norm
            left.pop(name, None)
        else:
            left[name] = reason
    if pairs and example_input is None:
        refuse_unseen(traced, model)
    _do(model, pairs, traced, example_input)
    return Folded(pairs, left)


def _obstacles(model: nn.Module, traced: fx.GraphModule, node: fx.Node,
               rank: int | None) -> Iterator[str]:
    """Yield why a normalisation stays. What comes after a reason is not asked for."""
    norm, before = traced.get_submodule(node.target), node.all_input_nodes[0]
    layer = module_of(traced, before)
    partners = next((kinds for kind, kinds in _PARTNERS.items() if isinstance(norm, kind)), ())
    if layer is None or not any(isinstance(layer, kind) for kind in partners):
        follows = "no layer" if layer is None else f"a {type(layer).__name__}"
        yield f"follows {follows}, and goes into convolutions and linear layers only"
        return
    name = names_of(model, layer)[0]
    if norm.running_mean is None:
        yield "has no running statistics"
    if len(layer.weight) != norm.num_features:
        yield f"has another number of features than layer {name!r}"
    if list(before.users) != [node]:
        yield f"the output of layer {name!r} is read elsewhere too"
    if not used_once(traced, before, node):
        yield f"it or layer {name!r} runs more than once"
    for part, called in ((layer, name), (norm, node.target)):
        problem = obstacle(part, allowed=[Mask])
        refused = part is layer and problem == computed_weight(layer, allowed=[Mask])
        if problem is not None and not refused:
            yield f"layer {called!r} {problem}"
        line = reads_besides(traced, part)
        if line is not None:
            yield f"{line} reads a tensor of layer {called!r} past the layer"
    sharers = weight_sharers(model, layer)
    if sharers:
        yield f"layer {name!r} holds a tensor that {sharers[0]!r} holds too"
    if (other := _axis(layer, name, rank)) is not None:
        yield other


def _axis(layer: nn.Module, name: str, rank: int | None) -> str | None:
    """Return why axis 1 may not be that of a layer's outputs, or None."""
    wanted = layer.weight.ndim      # a weight has as many axes as the batches of maps it reads
    if rank == wanted:
        return None
    if rank is None and isinstance(layer, nn.Linear):
        return (f"layer {name!r} may read (N, features) or (N, length, features), and only the "
                "first folds; give example_input")
    return (f"it normalises another axis than that of the outputs of layer {name!r}, or is not "
            "called on the example")


def _do(model: nn.Module, pairs: Mapping[str, tuple[nn.Module, nn.Module]],
        traced: fx.GraphModule, example_input: Any | None) -> None:
    """Fold the pairs, and put the network back if it is not what it was."""
    steps: dict[str, Callable[[], None]] = {
        name: partial(_fold, model, layer, norm) for name, (layer, norm) in pairs.items()}
    if example_input is not None:
        Promise(model, example_input).keep(model, steps, "folding {layer!r}")
        return
    wanted = [(node.op, node.target) for node in traced.graph.nodes
              if not (node.op == "call_module" and node.target in pairs)]
    with restoring(model):
        for step in steps.values():
            step()
        try:
            found = [(node.op, node.target) for node in trace(model).graph.nodes]
        except ArgumentError:
            found = []
        if found != wanted:
            raise CelosiaError(
                f"without {', '.join(map(repr, pairs))} {type(model).__name__}.forward does "
                "something else, so the network was put back as it was; name what it needs in "
                "skip, or keep layers as attributes only")


def _fold(model: nn.Module, layer: nn.Module, norm: nn.Module) -> None:
    """Scale a layer's rows by the normalisation's factor, its bias along; an Identity is left."""
    _set(layer, *_folded(layer, norm))
    put(model, norm, nn.Identity().train(norm.training))


def _folded(layer: nn.Module, norm: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a layer with its normalisation in it, in the layer's type."""
    numbers = (held_weight(layer), layer.bias, norm.running_mean, norm.running_var)
    w, b, mean, var = (None if n is None else n.detach().double() for n in numbers)
    gamma, beta = (None if n is None else n.detach().double() for n in (norm.weight, norm.bias))
    w, b = fuse_conv_bn_weights(w, b, mean, var, norm.eps, gamma, beta)
    kind = layer.weight.dtype
    return w.detach().to(kind), b.detach().to(kind)


def _set(layer: nn.Module, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Give a layer's parameters these numbers; a bias that it had not is frozen as its weight."""
    own = held_weight(layer)
    own.data = torch.empty_like(own.data).copy_(weight)     # memory that nothing else looks into
    if layer.bias is None:
        layer.bias = nn.Parameter(bias.to(own.device), own.requires_grad)
    else:
        layer.bias.data = bias.to(layer.bias)


def _inexact(layer: nn.Module, norm: nn.Module) -> str | None:
    """Return why a layer with its normalisation folded would compute something else, or None.

    Both are tried on random inputs, in float64.
    """
    kind = layer.weight.dtype
    weight, bias = _folded(layer, norm)
    if not (weight.isfinite().all() and bias.isfinite().all()):
        return f"folded numbers would not be finite as {str(kind).removeprefix('torch.')}"
    old, own, new, sums = (copy.deepcopy(part).double().eval() for part in
                           (layer, norm, layer, layer))
    _set(new, weight.double(), bias.double())
    scale = (1 if own.weight is None else own.weight) * (own.running_var + own.eps).rsqrt()
    shift = 0 if own.bias is None else own.bias
    offsets = (0 if old.bias is None else old.bias.abs()) + own.running_mean.abs()
    with torch.no_grad():
        _set(sums, weight.double().abs(), scale.abs() * offsets + abs(shift))
        x = random_input(layer)
        same = same_up_to_rounding(own(old(x)), new(x), sums(x.abs()), kind)
    return None if same else f"folded numbers would lose too much as {kind}"
