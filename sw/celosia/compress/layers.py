"""The layers of a network: found by identity, whatever their names, and told what they really do.

A layer may stand under several names, a weight in several layers, and a layer's class need not do
what its base class does. Whoever changes a layer asks here first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from torch import nn
from torch.nn.modules import module as _of_all
from torch.nn.utils import parametrize, prune

from celosia_spec.errors import ArgumentError

__all__ = ["Prunable", "computed_weight", "distinct_weights", "evaluating", "first_names",
           "held_weight", "holders", "hooked", "left_alone", "names_of", "obstacle",
           "parameter_count", "plain_layers", "prunable_layers", "put", "refuse_computed_weight",
           "refuse_obstacle", "refuse_strangers", "strangers", "weight_sharers"]

Prunable: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Linear
"""Layers that can lose single weights: a row of the weight, its first axis, is an output."""

_PURE = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d,
         nn.BatchNorm3d, nn.MaxPool2d, nn.AvgPool2d, nn.LocalResponseNorm)  # fmt: skip
"""Classes whose own forward is what their name says."""

_METHODS = ("forward", "_conv_forward", "_check_input_dim", "__call__")


def prunable_layers(model: nn.Module) -> dict[str, Prunable]:
    """Return the layers whose weights can be pruned, in the model's order.

    These are all `Conv1d`, `Conv2d` and `Linear` layers; biases and normalisation layers are left
    alone. A layer that stands under several names is given once, under the first.
    """
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, Prunable)}


def plain_layers(model: nn.Module) -> dict[str, nn.Conv2d | nn.Linear]:
    """Return the `Conv2d` and `Linear` layers among the prunable ones: those that are emulated."""
    return {name: layer for name, layer in prunable_layers(model).items()
            if isinstance(layer, nn.Conv2d | nn.Linear)}


def left_alone(model: nn.Module) -> dict[str, str]:
    """Return {layer with weights that is not prunable: why}, in the model's order.

    A weight is a parameter of two axes or more, but that of a normalisation. The words follow the
    layer's name, as those of `obstacle`.
    """
    pruned = {part for layer in prunable_layers(model).values() for part in layer.modules()}
    found = {}
    for name, module in model.named_modules():
        if module in pruned or isinstance(module, nn.LayerNorm | nn.RMSNorm) or not any(
                parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
            continue
        owner = f".{name}".partition(".parametrizations.")[0][1:]
        found[owner or "the network itself"] = (
            f"is a {type(model.get_submodule(owner)).__name__}; weights go from Conv1d, Conv2d and "
            "Linear layers")
    return found


def names_of(model: nn.Module, module: nn.Module) -> tuple[str, ...]:
    """Return every name under which the model holds a module, in the model's order."""
    return tuple(name for name, found in model.named_modules(remove_duplicate=False)
                 if found is module)


def put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Replace a module by another wherever the model holds it."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is old:
                setattr(parent, name, new)


def weight_sharers(model: nn.Module, layer: nn.Module) -> tuple[str, ...]:
    """Return the names of the other modules that hold one of a layer's parameters."""
    own = {id(parameter) for parameter in layer.parameters()}
    mine = set(layer.modules())
    return tuple(
        name or "the network itself" for name, module in model.named_modules()
        if module not in mine
        and any(id(parameter) in own for parameter in module.parameters(recurse=False)))


def distinct_weights(model: nn.Module) -> dict[str, Prunable]:
    """Return the prunable layers without those whose weight an earlier one holds."""
    seen: set[int] = set()
    found = {}
    for name, layer in prunable_layers(model).items():
        if id(held_weight(layer)) not in seen:
            found[name] = layer
        seen.add(id(held_weight(layer)))
    return found


