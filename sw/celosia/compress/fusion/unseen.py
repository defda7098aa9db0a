"""What tracing does not look into, so that only running the network tells what it computes."""

from __future__ import annotations

from torch import fx, nn
from torch.nn.modules import module as _of_all
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from celosia.compress.fusion.graph import is_leaf
from celosia_spec.errors import ArgumentError

__all__ = ["refuse_unseen"]

_CALLED = ("__call__", "_call_impl", "_wrapped_call_impl")
_OWN = ("forward", "_conv_forward", "_check_input_dim", "weight", "bias", "__getattr__",
        "__getattribute__", *_CALLED)  # fmt: skip
"""What decides what a layer computes, and may be its class's own."""

_HARMLESS = (prune.BasePruningMethod, WeightNorm, SpectralNorm)
"""Hooks of torch, which compute a tensor of the module that they are on."""

_LIBRARIES = ("torch", "torchvision", "celosia", "_operator", "builtins", "math")


def refuse_unseen(traced: fx.GraphModule, model: nn.Module, *, inside: bool = True) -> None:
    """Raise ArgumentError if a network may compute what its graph does not show.

    That is so with forward hooks, a ``__call__`` of the network's own, layers of torch with a
    forward of one's own, and functions that are wrapped for `torch.fx`: any of them may read a
    tensor of any layer. Code that is traced through is seen.

    inside : False leaves out what the graph calls as it is, where no tensor has changed.
    """
    reason = _around(model) or (_inside(traced, model) if inside else None)
    if reason is not None:
        raise ArgumentError(f"{reason}, and may read any layer's weight; give example_input, on "
                            "which the outputs are compared")


def _around(model: nn.Module) -> str | None:
    """Return what happens to a network's outputs outside of its forward, or None."""
    if not isinstance(model, fx.GraphModule) and any(
            _definer(model, name) is not None for name in _CALLED):
        return f"{type(model).__name__} has a __call__ of its own, which tracing does not look into"
    if _of_all._global_forward_hooks or _of_all._global_forward_pre_hooks:
        return ("there is a forward hook of all modules (register_module_forward_hook), which "
                "tracing does not look into")
    return _hook(model, "")


def _hook(module: nn.Module, name: str) -> str | None:
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    if all(isinstance(hook, _HARMLESS) for hook in hooks):
        return None
    return f"{_label(name)} has a forward hook, which tracing does not look into"


def _label(name: str) -> str:
    return f"layer {name!r}" if name else "the network"


def _inside(traced: fx.GraphModule, model: nn.Module) -> str | None:
    """Return what within a network its graph does not show, or None."""
    for name, module in model.named_modules():
        hook = _hook(module, name)
        if hook is not None:
            return hook
        for part in module.modules() if is_leaf(module, name) else ():
            found = next((own for own in _OWN if _definer(part, own) is not None), None)
            if found is not None:
                return (f"{_label(name)} has a {found.strip('_')} of its own (class "
                        f"{type(part).__name__}), which tracing does not look into")
    for node in traced.graph.nodes:
        if node.op == "call_function" and not _of_library(node.target):
            return f"function {node.target.__name__} is called, which tracing does not look into"
    return None


def _definer(module: nn.Module, name: str) -> type | None:
    """Return the class, of neither torch nor this package, that defines an attribute; or None.

    An attribute of the module itself counts as its class's, if it is a function.
    """
    if callable(vars(module).get(name)):
        return type(module)
    kind = next((kind for kind in type(module).__mro__ if name in vars(kind)), None)
    return None if kind is None or _of_library(kind) else kind


def _of_library(thing: object) -> bool:
    """Tell whether a class or function is torch's, Python's or this package's."""
    home = getattr(thing, "__module__", None) or type(thing).__module__
    return home.partition(".")[0] in _LIBRARIES
