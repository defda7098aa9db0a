"""Which filters of a network can go, and what goes with them: tracing and removing.

Removing output channel *c* of a convolution takes with it entry *c* of the batch normalisation
behind it and slice *c* of every layer that reads it. Which layers these are is found by the
dependency graph of the package torch-pruning (Fang et al., "DepGraph", arXiv 2301.12900); how many
filters go, and which, is decided elsewhere (`celosia.compress.filters.selection`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch_pruning import DependencyGraph
from torch_pruning.pruner.function import DepthwiseConvPruner, prune_conv_out_channels

from celosia.compress.cost import output_positions
from celosia.compress.filters.mask import fold_in
from celosia.compress.layers import evaluating, prunable_layers
from celosia.errors import ArgumentError, CelosiaError

__all__ = ["COUPLED", "FilterCost", "Kept", "Structure", "Unit", "remove", "trace"]

COUPLED = ("keep", "prune")
Kept = Mapping[str, np.ndarray]
"""{unit name: indices of the filters that stay, ascending}."""

_BatchNorm = nn.modules.batchnorm._BatchNorm
_KNOWN = (nn.modules.conv._ConvNd, nn.Linear, _BatchNorm, nn.PReLU)
"""Layers that lose a channel without a change of what they do with the others."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a unit does to one layer: output channel ``roots[i]`` of the unit goes together with
    index ``indices[i]`` of the layer, which `cut(layer, indices)` removes."""

    layer: str
    cut: Callable[[nn.Module, list[int]], Any]
    indices: np.ndarray
    roots: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Filters that are removed together: one convolution, or several whose outputs are added.

    name     : the first of them.   members : all of them.   channels : their number of filters.
    norm     : name of the batch normalisation that alone reads the convolution, or None.
    """

    name: str
    members: tuple[str, ...]
    channels: int
    norm: str | None
    effects: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True)
class FilterCost:
    """MACs of all convolutions and linear layers for one input, those of the convolutions alone,
    and all parameters of the network."""

    macs: int
    conv_macs: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Structure:
    """What `trace` found.

    units   : {name: unit} that can lose filters.
    skipped : {convolution: why it cannot}.
    """

    units: Mapping[str, Unit]
    skipped: Mapping[str, str]
    _positions: Mapping[str, int]
    _skeleton: nn.Module

    def cost(self, kept: Kept | None = None) -> FilterCost:
        """Return the exact cost with these filters left; None is all of them."""
        skeleton = self._skeleton
        if kept is not None:
            skeleton = copy.deepcopy(skeleton)
            _cut(skeleton, self, self.everything(), kept)
        return self.count(skeleton)

    def everything(self) -> dict[str, np.ndarray]:
        """Return {unit: indices of all its filters}."""
        return {name: np.arange(unit.channels) for name, unit in self.units.items()}

    def count(self, model: nn.Module) -> FilterCost:
        """Return the cost of a network that has this structure or lost filters of it."""
        macs = {name: layer.weight.numel() * self._positions[name]
                for name, layer in prunable_layers(model).items()}
        conv = sum(macs[name] for name, layer in prunable_layers(model).items()
                   if isinstance(layer, nn.Conv2d))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return FilterCost(macs=sum(macs.values()), conv_macs=conv, parameters=parameters)


def trace(
    model: nn.Module,
    example_input: Any,
    *,
    coupled: str = "keep",
    ignore: Collection[str] = (),
) -> Structure:
    """Find the filters that can be removed.

    Parameters
    ----------
    model
        Any module whose weights have no parametrisation but filter masks. It is not changed, and
        works on a copy, so its size matters.
    example_input
        One input (1, ...), tensor or array.
    coupled
        What to do with convolutions whose outputs are added, such as those that write a residual
        stream: "keep" leaves them alone, so that of a residual block only the first convolution
        is pruned (Li et al., arXiv 1608.08710); "prune" takes all that write the same stream as
        one unit. A stream that a shortcut pads with zeros is never pruned.
    ignore
        Names of convolutions to leave alone.

    Raises
    ------
    ArgumentError
        A weight has masks of single weights; `ignore` names no convolution; nothing can be pruned.
    """
    if coupled not in COUPLED:
        raise ArgumentError(f"coupled must be one of {COUPLED}, not {coupled!r}")
    twin = copy.deepcopy(model)
    fold_in(twin)
    _refuse_parametrised(twin)
    layers = {name: layer for name, layer in prunable_layers(twin).items()
              if isinstance(layer, nn.Conv2d)}
    unknown = [name for name in ignore if name not in layers]
    if unknown:
        raise ArgumentError(f"no convolution is called {', '.join(map(repr, unknown))}; "
                            f"convolutions: {', '.join(map(repr, layers))}")
    positions = output_positions(twin, example_input)
    finder = _Finder(twin, example_input)
    units: dict[str, Unit] = {}
    skipped: dict[str, str] = {}
    for name in layers:
        if any(name in unit.members for unit in units.values()):
            continue
        found = "named in `ignore`" if name in ignore else finder.find(name, coupled, ignore)
        if isinstance(found, Unit):
            units[name] = found
        else:
            skipped[name] = found
    if not units:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise ArgumentError(f"no filter can be removed ({reasons or 'no convolution'})")
    return Structure(units=units, skipped=skipped, _positions=positions,
                     _skeleton=twin.to("meta"))


