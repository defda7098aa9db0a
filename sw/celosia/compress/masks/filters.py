"""One trained factor for each filter of a convolution: attaching, finding and folding it.

The factor multiplies the filter's whole output map, ``Y[:, c] = m_c (W_c * X + b_c)``. Behind a
batch normalisation it multiplies that layer's output instead: before it, the normalisation would
divide it out again. Both are a product with parameters that are there already, so the mask is a
parametrisation of these (`torch.nn.utils.parametrize`) and costs nothing on the maps.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize

from celosia.compress.masks.weights import own_class
from celosia_spec.errors import ArgumentError

__all__ = ["attach", "attach_gamma", "filter_masks", "fold_in"]

_GAMMA_OF = "filter_mask_of"
"""Attribute of a batch normalisation whose gamma is a mask: the convolution's name."""


class FilterMask(nn.Module):
    """Parametrisation that multiplies row c of a parameter by ``mask[c]``.

    layer : name of the convolution that the mask belongs to.
    """

    def __init__(self, mask: nn.Parameter, layer: str) -> None:
        super().__init__()
        self.mask = mask
        self.layer = layer

    def forward(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the parameter with each row multiplied by its mask."""
        return parameter * self.mask.view(-1, *(1,) * (parameter.ndim - 1))


def attach(model: nn.Module, layer: str, norm: str | None) -> None:
    """Give a convolution a mask of ones, behind its batch normalisation `norm` if it has one.

    Raises ArgumentError if the normalisation has no gamma and beta to multiply.
    """
    owner = model.get_submodule(layer if norm is None else norm)
    if owner.weight is None:
        raise ArgumentError(f"the batch normalisation {norm!r} behind layer {layer!r} has no gamma "
                            "and beta, so no mask can follow it; leave the layer out")
    weight = owner.weight
    mask = nn.Parameter(torch.ones(len(weight), dtype=weight.dtype, device=weight.device))
    for name in ("weight", "bias"):
        if getattr(owner, name) is not None:
            parametrize.register_parametrization(owner, name, FilterMask(mask, layer))


def attach_gamma(model: nn.Module, layer: str, norm: str | None) -> None:
    """Make the gamma of a convolution's batch normalisation its mask.

    Raises ArgumentError if there is none.
    """
    owner = None if norm is None else model.get_submodule(norm)
    if owner is None or owner.weight is None:
        raise ArgumentError(f"layer {layer!r} has no batch normalisation with a gamma behind it; "
                            "leave it out, or use on='mask'")
    setattr(owner, _GAMMA_OF, layer)


def filter_masks(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return {convolution: its mask, (output channels,)} of those that have one."""
    found = {}
    for module in model.modules():
        part = _find(module)
        if part is not None:
            found[part.layer] = part.mask
        elif hasattr(module, _GAMMA_OF):
            found[getattr(module, _GAMMA_OF)] = module.weight
    return found


def fold_in(model: nn.Module) -> None:
    """Multiply every filter mask into the parameters that it acts on, and remove it.

    The network computes what it did, with the parameters that it had before it got masks.

    Raises ArgumentError if such a parameter has another parametrisation beside the mask.
    """
    for name, module in model.named_modules():
        if _find(module) is not None:
            if any(len(parts) > 1 for parts in module.parametrizations.values()):
                raise ArgumentError(
                    f"layer {name!r} has another parametrisation beside its filter mask; fold the "
                    "filter masks first, and mask single weights afterwards")
            own_class(module)
            for parameter in list(module.parametrizations):
                parametrize.remove_parametrizations(module, parameter, leave_parametrized=True)
        elif hasattr(module, _GAMMA_OF):
            delattr(module, _GAMMA_OF)


def _find(module: nn.Module) -> FilterMask | None:
    """Return the filter mask of a layer, or None."""
    if not parametrize.is_parametrized(module, "weight"):
        return None
    parts = module.parametrizations.weight
    return next((part for part in parts if isinstance(part, FilterMask)), None)
