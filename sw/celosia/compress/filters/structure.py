"""Which filters of a network can go, what goes with them, and what the network costs without.

Removing output channel *c* of a convolution takes with it entry *c* of the batch normalisation
behind it and slice *c* of every layer that reads it. Which layers these are is found by running the
network once and following each filter through it (`celosia.compress.filters.follow`); how many
filters go, and which, is decided elsewhere (`celosia.compress.filters.selection`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from celosia.compress.cost import output_positions
from celosia.compress.filters.follow import Flow, follow
from celosia.compress.filters.record import record
from celosia.compress.layers import computed_weight, names_of, parameter_count, prunable_layers
from celosia.compress.masks.filters import FilterMask, filter_masks, fold_in
from celosia.compress.masks.weights import Mask
from celosia.compress.promise import example_for, restoring
from celosia.compress.words import CONSTANTS, COUPLED
from celosia_spec.errors import ArgumentError

__all__ = ["CUTS", "Effect", "FilterCost", "Kept", "Structure", "Unit", "trace"]

Kept = Mapping[str, np.ndarray]
"""{unit name: indices of the filters that stay, ascending}."""

CUTS: Mapping[str, tuple[Mapping[str, int], tuple[str, ...]]] = {
    "filters": ({"weight": 0, "bias": 0}, ("out_channels",)),
    "inputs": ({"weight": 1}, ("in_channels", "in_features")),
    "transposed inputs": ({"weight": 0}, ("in_channels",)),
    "depthwise": ({"weight": 0, "bias": 0}, ("in_channels", "out_channels", "groups")),
    "normalisation": ({"weight": 0, "bias": 0, "running_mean": 0, "running_var": 0},
                      ("num_features",)),
    "slopes": ({"weight": 0}, ("num_parameters",)),
}
"""Of a layer that loses channels: {tensor: axis that gets shorter}, and its numbers of channels."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a unit does to one layer, of all its channels.

    layer, kind : which, and what it loses (`CUTS`).
    indices     : (n,), index in the layer.   filters : (n,), filter of the unit that it goes with.
    values      : (n,), of "inputs": what the input is everywhere once that filter is zero; NaN
                  where it is dropped instead.
    zero        : (n,), True where that is 0 whatever the parameters are.
    """

    layer: str
    kind: str
    indices: np.ndarray
    filters: np.ndarray
    values: np.ndarray
    zero: np.ndarray

    @property
    def folded(self) -> np.ndarray:
        """(n,), True where the layer has to hold what its input is."""
        folded: np.ndarray = ~self.zero & ~np.isnan(self.values)
        return folded


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Filters that are removed together: one convolution, or several whose outputs are added.

    name     : the first of them.   channels : their number of filters.
    norms    : {each of them: name of the batch normalisation that alone reads it, or None}.
    """

    name: str
    channels: int
    norms: Mapping[str, str | None]
    effects: tuple[Effect, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """The convolutions."""
        return tuple(self.norms)

    @property
    def norm(self) -> str | None:
        """The batch normalisation that alone reads the first of them, or None."""
        return self.norms[self.name]


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
    norms   : {convolution or linear layer: the batch normalisation that alone reads it, or None}.
    """

    units: Mapping[str, Unit]
    skipped: Mapping[str, str]
    norms: Mapping[str, str | None]
    _positions: Mapping[str, int]
    _shapes: Mapping[tuple[str, str], tuple[int, ...]]
    _convolutions: frozenset[str]

    def cost(self, kept: Kept | None = None) -> FilterCost:
        """Return the exact cost with these filters left; None is all of them."""
        shapes = {key: list(shape) for key, shape in self._shapes.items()}
        biases = set()
        left = self.everything() if kept is None else kept
        for unit in self.units.values():
            lost = np.ones(unit.channels, bool)
            lost[left[unit.name]] = False
            for effect in unit.effects:
                gone = lost[effect.filters]
                for tensor, axis in CUTS[effect.kind][0].items():
                    if (effect.layer, tensor) in shapes:
                        shapes[effect.layer, tensor][axis] -= int(gone.sum())
                if effect.folded[gone].any() and self.gets_bias(effect):
                    biases.add(effect.layer)
        sizes = {key: math.prod(shape) for key, shape in shapes.items()}
        macs = {name: sizes[name, "weight"] * count for name, count in self._positions.items()}
        new = sum(shapes[name, "weight"][0] for name in biases)
        return FilterCost(
            macs=sum(macs.values()), parameters=sum(sizes.values()) + new,
            conv_macs=sum(macs[name] for name in self._convolutions))

    def gets_bias(self, effect: Effect) -> bool:
        """Tell whether a layer has no bias, and no normalisation, to hold constants of inputs."""
        return (effect.kind == "inputs" and (effect.layer, "bias") not in self._shapes
                and self.norms[effect.layer] is None)

    def everything(self) -> dict[str, np.ndarray]:
        """Return {unit: indices of all its filters}."""
        return {name: np.arange(unit.channels) for name, unit in self.units.items()}

    def count(self, model: nn.Module) -> FilterCost:
        """Return the cost of a network that has this structure or lost filters of it."""
        macs = {name: layer.weight.numel() * self._positions[name]
                for name, layer in prunable_layers(model).items()}
        conv = sum(macs[name] for name in self._convolutions)
        return FilterCost(macs=sum(macs.values()), conv_macs=conv,
                          parameters=parameter_count(model))


def trace(
    model: nn.Module,
    example_input: Any,
    *,
    coupled: str = "keep",
    ignore: Collection[str] = (),
    constants: str = "fold",
) -> Structure:
    """Find the filters that can be removed.

    Parameters
    ----------
    model
        Any module whose weights have no parametrisation but filter masks. It runs twice, in eval
        mode, and is not changed.
    example_input
        One input (1, ...), tensor or array.
    coupled
        What to do with convolutions whose outputs are added, such as those that write a residual
        stream: "keep" leaves them alone, so that of a residual block only the first convolution
        is pruned (Li et al., arXiv 1608.08710); "prune" takes all that write the same stream as
        one unit. A stream that a shortcut pads with zeros is never pruned.
    ignore
        Names of convolutions to leave alone.
    constants
        "fold": a filter stays where its map, zeroed, is a number that no reader can hold. "drop":
        it goes, and the reader does without that number.

    Raises
    ------
    ArgumentError
        A weight has masks of single weights, or is computed (weight normalisation,
        `torch.nn.utils.prune`); `ignore` names no convolution; nothing can be pruned; the network
        does not run.
    """
    if coupled not in COUPLED:
        raise ArgumentError(f"coupled must be one of {', '.join(COUPLED)}, not {coupled!r}")
    if constants not in CONSTANTS:
        raise ArgumentError(f"constants must be one of {', '.join(CONSTANTS)}, not {constants!r}")
    _refuse_computed(model)
    if filter_masks(model):
        with restoring(model, always=True):
            fold_in(model)
            return trace(model, example_input, coupled=coupled, ignore=ignore, constants=constants)
    convolutions = [name for name, layer in model.named_modules()
                    if isinstance(layer, nn.modules.conv._ConvNd)]
    unknown = [name for name in ignore if name not in convolutions]
    if unknown:
        raise ArgumentError(f"no convolution is called {', '.join(map(repr, unknown))}; "
                            f"convolutions: {', '.join(map(repr, convolutions))}")
    x = example_for(model, example_input)
    flow = follow(model, record(model, x), ignore, drop=constants == "drop")
    units, skipped = _units(flow, convolutions, coupled)
    if not units:
        reasons = [f"{name}: {reason}" for name, reason in skipped.items()][:3]
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        raise ArgumentError("no filter can be removed "
                            f"({'; '.join(reasons) + more or 'no convolution'})")
    seen: set[int] = set()
    shapes = {}
    for name, module in model.named_modules():
        for key, tensor in module.named_parameters(recurse=False):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                shapes[name, key] = tuple(tensor.shape)
    return Structure(units=units, skipped=skipped, norms=flow.norms, _shapes=shapes,
                     _positions=output_positions(model, x),
                     _convolutions=frozenset(name for name, layer in prunable_layers(model).items()
                                             if not isinstance(layer, nn.Linear)))


def _units(
    flow: Flow, convolutions: list[str], coupled: str
) -> tuple[dict[str, Unit], dict[str, str]]:
    """Return {unit: what it is} of filters that can go, and {convolution: why not} of the rest."""
    couples, roots = flow.couples, flow.couples.roots()
    groups = {name: members for name in convolutions
              if (members := couples.owners(couples.labels[name]))[0] == name}
    wholes = {}
    reasons = {}
    for name, members in groups.items():
        for member in members:
            others = [other for other in members if other != member]
            reason = _reason(flow, member, others, coupled)
            if reason is not None:
                reasons[member] = reason
        if not any(member in reasons for member in members):
            wholes[name] = members
    # Which unit and which of its filters each label is; -1 for those that stay.
    unit_of, filter_of = np.full(len(roots), -1), np.full(len(roots), -1)
    for index, name in enumerate(wholes):
        own = roots[couples.labels[name]]
        unit_of[own], filter_of[own] = index, np.arange(len(own))
    effects = {name: [_filters(member, len(couples.labels[name])) for member in members]
               for name, members in wholes.items()}
    for cut in flow.cuts:
        unit = np.where(cut.labels > 0, unit_of[roots[cut.labels]], -1)
        for index in np.unique(unit[unit >= 0]):
            here = np.flatnonzero(unit == index)
            effects[list(wholes)[index]].append(Effect(
                layer=cut.layer, kind=cut.kind, indices=here,
                filters=filter_of[roots[cut.labels[here]]], values=cut.values[here],
                zero=cut.zero[here]))
    units = {}
    for name, members in wholes.items():
        if any("inputs" in effect.kind for effect in effects[name]):
            units[name] = Unit(name=name, channels=len(couples.labels[name]),
                               norms={member: flow.norms[member] for member in members},
                               effects=tuple(effects[name]))
        else:
            reasons |= dict.fromkeys(members, "nothing that can be followed reads it")
    return units, {name: reasons[name] for name in convolutions if name in reasons}


def _reason(flow: Flow, name: str, others: list[str], coupled: str) -> str | None:
    """Return why a convolution cannot lose filters, or None.   others : coupled with it."""
    couples, roots = flow.couples, flow.couples.roots()
    if name in couples.reasons:
        return couples.reasons[name]
    if not others:
        own = roots[couples.labels[name]]
        return None if len(np.unique(own)) == len(own) else "its filters meet each other"
    words = ", ".join(map(repr, others[:2]))
    words += f" and {len(others) - 2} more" if len(others) > 2 else ""
    if coupled == "keep":
        return f"its output is added to that of {words}"
    for other in others:
        if other in couples.reasons:
            return (f"its output is added to that of {other!r}, which stays whole: "
                    f"{couples.reasons[other]}")
        same = np.array_equal(roots[couples.labels[name]], roots[couples.labels[other]])
        if not same:
            return f"its output is added to that of {other!r} with other channels beside it"
    return None


def _filters(member: str, channels: int) -> Effect:
    """Return the effect of a unit on one of its convolutions: its filters go."""
    every = np.arange(channels)
    return Effect(layer=member, kind="filters", indices=every, filters=every,
                  values=np.zeros(channels), zero=np.ones(channels, bool))


def _refuse_computed(model: nn.Module) -> None:
    """Raise ArgumentError for a layer whose parameters are computed each time that it runs."""
    for module in model.modules():
        problem = computed_weight(module, (FilterMask,))
        if problem is not None:
            name = names_of(model, module)[0]
            if computed_weight(module, (FilterMask, Mask)) is not None:
                raise ArgumentError(f"layer {name!r} {problem}")
            if computed_weight(module, (Mask,)) is not None:
                raise ArgumentError(
                    f"layer {name!r} has masked weights beside its filter mask; fold the filter "
                    "masks first, and mask single weights afterwards")
            raise ArgumentError(
                f"layer {name!r} has masked weights, and its filters cannot be removed; remove "
                "filters first, or call celosia.compress.make_permanent(model)")
