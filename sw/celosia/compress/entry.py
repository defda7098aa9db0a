"""What every function of this package does first that is given a network.

A caller may be in ``torch.no_grad()`` or ``torch.inference_mode()``, and may give a network whose
tensors cannot be worked with. Both are dealt with here, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import fx, nn
from torch.nn.parameter import is_lazy

from celosia_spec.errors import ArgumentError

__all__ = ["entry"]

P = ParamSpec("P")
R = TypeVar("R")


def entry(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function of a network that runs as if its caller had left torch's modes alone.

    Inside, gradients are on and inference mode is off, whatever the caller set. The first argument
    that is a module is the network or layer: ArgumentError if one of its tensors has no numbers
    yet, or cannot be changed since it was made in inference mode, or where torch.export made it.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        model = next((value for value in (*args, *kwargs.values()) if isinstance(value, nn.Module)),
                     None)
        if model is not None:
            refuse_unusable(model)
        with torch.inference_mode(False), torch.enable_grad():
            return function(*args, **kwargs)

    return called


def refuse_unusable(model: nn.Module) -> None:
    """Raise ArgumentError, which names it, if a part or a tensor cannot be worked with."""
    for name, part in model.named_modules():
        if isinstance(part, fx.GraphModule) and "train" in vars(part):
            raise ArgumentError(f"{name or 'the model'!r} was made by torch.export, has one mode "
                                "and no layers; give the torch.nn.Module that was exported")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            raise ArgumentError(f"{name!r} has no numbers before the network has run; run it once "
                                "on an input first")
        if tensor.is_meta:
            raise ArgumentError(f"{name!r} is on the device 'meta', where a tensor has no numbers; "
                                "give it some first: model.to_empty(device='cpu') and "
                                "model.load_state_dict(...)")
        if tensor.is_inference():
            raise ArgumentError(f"{name!r} was made in torch.inference_mode() and cannot be "
                                "changed; outside of it, make the network, or give "
                                "copy.deepcopy(model)")
