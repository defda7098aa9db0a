"""Layer fusion (P0, section 4): exactly where algebra allows it, else by retraining.

The retrained form is the "streamline slimming" of Li, Wang, Kong, "DeepRebirth", AAAI 2018, arXiv
1708.04728, which P0's description matches: pooling and normalisation go, their stride moves into
the convolution before them, that convolution starts anew and learns faster than the others.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from celosia.compress.entry import entry
from celosia.compress.fusion.fold import fold_batchnorm, folded_copy
from celosia.compress.fusion.graph import module_of, remove, sole_reader, used_once
from celosia.compress.fusion.pools import Pair, Pool, pool_of, symmetric_padding
from celosia.compress.layers import obstacle, weight_sharers
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import Promise, example_for
from celosia.compress.training.finetune import FineTune
from celosia.compress.training.journal import Journal, describe, fingerprint
from celosia.compress.training.rounds import reproducible
from celosia_spec.errors import ArgumentError

__all__ = ["FusionReport", "MergedLayer", "fuse"]

_RELU = {torch.relu, torch.relu_, functional.relu, functional.relu_, functional.relu6}
_RELU_METHODS = {"relu", "relu_"}
_AVERAGES_OF_LINES = (nn.AvgPool1d, functional.avg_pool1d)
_POOLS_OF_LINES = (*_AVERAGES_OF_LINES, nn.MaxPool1d, functional.max_pool1d, torch.max_pool1d)


@dataclass(frozen=True, kw_only=True)
class MergedLayer:
    """A convolution that took over what followed it, and starts anew.

    layer   : its name.   removed : the nodes that are gone, in the words of the traced graph.
    kernel, stride, padding : of the new convolution, rows and columns.
    """

    layer: str
    removed: tuple[str, ...]
    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, kw_only=True, eq=False)
class FusionReport:
    """The outcome of `fuse`.

    model         : the fused network, a `torch.fx.GraphModule`; layers keep their names.
    batch_norms   : names of the batch normalisations that were folded, exactly.
    average_pools : names of the average pools that were folded, exactly.
    left          : {batch normalisation: why it was not folded}, and {Conv1d: why the pool behind
                    it was not}.
    merged        : the convolutions made anew, in the order in which they were; () without
                    retraining.
    choices       : every setting that decided the outcome.
    """

    model: fx.GraphModule
    batch_norms: tuple[str, ...]
    average_pools: tuple[str, ...]
    left: Mapping[str, str]
    merged: tuple[MergedLayer, ...]
    choices: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Group:
    """A convolution and what is to go behind it.

    size, wanted : of the map that it reads, and of the one that must come out (rows, columns).
    """

    conv: fx.Node
    gone: tuple[fx.Node, ...]
    pools: tuple[Pool, ...]
    size: Pair
    wanted: Pair


@entry
def fuse(
    model: nn.Module,
    example_input: Any,
    *,
    layers: Sequence[str] | None = None,
    finetune: Callable[[nn.Module, int], None] | None = None,
    rate_factor: float = 10.0,
    seed: int = 0,
    checkpoint: str | Path | None = None,
) -> FusionReport:
    """Fuse normalisation and pooling into convolutions. The given model is not changed.

    Without `finetune` only the exact folds are done (`fold_batchnorm`, `fold_average_pool`): the
    outputs stay, up to rounding; they are compared on the example and on random inputs. With it,
    the pools and local response normalisations that are left behind a convolution (also behind its
    ReLU) go as well, unless one has a hook or takes its size from the map. Layer by layer: the
    convolution becomes a new one, of the same kernel, with the pools' strides on top of its own;
    its padding is the nearest that gives the map that the pool gave. It starts from torch's
    standard initialisation, all other layers keep their weights, and `finetune` trains the
    network. After the last layer `finetune` runs once more.

    Parameters
    ----------
    model
        The trained network; traceable by `torch.fx`. Its functional dropout becomes layers.
    example_input
        One input (1, ...), tensor or array; tells the sizes of the maps.
    layers
        Names of the convolutions to retrain, in the order wanted; None is all that have something
        to take over, from the first to the last.
    finetune
        Called as ``finetune(model, round)``, round = 0, 1, ... for the layers and one more at the
        end; or None. A `FineTune` is called with the learning rate of the layer just made anew
        multiplied by `rate_factor`; any other callable sets its own rates.
    rate_factor
        10 in DeepRebirth.
    seed
        Of the new layers. In round r torch's global generator is set to ``seed + r`` for
        `finetune`, and put back afterwards.
    checkpoint
        Where finished rounds are kept, so that a run that was stopped goes on; None keeps none.

    Returns
    -------
    FusionReport

    Raises
    ------
    ArgumentError
        The model cannot be traced, or does something else in train mode that is not the work of a
        layer (`trace_both_modes`); a named layer is no convolution with a pool or normalisation
        to take over; nothing to retrain, or no `finetune` for `layers` or `checkpoint`; no padding
        gives the map's size.
    CelosiaError
        After the exact folds the network computes something else; the message names the layer.
    """
    if finetune is None and (layers is not None or checkpoint is not None):
        raise ArgumentError("layers and checkpoint are for retrained fusion; give finetune too")
    promise = Promise(model, example_input)
    fused = copy.deepcopy(model)
    norms = fold_batchnorm(fused, example_input)
    traced, pools = folded_copy(fused, promise)
    lines = _lines(traced, _AVERAGES_OF_LINES if finetune is None else _POOLS_OF_LINES)
    merged: tuple[MergedLayer, ...] = ()
    choices = {"layers": layers if layers is None else list(layers), "rate_factor": rate_factor,
               "seed": seed, "finetune": describe(finetune)}
    if finetune is not None:
        journal = Journal(checkpoint, choices | {"model": fingerprint(model)})
        journal.check(traced.state_dict())
        _note_shapes(traced, example_input)
        groups = _choose(traced, layers)
        merged = _retrain(traced, groups, finetune, rate_factor, seed, journal)
    traced.train(model.training)
    return FusionReport(model=traced, batch_norms=tuple(norms), average_pools=pools,
                        left={**norms.left, **lines}, merged=merged, choices=choices)


def _choose(traced: fx.GraphModule, layers: Sequence[str] | None) -> list[_Group]:
    """Return the groups to retrain, in order."""
    found = {group.conv.target: group for group in _groups(traced)}
    unknown = [name for name in layers or () if name not in found]
    if unknown or not found:
        raise ArgumentError(
            f"no pool or local response normalisation follows "
            f"{', '.join(map(repr, unknown)) or 'any convolution'} alone; layers that can take "
            f"one over: {', '.join(map(repr, found)) or 'none, so leave finetune out'}")
    return list(found.values()) if layers is None else [found[name] for name in layers]


def _groups(traced: fx.GraphModule) -> list[_Group]:
    """Return each convolution with pools or normalisations behind it that nothing else reads."""
    groups = []
    for conv in traced.graph.nodes:
        if conv.op != "call_module" or not used_once(traced, conv):
            continue
        layer = module_of(traced, conv)
        if not isinstance(layer, nn.Conv2d) or obstacle(layer, allowed=[Mask]) is not None or (
                weight_sharers(traced, layer)):
            continue
        gone, pools = [], []
        node = sole_reader(conv)
        while node is not None:
            pool = pool_of(traced, node)
            if pool is not None:
                pools.append(pool)
            if pool is not None or _is_norm(traced, node):
                gone.append(node)
            elif not _is_pointwise(traced, node):
                break
            node = sole_reader(node)
        if gone:
            groups.append(_Group(conv=conv, gone=tuple(gone), pools=tuple(pools),
                                 size=_size(conv.all_input_nodes[0]), wanted=_size(gone[-1])))
    return groups


def _lines(traced: fx.GraphModule, pools: tuple[Any, ...]) -> dict[str, str]:
    """Return {Conv1d: why it does not take over the pool, one of these, that alone reads it}."""
    found = {}
    for conv in traced.graph.nodes:
        if isinstance(module_of(traced, conv), nn.Conv1d):
            node = sole_reader(conv)
            while node is not None and _is_pointwise(traced, node):
                node = sole_reader(node)
            if node is not None and (node.target in pools
                                     or type(module_of(traced, node)) in pools):
                found[str(conv.target)] = "is a Conv1d; pools go into Conv2d layers"
    return found


def _is_norm(traced: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(traced, node)
    if module is not None:
        return isinstance(module, nn.LocalResponseNorm) and obstacle(module) is None
    return node.op == "call_function" and node.target is functional.local_response_norm


def _is_pointwise(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node may stand between a convolution and what it takes over."""
    if node.op == "call_module":
        return isinstance(traced.get_submodule(node.target),
                          nn.ReLU | nn.ReLU6 | nn.Dropout | nn.Dropout2d)
    return ((node.op == "call_function" and node.target in _RELU)
            or (node.op == "call_method" and node.target in _RELU_METHODS))