class _Finder:
    """The dependency graph of a network, asked for the unit of one convolution at a time."""

    def __init__(self, twin: nn.Module, example_input: Any) -> None:
        self.names = {module: name for name, module in twin.named_modules()}
        self.layers = {name: module for module, name in self.names.items()}
        self.calls = dict.fromkeys(self.layers, 0)
        handles = [module.register_forward_hook(self._count_call)
                   for module in self.names if isinstance(module, nn.Conv2d)]
        parameters = list(twin.parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)      # what has no gradient is not traced
        x = torch.as_tensor(example_input).to(parameters[0].device)
        with torch.enable_grad():
            # A tuple: a bare tensor is first unpacked into inputs without the batch axis.
            self.graph = DependencyGraph().build_dependency(twin, (x,), verbose=False)
        for handle in handles:
            handle.remove()

    def _count_call(self, module: nn.Module, _inputs: Any, _output: Any) -> None:
        self.calls[self.names[module]] += 1

    def find(self, name: str, coupled: str, ignore: Collection[str]) -> Unit | str:
        """Return the unit that begins with a convolution, or why there is none."""
        layer = self.layers[name]
        if self.calls[name] != 1:
            return f"called {self.calls[name]} times"
        if layer.groups > 1:
            return ("depthwise: loses channels with the layer before it"
                    if layer.groups == layer.out_channels else "grouped convolution")
        group = self.graph.get_pruning_group(
            layer, prune_conv_out_channels, list(range(layer.out_channels)))
        if any(isinstance(item.dep.target.module, nn.Parameter) for item in group.items):
            return "a parameter outside of any layer depends on it"
        items = [item for item in group.items if item.dep.target.module in self.names]
        writers = [item.dep.target.module for item in items if self._writes(item)]
        reason = self._reason(items, writers, coupled, ignore)
        if reason is not None:
            return reason
        effects = tuple(self._effect(item) for item in items)
        return Unit(name=name, members=tuple(self.names[writer] for writer in writers),
                    channels=layer.out_channels, norm=self._norm(layer), effects=effects)

    def _reason(
        self, items: list[Any], writers: list[nn.Module], coupled: str, ignore: Collection[str]
    ) -> str | None:
        """Return why a group cannot be pruned, or None."""
        targets = [item.dep.target.module for item in items]
        strange = [module for module in targets if not isinstance(module, _KNOWN)]
        if strange:
            return f"read by {self.names[strange[0]]!r}, a {type(strange[0]).__name__}"
        if not any(self._reads(item) for item in items):
            return "gives the network's output"
        others = ", ".join(self.names[writer] for writer in writers[1:3])
        others += f" and {len(writers) - 3} more" if len(writers) > 3 else ""
        if len(writers) > 1 and coupled == "keep":
            return f"its output is added to that of {others}"
        if any(not isinstance(writer, nn.Conv2d) or self.names[writer] in ignore
               for writer in writers):
            return f"its output is added to that of {others}, which is left alone"
        for item in items:
            module = item.dep.target.module
            if self._writes(item) and len(set(item.idxs)) != module.out_channels:
                return f"its output is padded to the width of {self.names[module]!r}"
            grouped = getattr(module, "groups", 1) > 1
            if grouped and not isinstance(item.dep.handler.__self__, DepthwiseConvPruner):
                return f"read by the grouped convolution {self.names[module]!r}"
        return None

    def _writes(self, item: Any) -> bool:
        """Tell whether an item removes filters, or outputs of a linear layer."""
        module, cut = item.dep.target.module, item.dep.handler
        return (isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
                and not isinstance(cut.__self__, DepthwiseConvPruner)
                and self.graph.is_out_channel_pruning_fn(cut))

    def _reads(self, item: Any) -> bool:
        """Tell whether an item removes inputs of a convolution or linear layer."""
        module, cut = item.dep.target.module, item.dep.handler
        return (isinstance(module, nn.modules.conv._ConvNd | nn.Linear)
                and not isinstance(cut.__self__, DepthwiseConvPruner)
                and self.graph.is_in_channel_pruning_fn(cut))

    def _effect(self, item: Any) -> Effect:
        return Effect(layer=self.names[item.dep.target.module], cut=item.dep.handler,
                      indices=np.array(item.idxs), roots=np.array(item.root_idxs))

    def _norm(self, layer: nn.Module) -> str | None:
        readers = self.graph.module2node[layer].outputs
        if len(readers) == 1 and isinstance(readers[0].module, _BatchNorm):
            return self.names[readers[0].module]
        return None