def first_names(model: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return {name: the name that `distinct_weights` gives the weight of the layer of that name}.

    A name of no prunable layer stays what it is.
    """
    firsts = {id(held_weight(layer)): name for name, layer in distinct_weights(model).items()}
    every = dict(model.named_modules(remove_duplicate=False))
    found = {}
    for name in names:
        layer = every.get(name)
        prunable = isinstance(layer, Prunable)
        found[name] = firsts[id(held_weight(layer))] if prunable else name
    return found


def held_weight(layer: nn.Module) -> nn.Parameter:
    """Return the parameter that a layer's weight is kept in, under its mask.

    Of a weight that is computed from several, the first.
    """
    if parametrize.is_parametrized(layer, "weight"):
        held = layer.parametrizations.weight
        return held.original if held.is_tensor else held.original0
    return layer.weight


def holders(model: nn.Module, layer: nn.Module) -> dict[str, Prunable]:
    """Return the prunable layers that hold a prunable layer's weight, itself among them."""
    weight = held_weight(layer)
    return {name: other for name, other in prunable_layers(model).items()
            if held_weight(other) is weight}


def strangers(model: nn.Module, layer: nn.Module) -> tuple[str, ...]:
    """Return who else holds a prunable layer's weight besides prunable layers, by name.

    That is a module of another kind, such as an embedding, or the parent of a layer.
    """
    weight = held_weight(layer)
    own = {part for holder in holders(model, layer).values() for part in holder.modules()}
    return tuple(name or "the network itself" for name, module in model.named_modules()
                 if module not in own and any(
                     parameter is weight for parameter in module._parameters.values()))


def refuse_strangers(model: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Raise ArgumentError where a mask on a layer would not mask all that its weight does."""
    for layer in layers:
        others = strangers(model, layer)
        if others:
            raise ArgumentError(
                f"layer {names_of(model, layer)[0]!r} holds a weight that {others[0]!r} holds too, "
                "where no mask acts; give the layer a copy of it")


def parameter_count(model: nn.Module) -> int:
    """Return the number of distinct trained numbers: a shared tensor counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def obstacle(layer: nn.Module, allowed: Iterable[type] = ()) -> str | None:
    """Return why a layer's output is not what its class, weight and bias say, or None.

    layer   : a convolution, linear layer or batch normalisation.
    allowed : parametrisations (`torch.nn.utils.parametrize`) that the caller deals with.

    The words follow the layer's name: "has a forward of its own (class Scaled); ...".
    """
    kind = type(layer)
    base = next((part for part in kind.__mro__ if part in _PURE), None)
    if base is None:
        return f"is a {kind.__name__}, not one of torch's own layers; replace it by one"
    changed = [name for name in _METHODS if name in vars(layer)
               or getattr(kind, name, None) is not getattr(base, name, None)]
    if changed:
        return (f"has a {changed[0].strip('_')} of its own (class {kind.__name__}); use torch's "
                f"{base.__name__}, or leave the layer out")
    return computed_weight(layer, allowed) or hooked(layer)


def computed_weight(layer: nn.Module, allowed: Iterable[type] = ()) -> str | None:
    """Return why a layer's weight or bias is not a parameter of its own, or None; see `obstacle`.

    allowed : parametrisations that the caller deals with.
    """
    kinds = tuple(allowed)
    if parametrize.is_parametrized(layer):
        for name, parts in layer.parametrizations.items():
            strange = [part for part in parts if not isinstance(part, kinds)]
            if strange:
                kind = type(strange[0]).__name__.lstrip("_")
                return (f"has a parametrisation{' other than a mask' if kinds else ''} of its "
                        f"{name} ({kind}); fix it with "
                        f"torch.nn.utils.parametrize.remove_parametrizations(layer, {name!r})")
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            name = hook._tensor_name
            return (f"carries a mask of torch.nn.utils.prune; fix it with "
                    f"torch.nn.utils.prune.remove(layer, {name!r})")
        kind, name = type(hook).__name__, getattr(hook, "name", None)
        if kind in ("WeightNorm", "SpectralNorm") and isinstance(name, str):
            remover = "remove_weight_norm" if kind == "WeightNorm" else "remove_spectral_norm"
            return (f"computes its {name} by {kind}; fix it with torch.nn.utils.{remover}(layer, "
                    f"{name!r})")
    return None


def hooked(layer: nn.Module) -> str | None:
    """Return why a hook may change what a module computes, or None; see `obstacle`."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "has a forward hook, which may change what it computes; remove the hook first"
    if _of_all._global_forward_hooks or _of_all._global_forward_pre_hooks:
        return ("has a forward hook of all modules (register_module_forward_hook), which may "
                "change what it computes; remove the hook first")
    return None


def refuse_obstacle(model: nn.Module, layer: nn.Module, allowed: Iterable[type] = ()) -> None:
    """Raise ArgumentError, which names the layer, if it has an `obstacle`."""
    problem = obstacle(layer, allowed)
    if problem is not None:
        raise ArgumentError(f"layer {names_of(model, layer)[0]!r} {problem}")


def refuse_computed_weight(model: nn.Module, layers: Iterable[nn.Module],
                           allowed: Iterable[type] = ()) -> None:
    """Raise ArgumentError, which names the layer, if one of them has a `computed_weight`."""
    for layer in layers:
        problem = computed_weight(layer, allowed)
        if problem is not None:
            raise ArgumentError(f"layer {names_of(model, layer)[0]!r} {problem}")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while; afterwards each module is in its own mode again."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
