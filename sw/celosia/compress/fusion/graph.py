"""A network as a graph of layers and functions (`torch.fx`), and what its tracing must not hide.

Tracing runs the network's own forward on symbols. What forward does with numbers rather than
symbols meanwhile, such as drawing random ones or reading a weight past its layer, becomes a
constant of the graph. `trace` notes such readings.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from celosia.compress.layers import hooked
from celosia.compress.promise import restoring
from celosia.compress.readings import ASKING, function_name
from celosia_spec.errors import ArgumentError

__all__ = ["fixed", "is_leaf", "module_of", "reads_besides", "remove", "sole_reader", "source",
           "tensor_of", "trace", "used_once"]

_READ, _DRAWN = "tensors read", "random numbers drawn"
"""Keys of `GraphModule.meta`: ids of the tensors that forward read as numbers, and a bool."""

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.Dropout,
           nn.modules.pooling._AvgPoolNd, nn.modules.pooling._MaxPoolNd)  # fmt: skip

_RANDOM = frozenset({"bernoulli", "multinomial", "normal", "poisson", "rand", "randint", "randn",
                     "randperm", "rand_like", "randn_like", "randint_like"})


def trace(model: nn.Module, training: bool = False) -> fx.GraphModule:
    """Return the model's graph as it runs in eval mode; layers are shared with the model.

    `Identity` layers are left out of it. Each call of a layer stands under the layer's first name.

    training : the graph in train mode instead.

    Raises ArgumentError if its forward cannot be traced (`torch.fx`).
    """
    reads = _Reads()
    tracer = _Tracer()
    try:
        with restoring(model, always=True):     # the tracer leaves constants behind, forward more
            model.train(training)
            with reads:
                graph = tracer.trace(model)
            traced = fx.GraphModule(model, graph, type(model).__name__)
    except Exception as problem:    # whatever the user's forward raises on a symbolic tensor
        words = re.split(r"\n|\. ", str(problem).strip())[0] or type(problem).__name__
        kinds = {argument.kind for argument in inspect.signature(model.forward).parameters.values()}
        many = kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        raise ArgumentError(
            f"{type(model).__name__}.forward cannot be traced by torch.fx: {words}; layers that "
            "follow one another are found that way, so write forward without "
            f"{'* in its arguments' if many else 'branches on values'}") from problem
    traced.training = model.training
    traced.meta |= {_READ: frozenset(reads.tensors), _DRAWN: reads.drawn}
    for node in list(graph.nodes):
        module = module_of(traced, node)
        if type(module) is nn.Identity and not hooked(module):
            remove(node)
    traced.recompile()
    return traced


def module_of(traced: fx.GraphModule, node: Any) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    return traced.get_submodule(node.target)


def sole_reader(node: fx.Node) -> fx.Node | None:
    """Return the only node that reads a node's result; None if there are more."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def used_once(traced: fx.GraphModule, *nodes: fx.Node) -> bool:
    """Return whether the module of each node runs once only."""
    runs = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
    return all(runs[node.target] == 1 for node in nodes)


def reads_besides(traced: fx.GraphModule, layer: nn.Module) -> str | None:
    """Return where forward reads a layer's weight, or another tensor of it, past the layer.

    That is a line of the user's source, or "forward" where it is not known; None if it does not.
    """
    tensors = {id(tensor) for tensor in (*layer.parameters(), *layer.buffers())}
    parts = set(layer.modules()) - {layer}
    for node in traced.graph.nodes:
        read = node.op == "get_attr" and id(tensor_of(traced, node)) in tensors
        if (read or module_of(traced, node) in parts) and not all(map(_asks_form, node.users)):
            return source(node)
    return "forward" if tensors & traced.meta[_READ] else None


def _asks_form(node: fx.Node) -> bool:
    """Tell whether a node asks for a tensor's form only, such as its shape."""
    if node.op == "call_method":
        return node.target in ASKING
    return node.op == "call_function" and node.target is getattr and node.args[1] in ASKING


def fixed(traced: fx.GraphModule, model: nn.Module) -> str | None:
    """Return what of a model is a constant of its graph though it may change, or None.

    That is a parameter which forward read while it was traced, or random numbers that it drew.
    """
    if traced.meta[_DRAWN]:
        return "random numbers"
    return next((f"the numbers of {name!r}" for name, parameter in model.named_parameters()
                 if id(parameter) in traced.meta[_READ]), None)


def source(node: fx.Node) -> str:
    """Return the user's line that a node comes from, "net.py:12: y = self.act(x)", or "forward".
    """
    from celosia.frontend import origin  # which imports this package for its quantiser

    return origin.source(node) or "forward"


def remove(node: fx.Node) -> None:
    """Take a node with one input out of its graph; its readers read the input."""
    node.replace_all_uses_with(node.all_input_nodes[0])
    node.graph.erase_node(node)


class _Tracer(fx.Tracer):
    """Does not look into layers, those with a forward of their own among them."""

    record_stack_traces = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a module's call is one node of the graph."""
        return isinstance(m, _LAYERS) or super().is_leaf_module(m, module_qualified_name)


def is_leaf(module: nn.Module, name: str) -> bool:
    """Tell whether tracing does not look into a module of this name when it is called.

    Lists and dictionaries of modules are not called.
    """
    return (not isinstance(module, nn.ModuleList | nn.ModuleDict)
            and _Tracer().is_leaf_module(module, name))


class _Reads(TorchFunctionMode):
    """Notes which tensors are read while it is active, and whether random numbers are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: set[int] = set()
        self.drawn = False

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run a function of torch as it is."""
        given = [*args, *(kwargs or {}).values()]
        name = function_name(function)
        if name not in ASKING:
            self.tensors |= {id(value) for value in given if isinstance(value, torch.Tensor)}
        if name in _RANDOM:
            self.drawn |= not any(isinstance(value, fx.Proxy) for value in given)
        return function(*args, **(kwargs or {}))


def tensor_of(traced: fx.GraphModule, node: fx.Node) -> Any:
    """Return the tensor that a node gets."""
    path, _, name = str(node.target).rpartition(".")
    return getattr(traced.get_submodule(path), name)