def remove(
    model: nn.Module, structure: Structure, before: Kept, kept: Kept, example_input: Any
) -> None:
    """Remove filters of a network, in place.

    The removal is first tried on a copy, so that the network is unchanged if it is refused.

    Parameters
    ----------
    model
        The network that `structure` was traced from, or what earlier calls have left of it.
    before
        {unit: indices of the filters that it has}.
    kept
        {unit: indices of those that stay, at least one}. Both count as in the first network.
    example_input
        One input (1, ...).

    Raises
    ------
    ArgumentError
        The network does not run afterwards; the message says what to do.
    CelosiaError
        A layer has not lost what it should have.
    """
    twin = copy.deepcopy(model)
    wanted = _output_shapes(twin, example_input)
    _cut(twin, structure, before, kept)
    try:
        found = _output_shapes(twin, example_input)
    except (RuntimeError, ValueError, IndexError) as problem:
        raise ArgumentError(
            f"without these filters the network does not run ({problem}); its forward pass "
            "depends on a number of channels; name the layers concerned in `ignore`") from problem
    if found != wanted:
        raise ArgumentError(f"removing these filters changes the shape of the output from {wanted} "
                            f"to {found}; name the layers that write it in `ignore`")
    for name, indices in kept.items():
        for member in structure.units[name].members:
            left = twin.get_submodule(member).weight.shape[0]
            if left != len(indices):
                raise CelosiaError(f"layer {member!r} should have {len(indices)} filters left and "
                                   f"has {left}; please report this network")
    _cut(model, structure, before, kept)


def _cut(model: nn.Module, structure: Structure, before: Kept, kept: Kept) -> None:
    """Remove filters and all that goes with them, without a check."""
    gone, going = _lost(structure, before), _lost(structure, kept)
    for (name, cut), indices in going.items():
        earlier = gone[name, cut]
        now = np.setdiff1d(indices, earlier)
        if len(now):
            places = now - np.searchsorted(earlier, now)
            _cut_layer(model.get_submodule(name), cut, places.tolist())


def _lost(structure: Structure, kept: Kept) -> dict[tuple[str, Any], np.ndarray]:
    """Return {(layer, cut): indices that are gone with these filters left, ascending}."""
    gone: dict[tuple[str, Any], list[np.ndarray]] = {}
    for unit in structure.units.values():
        lost = np.ones(unit.channels, bool)
        lost[kept[unit.name]] = False
        for effect in unit.effects:
            gone.setdefault((effect.layer, effect.cut), []).append(
                effect.indices[lost[effect.roots]])
    return {where: np.unique(np.concatenate(parts)) for where, parts in gone.items()}


def _cut_layer(
    layer: nn.Module, cut: Callable[[nn.Module, list[int]], Any], indices: list[int]
) -> None:
    """Cut one layer; its parameters stay frozen, or in channels-last order, if they were."""
    before = {name: (parameter.requires_grad, _is_channels_last(parameter))
              for name, parameter in layer.named_parameters(recurse=False)}
    with torch.no_grad():
        cut(layer, indices)
    for name, parameter in layer.named_parameters(recurse=False):
        trained, channels_last = before[name]
        parameter.requires_grad_(trained)
        if channels_last:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _is_channels_last(parameter: torch.Tensor) -> bool:
    return (parameter.ndim == 4 and not parameter.is_contiguous()
            and parameter.is_contiguous(memory_format=torch.channels_last))


def _refuse_parametrised(model: nn.Module) -> None:
    for name, layer in prunable_layers(model).items():
        if parametrize.is_parametrized(layer):
            raise ArgumentError(
                f"layer {name!r} has masked weights, and its filters cannot be removed; remove "
                "filters first, or call celosia.compress.make_permanent(model)")


def _output_shapes(model: nn.Module, example_input: Any) -> list[tuple[int, ...]]:
    """Return the shapes of a network's outputs; it is left in the mode that it was in."""
    x = torch.as_tensor(example_input).to(next(model.parameters()).device)
    with evaluating(model), torch.no_grad():
        outputs = model(x)
    return [tuple(y.shape) for y in (outputs if isinstance(outputs, tuple | list) else [outputs])]
