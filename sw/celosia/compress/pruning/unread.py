"""Weights that nothing reads: what a pruned network can lose without a change of its outputs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from celosia.compress.pruning.masks import (
    apply_mask,
    current_mask,
    make_permanent,
    prunable_layers,
)
from celosia.errors import ArgumentError

__all__ = ["drop_unread"]

_Norm = nn.modules.batchnorm._BatchNorm


def drop_unread(model: nn.Module, example_input: Any) -> dict[str, int]:
    """Mask the weights from which no path of weights leads to an output, in place.

    If all weights that read a neuron or channel are removed, those that make it do work for
    nothing; so do those that make what only it reads. Removing them changes no output, whatever
    the input. Criteria that remove whole columns, such as "ae-lip", leave many.

    The paths are found by one pass through a copy in which every weight that is not zero is
    positive, so that every activation is, and a weight has a gradient exactly if a path leads on.

    Parameters
    ----------
    model
        A network of convolutions, linear layers, batch normalisation, pools and activation
        functions that rise over positive numbers.
    example_input
        One input (1, ...), tensor or array; tells the shapes.

    Returns
    -------
    {layer name: number of weights that were removed}, of all prunable layers.

    Raises
    ------
    ArgumentError
        A layer would lose all its weights: the outputs do not depend on it.
    """
    layers = prunable_layers(model)
    read = _read(model, example_input)
    unread = {name: (layer.weight != 0) & ~read[name].to(layer.weight.device)
              for name, layer in layers.items()}
    for name in layers:
        if not read[name].any():
            raise ArgumentError(f"no output depends on layer {name!r}; it was pruned too far, "
                                "or is not used")
    for name, layer in layers.items():
        if unread[name].any():
            apply_mask(layer, current_mask(layer) & ~unread[name])
    return {name: int(lost.sum()) for name, lost in unread.items()}


def _read(model: nn.Module, example_input: Any) -> dict[str, torch.Tensor]:
    """Return for each layer which weights a path of weights joins to an output, bool."""
    twin = copy.deepcopy(model).cpu().double().eval()
    make_permanent(twin)
    layers = prunable_layers(twin)
    with torch.no_grad():
        for module in twin.modules():
            _make_positive(module)
    x = torch.ones_like(torch.as_tensor(example_input), dtype=torch.float64, device="cpu")
    with torch.enable_grad():
        weights = [layer.weight.requires_grad_() for layer in layers.values()]
        found = torch.autograd.grad(twin(x).sum(), weights, allow_unused=True)
    return {name: torch.zeros_like(layer.weight, dtype=torch.bool) if slope is None
            else slope != 0
            for (name, layer), slope in zip(layers.items(), found, strict=True)}


def _make_positive(module: nn.Module) -> None:
    """Give a module positive weights in place of its own, zeros staying, and positive biases."""
    if parametrize.is_parametrized(module):
        raise ArgumentError("a layer has a parametrisation besides masks of single weights; "
                            "remove that first")
    if isinstance(module, nn.Conv2d | nn.Linear):
        kept = (module.weight != 0).double()
        rows = kept.flatten(1).sum(1).clamp(min=1).view(-1, *[1] * (kept.ndim - 1))
        module.weight.copy_(kept / rows)
        if module.bias is not None:
            module.bias.fill_(1)
    elif isinstance(module, _Norm):
        module.running_mean.zero_()
        module.running_var.fill_(1)
        if module.affine:
            module.weight.fill_(1)
            module.bias.fill_(1)
