"""Masks: zeros that stay zeros, whatever the optimiser does.

Masking the gradient is not enough (momentum and weight decay still move a weight), so the mask is
a parametrisation of the layer's weight: every read of ``layer.weight`` has the zeros in it.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from celosia.compress.entry import entry
from celosia.compress.layers import computed_weight, holders, refuse_strangers
from celosia_spec.errors import ArgumentError

__all__ = ["Mask", "apply_mask", "current_mask", "make_permanent", "mask_weight", "own_class"]


class Mask(nn.Module):
    """Parametrisation that replaces removed weights by +0.0.

    Constructed from a bool tensor of the weight's shape, True where the weight is kept.
    """

    kept: torch.Tensor

    def __init__(self, kept: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", kept.clone())

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the masked weight; removed weights get no gradient."""
        return torch.where(self.kept, weight, torch.zeros_like(weight))


def current_mask(layer: nn.Module) -> torch.Tensor:
    """Return a copy of a layer's mask, bool of the weight's shape; all True if it has none."""
    mask = _find(layer)
    if mask is None:
        return torch.ones_like(layer.weight, dtype=torch.bool)
    return mask.kept.clone()


def apply_mask(layer: nn.Module, kept: torch.Tensor) -> None:
    """Mask a layer's weight, or replace the mask that it has.

    The mask comes after parametrisations that the weight has besides.

    Parameters
    ----------
    layer
        A layer with a parameter ``weight``.
    kept
        bool, the weight's shape, True where the weight is kept.

    Raises
    ------
    ArgumentError
        `kept` is not bool or has another shape than the weight; a hook computes the
        weight, as those of `torch.nn.utils.prune` and of the old `weight_norm` do.
    """
    problem = computed_weight(layer, allowed=[nn.Module])
    if problem is not None:
        raise ArgumentError(f"a layer that is to be masked {problem}")
    if kept.dtype != torch.bool or kept.shape != layer.weight.shape:
        raise ArgumentError(
            f"a mask for a weight of shape {tuple(layer.weight.shape)} must be bool of that "
            f"shape, not {kept.dtype} {tuple(kept.shape)}"
        )
    mask = _find(layer)
    if mask is None:
        parametrize.register_parametrization(layer, "weight", Mask(kept))
    else:
        mask.kept.copy_(kept)


def mask_weight(model: nn.Module, layer: nn.Module, kept: torch.Tensor) -> None:
    """Mask a layer's weight as `apply_mask` does, in every layer that holds it.

    The mask lies in memory as the weight does.
    """
    for holder in holders(model, layer).values():
        apply_mask(holder, torch.empty_like(holder.weight, dtype=torch.bool).copy_(kept))


@entry
def make_permanent(model: nn.Module) -> None:
    """Turn every mask of a model into zeros in plain weights, and remove the masks.

    Afterwards the model has the parameters that it had before pruning, under the same names, and
    exports and saves as such. Training it further would bring the zeros back to life.
    Parametrisations other than masks must be removed by their owner first.

    Raises
    ------
    ArgumentError
        A masked weight has another parametrisation too, or is held by another module that masks it
        in another way or not at all; the message names the layer, and no mask has been removed.
    """
    masked = {name: layer for name, layer in model.named_modules() if _find(layer) is not None}
    for name, layer in masked.items():
        if len(layer.parametrizations.weight) > 1:
            raise ArgumentError(
                f"layer {name!r} has another parametrisation beside its mask; make it plain first "
                "with torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
            )
        refuse_strangers(model, [layer])
        for other, holder in holders(model, layer).items():
            if not torch.equal(current_mask(holder), current_mask(layer)):
                raise ArgumentError(
                    f"layers {name!r} and {other!r} hold one weight, and their masks differ, so it "
                    "cannot have the zeros of both; give each a copy of the weight")
    for layer in masked.values():
        own_class(layer)
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def own_class(module: nn.Module) -> None:
    """Give a parametrised module a class of its own.

    Its parameters are properties of the class, which a deep copy shares with the original, and
    removing a parametrisation removes the property: from both (torch 2.13).
    """
    shared = type(module)
    content = {name: value for name, value in vars(shared).items()
               if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _find(layer: nn.Module) -> Mask | None:
    """Return the mask of a layer's weight, or None."""
    if not parametrize.is_parametrized(layer, "weight"):
        return None
    return next((part for part in layer.parametrizations.weight if isinstance(part, Mask)), None)
