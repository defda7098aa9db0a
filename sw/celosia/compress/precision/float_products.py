"""Products that an emulated network would compute in float, because no layer of its does them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from celosia.compress.fusion.graph import is_leaf, module_of, reads_besides, source, trace
from celosia.compress.fusion.unseen import refuse_unseen
from celosia.compress.layers import plain_layers
from celosia.compress.promise import example_for, run_once
from celosia.compress.readings import PRODUCTS, Readings, function_name, other_multiplier
from celosia_spec.errors import ArgumentError

__all__ = ["refuse_float_products"]

_WAYS_OUT = ("where nothing is formatted; let a Conv2d or Linear layer do that, or name the layers "
             "to emulate in layers")


def refuse_float_products(model: nn.Module, chosen: Mapping[str, nn.Module], *, every: bool,
                          example_input: Any | None) -> None:
    """Raise ArgumentError where emulating layers would leave products in float without a word.

    chosen : the layers to emulate, by name. The weight of one that is read without calling it
             would meet inputs that are not formatted.
    every  : whether these are meant to be all products: then whatever else multiplies is refused,
             that is other convolutions, recurrent layers, attention, TorchScript, and products in
             a forward, such as ``x @ self.w``.

    It is found on the example where there is one, else in the graph (`torch.fx`).
    """
    other = other_multiplier(model, plain_layers(model)) if every else None
    if other is not None:
        raise ArgumentError(f"{other}, {_WAYS_OUT}")
    _refuse_inside(model, chosen)
    if model in chosen.values():
        return
    readers, products = (_traced(model, chosen) if example_input is None
                         else _seen(model, chosen, example_input))
    if readers:
        name, where = min(readers.items())
        raise ArgumentError(f"layer {name!r} has a weight that is read without calling the layer"
                            f"{where}, so its inputs would stay float; call the layer")
    if products and every:
        name, where = min(products.items())
        raise ArgumentError(f"the forward multiplies by {name!r} itself{where}, {_WAYS_OUT}")


def _refuse_inside(model: nn.Module, chosen: Mapping[str, nn.Module]) -> None:
    """Refuse layers within a module of torch's, which may read their weights without calling them.
    """
    for outer, module in model.named_modules():
        if is_leaf(module, outer) and module not in chosen.values():
            parts = set(module.modules())
            name = next((name for name, layer in chosen.items() if layer in parts), None)
            if name is not None:
                raise ArgumentError(
                    f"layer {name!r} is part of {outer!r} ({type(module).__name__}), which reads "
                    "its weight without calling it; name the other layers in layers")


_Found = dict[str, str]
"""{name of a layer or function: " (line of the user's source)", or nothing}."""


def _seen(model: nn.Module, chosen: Mapping[str, nn.Module],
          example_input: Any) -> tuple[_Found, _Found]:
    """Return chosen layers whose weights are read elsewhere, and products outside of all layers."""
    readings = Readings(plain_layers(model))
    with readings.watched(lambda name, layer, shape: None):
        run_once(model, example_for(model, example_input))
    return (dict.fromkeys(readings.strangers & chosen.keys(), ""),
            dict.fromkeys(readings.products, ""))


def _traced(model: nn.Module, chosen: Mapping[str, nn.Module]) -> tuple[_Found, _Found]:
    """Return what `_seen` does, with the lines."""
    try:
        traced = trace(model)
    except ArgumentError as problem:
        raise ArgumentError(f"{problem}; or give example_input") from problem
    refuse_unseen(traced, model)
    readers = {name: f" ({line})" for name, layer in chosen.items()
               if (line := reads_besides(traced, layer)) is not None}
    return readers, {name: f" ({source(node)})" for node in traced.graph.nodes
                     if (name := _product(traced, node)) is not None}


def _product(traced: fx.GraphModule, node: fx.Node) -> str | None:
    """Return the name of the product that a node is, if it is one in forward itself; or None."""
    if module_of(traced, node) is not None or node.op not in ("call_function", "call_method"):
        return None
    name = node.target if node.op == "call_method" else function_name(node.target)
    name = name.strip("_")
    return name if name in PRODUCTS else None
