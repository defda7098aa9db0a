"""Weights that nothing reads: what a pruned network can lose without a change of its outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from celosia.compress.layers import prunable_layers
from celosia.compress.pruning.masks import apply_mask, current_mask, make_permanent
from celosia.errors import ArgumentError

__all__ = ["drop_unread"]

_SMALL = 2.0**-10
"""Biases of the positive copy: activations neither vanish nor reach an upper clamp."""

_Norm = nn.modules.batchnorm._BatchNorm


def drop_unread(model: nn.Module, example_input: Any) -> dict[str, int]:
    """Mask the weights from which no path of weights leads to an output, in place.

    If all weights that read a neuron or channel are removed, those that make it do work for
    nothing; so do those that make what only it reads. Removing them changes no output, whatever
    the input. Criteria that remove whole columns, such as "ae-lip", leave many.

    The paths are found by one pass through a copy in which every weight that is not zero is
    positive, so that every activation is, and pools average. A row of a weight then has a gradient
    exactly if a path leads on from its neuron or channel.

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
    """Return for each layer, of the weight's shape, which rows a path joins to an output."""
    twin = copy.deepcopy(model).cpu().double().eval()
    make_permanent(twin)
    layers, generator = prunable_layers(twin), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in twin.modules():
            _make_positive(module, generator)
    x = torch.ones_like(torch.as_tensor(example_input), dtype=torch.float64, device="cpu")
    with torch.enable_grad(), _AveragePools():
        weights = [layer.weight.requires_grad_() for layer in layers.values()]
        y = twin(x)
        # Random slopes and weights: sums that a softmax holds at 1 must not hide a path.
        slopes = torch.rand(y.shape, generator=generator, dtype=torch.float64) + 0.5
        found = torch.autograd.grad(y, weights, slopes, allow_unused=True)
    read = {}
    for (name, layer), slope in zip(layers.items(), found, strict=True):
        rows = torch.zeros(len(layer.weight), dtype=torch.bool)
        if slope is not None:
            rows = (slope != 0).flatten(1).any(1)
        read[name] = rows.view(-1, *[1] * (layer.weight.ndim - 1)).expand_as(layer.weight)
    return read


class _AveragePools(TorchFunctionMode):  # type: ignore[misc]
    """While active, max-pools average: all positions of a window are read, not the largest."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch, or the average pool in the place of a max-pool."""
        kwargs = kwargs or {}
        if getattr(function, "__name__", "") != "max_pool2d":
            return function(*args, **kwargs)
        names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
        given = dict(zip(names, args, strict=False)) | kwargs
        if given.get("dilation", 1) not in (1, (1, 1), [1, 1]):
            raise ArgumentError("a max-pool with dilation has no average pool to stand for it; "
                                "use one without")
        return functional.avg_pool2d(
            given["input"], given["kernel_size"], given.get("stride") or None,
            given.get("padding", 0), bool(given.get("ceil_mode", False)))


def _make_positive(module: nn.Module, generator: torch.Generator) -> None:
    """Give a module positive weights in place of its own, zeros staying, and positive biases."""
    if parametrize.is_parametrized(module):
        raise ArgumentError("a layer has a parametrisation besides masks of single weights; "
                            "remove that first")
    if isinstance(module, nn.Conv2d | nn.Linear):
        kept = (module.weight != 0).double()
        rows = kept.flatten(1).sum(1).clamp(min=1).view(-1, *[1] * (kept.ndim - 1))
        size = torch.rand(kept.shape, generator=generator, dtype=torch.float64) + 0.5
        module.weight.copy_(kept * size / rows)
        if module.bias is not None:
            module.bias.fill_(_SMALL)
    elif isinstance(module, _Norm):
        module.running_mean.zero_()
        module.running_var.fill_(1)
        if module.affine:
            module.weight.fill_(1)
            module.bias.fill_(_SMALL)