def _note_shapes(traced: fx.GraphModule, example_input: Any) -> None:
    """Note the shape of every node's result in the graph."""
    traced.eval()
    with torch.no_grad():
        ShapeProp(traced).propagate(example_for(traced, example_input).clone())


def _retrain(
    traced: fx.GraphModule,
    groups: Sequence[_Group],
    finetune: Callable[[nn.Module, int], None],
    rate_factor: float,
    seed: int,
    journal: Journal,
) -> tuple[MergedLayer, ...]:
    """Make the groups' convolutions anew, one after the other, and train after each."""
    done = len(journal.records)
    merged = []
    for index, group in enumerate((*groups, None)):
        if group is not None:
            merged.append(_merge(traced, group, seed + index))
        if index < done - 1:
            continue
        if index == done - 1:
            traced.load_state_dict(journal.restore())
            continue
        train = finetune
        if group is not None and isinstance(finetune, FineTune):
            factors = {**finetune.rate_factors, f"{group.conv.target}.": rate_factor}
            train = replace(finetune, rate_factors=factors)
        with reproducible(traced, seed + index):
            train(traced, index)
        journal.finish({"layer": None if group is None else group.conv.target},
                       traced.state_dict())
    return tuple(merged)


def _merge(traced: fx.GraphModule, group: _Group, seed: int) -> MergedLayer:
    """Put a new convolution in place of a group; return what it is."""
    name = group.conv.target
    old = traced.get_submodule(name)
    stride = reduce(lambda a, pool: tuple(map(operator.mul, a, pool.stride)), group.pools,
                    old.stride)
    wished = symmetric_padding(old) or (0, 0)
    spans = [d * (k - 1) + 1 for d, k in zip(old.dilation, old.kernel_size, strict=True)]
    rows, columns = (_padding(name, *numbers) for numbers in
                     zip(group.size, group.wanted, spans, stride, wished, strict=True))
    padding = (rows, columns)
    with reproducible(traced, seed):
        new = nn.Conv2d(old.in_channels, old.out_channels, old.kernel_size, stride=stride,
                        padding=padding, dilation=old.dilation, groups=old.groups,
                        bias=old.bias is not None, padding_mode=old.padding_mode)
    weight = old.weight
    traced.set_submodule(name, new.to(weight.device, weight.dtype).train(old.training))
    for node in group.gone:
        remove(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return MergedLayer(layer=name, removed=tuple(node.name for node in group.gone),
                       kernel=old.kernel_size, stride=stride, padding=padding)


def _size(node: fx.Node) -> Pair:
    """Return the rows and columns of a node's result."""
    return tuple(node.meta["tensor_meta"].shape[-2:])


def _padding(name: str, size: int, wanted: int, span: int, stride: int, wished: int) -> int:
    """Return the padding nearest to `wished` that turns `size` positions into `wanted`."""
    for padding in sorted(range(span), key=lambda padding: abs(padding - wished)):
        if (size + 2 * padding - span) // stride + 1 == wanted:
            return padding
    raise ArgumentError(
        f"layer {name!r}: with the stride {stride} no padding turns {size} positions into the "
        f"{wanted} that the pool gives; leave the layer out by naming the others in layers")
