"""Removing filters: the smaller network computes what the whole one does with them zeroed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from celosia.compress.filters.structure import CUTS, Effect, Kept, Structure
from celosia.compress.masks.filters import filter_masks, fold_in
from celosia.compress.promise import Promise, restoring, run_once
from celosia_spec.errors import ArgumentError, said

__all__ = ["remove"]

Gone = Mapping[str, np.ndarray]
"""{unit: indices of the filters that go, ascending, at least one}."""


class _Refused(Exception):
    """Why a network without some filters is not what it should be, in words."""


def remove(model: nn.Module, structure: Structure, kept: Kept, example_input: Any) -> None:
    """Remove filters of a network, in place, and fold its filter masks.

    What is left computes what the network did with these filters zeroed: their weights and biases,
    and gamma and beta of the batch normalisation that alone reads them, are 0; of a masked filter
    its mask is. Where such a map is still a number, as behind a depthwise convolution with a bias,
    the layer that reads it gets it into its bias, or the mean of the normalisation behind; one
    without either gets a bias. With ``constants="drop"``, a reader that could not hold the number
    has zeros in the weights for it. Both networks are compared on the example before this returns.

    Parameters
    ----------
    model
        The network that `structure` was traced from.
    kept
        {unit: indices of those filters that stay, at least one}.
    example_input
        One input (1, ...).

    Raises
    ------
    ArgumentError
        The smaller network does not run, or computes something else; the message names the layer
        and says what to do. The network is as it was.
    """
    gone = {name: lost for name, unit in structure.units.items()
            if len(lost := np.setdiff1d(np.arange(unit.channels), kept[name]))}
    try:
        _remove(model, structure, gone, example_input)
    except _Refused as problem:
        alone = {name: _problem(model, structure, {name: gone[name]}, example_input)
                 for name in (gone if len(gone) > 1 else ())}
        names = [name for name, words in alone.items() if words is not None] or list(gone)
        words = alone.get(names[0]) or str(problem)
        listed = ", ".join(map(repr, names[:4])) + (" ..." if len(names) > 4 else "")
        way_out = ("give these layers no mask" if filter_masks(model)
                   else "name these layers in `ignore`")
        raise ArgumentError(f"without filters of {listed} {words}, or {way_out}; the network is "
                            "as it was") from problem


def _problem(
    model: nn.Module, structure: Structure, gone: Gone, example_input: Any
) -> str | None:
    """Return why these filters cannot go, or None; the network stays as it is."""
    try:
        with restoring(model, always=True):
            _remove(model, structure, gone, example_input)
    except _Refused as problem:
        return str(problem)
    return None


def _remove(model: nn.Module, structure: Structure, gone: Gone, example_input: Any) -> None:
    with restoring(model), torch.no_grad():
        _zero(model, structure, gone)
        promise = Promise(model, example_input)
        fold_in(model)
        effects = [(effect, lost) for name, indices in gone.items()
                   for effect in structure.units[name].effects
                   if (lost := np.isin(effect.filters, indices)).any()]
        for effect, lost in effects:
            _fold_constants(model, structure, effect, lost)
        _cut(model, effects)
        try:
            run_once(model, promise.inputs[0])
        except ArgumentError as problem:
            words = said(problem.__cause__ or problem)
            raise _Refused(f"the network does not run ({words}), since its forward has their "
                           "number in it; take it from x.shape, or write x.flatten(1)"
                           ) from problem
        difference = promise.broken_by(model)
        if difference is not None:
            how = (f"the outputs differ by {difference:.3g} from those with the filters zeroed"
                   if difference < np.inf else "the outputs have another form")
            raise _Refused(f"{how}; find what counts channels in the forward")


def _zero(model: nn.Module, structure: Structure, gone: Gone) -> None:
    """Make filters zero, by their masks if they have some, and what readers do without."""
    masks = filter_masks(model)
    for name, indices in gone.items():
        for member, norm in structure.units[name].norms.items():
            owners = [model.get_submodule(one) for one in (member, norm) if one is not None]
            tensors = [getattr(owner, key) for owner in owners for key in ("weight", "bias")]
            if member in masks:
                beta = getattr(owners[-1], "bias", None) if norm is not None else None
                tensors = [masks[member], beta]
            for tensor in tensors:
                if tensor is not None:
                    tensor.data[indices] = 0
        for effect in structure.units[name].effects:
            dropped = effect.indices[np.isin(effect.filters, indices) & np.isnan(effect.values)]
            if "inputs" in effect.kind and len(dropped):
                weight = model.get_submodule(effect.layer).weight.data
                weight.index_fill_(CUTS[effect.kind][0]["weight"],
                                   torch.from_numpy(dropped).to(weight.device), 0)


def _fold_constants(
    model: nn.Module, structure: Structure, effect: Effect, lost: np.ndarray
) -> None:
    """Put what a layer's inputs are, once zeroed, into its bias or the normalisation behind it."""
    lost = lost & effect.folded
    if effect.kind != "inputs" or not lost.any():
        return
    layer = model.get_submodule(effect.layer)
    weight = layer.weight[:, effect.indices[lost]].double()
    values = torch.from_numpy(effect.values[lost]).to(weight.device)
    shift = weight.flatten(2).sum(2) @ values if weight.ndim > 2 else weight @ values
    norm = structure.norms[effect.layer]
    if layer.bias is not None:
        layer.bias.copy_(layer.bias + shift)
    elif norm is not None:
        mean = model.get_submodule(norm).running_mean
        if mean is not None:        # one with the map's own statistics takes any shift away
            mean.copy_(mean - shift)
    else:
        layer.bias = nn.Parameter(shift.to(layer.weight.dtype), layer.weight.requires_grad)


def _cut(model: nn.Module, effects: list[tuple[Effect, np.ndarray]]) -> None:
    """Remove channels of layers, all of one layer's axis at once."""
    places: dict[tuple[str, str], list[np.ndarray]] = {}
    for effect, lost in effects:
        places.setdefault((effect.layer, effect.kind), []).append(effect.indices[lost])
    for (name, kind), parts in places.items():
        layer = model.get_submodule(name)
        indices = np.unique(np.concatenate(parts))
        tensors, sizes = CUTS[kind]
        for key, axis in tensors.items():
            tensor = getattr(layer, key)
            if tensor is not None:
                setattr(layer, key, _without(tensor, axis, indices))
        for key in sizes:
            if hasattr(layer, key):
                setattr(layer, key, getattr(layer, key) - len(indices))


def _without(tensor: torch.Tensor, axis: int, indices: np.ndarray) -> torch.Tensor:
    """Return a tensor without some of its slices; a parameter stays frozen, if it was, and either
    stays in channels-last order."""
    left = torch.from_numpy(np.setdiff1d(np.arange(tensor.shape[axis]), indices))
    result = tensor.detach().index_select(axis, left.to(tensor.device))
    if (tensor.ndim == 4 and not tensor.is_contiguous()
            and tensor.is_contiguous(memory_format=torch.channels_last)):
        result = result.contiguous(memory_format=torch.channels_last)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(result, tensor.requires_grad)
    return result
