"""Weights that nothing reads: what a pruned network can lose without a change of its outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import torch
from torch import nn

from celosia.compress.entry import entry
from celosia.compress.layers import (
    computed_weight,
    distinct_weights,
    first_names,
    held_weight,
    refuse_computed_weight,
)
from celosia.compress.masks.weights import Mask, current_mask, mask_weight
from celosia.compress.promise import Promise, example_for
from celosia.compress.unread.paths import paths_to_outputs
from celosia_spec.errors import ArgumentError

__all__ = ["drop_unread"]


@entry
def drop_unread(model: nn.Module, example_input: Any, *,
                skip: Collection[str] = ()) -> dict[str, int]:
    """Mask the weights from which no path of weights leads to an output, in place.

    If all weights that read a neuron or channel are removed, those that make it do work for
    nothing; so do those that make what only it reads. Removing them changes no output, whatever
    the input. Criteria that remove whole columns, such as "ae-lip", leave many.

    The paths are found in the network as `torch.export` sees it, operator by operator
    (`celosia.compress.unread.paths`): shared weights, hooks and forwards of one's own count with
    what they do. Where it is not certain that a weight is not read, it stays. Afterwards the
    outputs are compared with those before.

    Parameters
    ----------
    model
        A network in eval mode of operators that are known; an unknown one is refused by name.
        Layers with a parametrisation beside their mask keep their weights.
    example_input
        Inputs (N, ...), tensor or array; tells the shapes.
    skip
        Names of layers to leave alone.

    Returns
    -------
    {layer name: number of weights that were removed}, of all prunable layers; of those that hold
    one weight, under the first.

    Raises
    ------
    ArgumentError
        A layer would lose all its weights: the outputs do not depend on it; an operator that is
        not known; a weight that a hook computes. Nothing has been changed.
    CompileError
        `torch.export` does not take the model.
    CelosiaError
        The outputs are others afterwards; all is as before then.
    """
    layers = distinct_weights(model)
    refuse_computed_weight(model, layers.values(), [nn.Module])
    left = set(first_names(model, skip).values())
    unknown = left - layers.keys()
    if unknown:
        raise ArgumentError(f"no layer is called {', '.join(map(repr, sorted(unknown)))}; layers: "
                            f"{', '.join(map(repr, layers))}")
    concerned = {name: layer for name, layer in layers.items()
                 if name not in left and computed_weight(layer, [Mask]) is None}
    unread = {name: mask.to(layers[name].weight.device) for name, mask in _unread(
        _on_the_cpu(model), concerned, example_input).items()}
    lost = {name: int(unread[name].sum()) if name in unread else 0 for name in layers}
    steps: dict[str, Callable[[], None]] = {
        name: partial(mask_weight, model, layer, current_mask(layer) & ~unread[name])
        for name, layer in concerned.items() if lost[name]}
    if steps:
        Promise(model, example_input).keep(model, steps, "dropping unread weights of {layer!r}")
    return lost


def _unread(model: nn.Module, names: Collection[str],
            example_input: Any) -> dict[str, torch.Tensor]:
    """Return for each layer, of the weight's shape, the weights of rows that lead nowhere.

    model : on the CPU.
    """
    from celosia.frontend.export import export

    layers = {name: model.get_submodule(name) for name in names}
    paths = paths_to_outputs(export(model, (example_for(model, example_input),)),
                             [held_weight(layer).detach() for layer in layers.values()])
    found = {}
    for (name, layer), read in zip(layers.items(), paths, strict=True):
        if not read.any():
            raise ArgumentError(f"no output depends on layer {name!r}; it was pruned too far, or "
                                "is not used; name it in skip")
        rows = read.flatten(1).any(1).view(-1, *[1] * (read.ndim - 1))
        found[name] = (layer.weight != 0) & ~rows
    return found


def _on_the_cpu(model: nn.Module) -> nn.Module:
    if all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers())):
        return model
    return copy.deepcopy(model).cpu()
