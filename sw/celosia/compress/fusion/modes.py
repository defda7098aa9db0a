"""A traced network runs in both modes, so its trace must not hold what only one of them does.

Tracing follows forward once, in one mode: what forward decides by `self.training` is in the graph
for good. Functional dropout becomes a layer; whatever else differs is refused.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from celosia.compress.fusion.graph import fixed, source, tensor_of, trace
from celosia_spec.errors import ArgumentError

__all__ = ["trace_both_modes"]

_DROPOUTS = {functional.dropout: nn.Dropout, functional.dropout1d: nn.Dropout1d,
             functional.dropout2d: nn.Dropout2d, functional.dropout3d: nn.Dropout3d,
             functional.alpha_dropout: nn.AlphaDropout,
             functional.feature_alpha_dropout: nn.FeatureAlphaDropout}
_ARGUMENTS = ("input", "p", "training", "inplace")


def trace_both_modes(model: nn.Module) -> fx.GraphModule:
    """Return the model's graph (`trace`) such that it does in either mode what the model does.

    Functional dropout with ``training=self.training`` becomes a layer.

    Raises ArgumentError if forward cannot be traced, or if it does something else in train mode
    that is not the work of a layer, draws random numbers, or reads a parameter's numbers: these
    would be constants of the graph.
    """
    traced, other = trace(model), trace(model, training=True)
    kind = type(model).__name__
    for graph in (traced, other):
        constant = fixed(graph, model)
        if constant is not None:
            raise ArgumentError(f"{kind}.forward takes {constant} when it is traced, which would "
                                "never change again; let a layer do that")
    pairs = list(zip_longest(traced.graph.nodes, other.graph.nodes))
    dropouts = {}
    for node, twin in pairs:
        if _same(traced, node, other, twin):
            continue
        layer = _dropout(node, twin)
        if layer is None:
            there = next((part for part in (node, twin) if part is not None
                          and part.op != "output"), None)
            where = "returns something else" if there is None else (
                f"does something else ({source(there)})")
            raise ArgumentError(
                f"{kind}.forward {where} in train mode, which a traced network cannot; let a layer "
                "do that, such as nn.Dropout or nn.BatchNorm2d")
        dropouts[node] = layer
    for node, layer in dropouts.items():
        _replace(traced, node, layer.train(model.training))
    traced.recompile()
    return traced


def _same(traced: fx.GraphModule, node: fx.Node | None, other: fx.GraphModule,
          twin: fx.Node | None) -> bool:
    """Tell whether two nodes do the same with the same."""
    if node is None or twin is None or (node.op, node.target) != (twin.op, twin.target):
        return False
    if node.op == "get_attr":
        return bool(torch.equal(tensor_of(traced, node), tensor_of(other, twin)))
    return bool(_given(node) == _given(twin))


def _given(node: fx.Node) -> Any:
    return fx.node.map_arg((node.args, node.kwargs), lambda part: f"%{part.name}")


def _dropout(node: fx.Node | None, twin: fx.Node | None) -> nn.Module | None:
    """Return the layer that does what a functional dropout does in each mode; None for another."""
    if (node is None or twin is None or node.op != "call_function" or node.target != twin.target
            or node.target not in _DROPOUTS):
        return None
    off, on = (dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
               for args, kwargs in (_given(node), _given(twin)))
    modes = off.pop("training", True), on.pop("training", True)
    if modes != (False, True) or off != on or not isinstance(on.get("p", 0.5), int | float):
        return None
    return _DROPOUTS[node.target](on.get("p", 0.5), inplace=on.get("inplace", False))


def _replace(traced: fx.GraphModule, node: fx.Node, layer: nn.Module) -> None:
    """Let a layer do what a node does; it gets the node's name, or one like it."""
    name, count = node.name, 0
    while hasattr(traced, name):
        count += 1
        name = f"{node.name}_{count}"
    traced.add_submodule(name, layer)
    with traced.graph.inserting_before(node):
        new = traced.graph.call_module(name, (node.all_input_nodes[0],))
    node.replace_all_uses_with(new)
    traced.graph.erase_node(node)
