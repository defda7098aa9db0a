"""An exported program as a module whose layers can be changed."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from celosia.frontend import kernels, origin, quantised
from celosia.frontend.decomposed import is_plain, with_plain_names
from celosia.frontend.tracing import tracing
from celosia_spec.errors import CelosiaError, quoted, said

__all__ = ["as_module"]

_WAY_OUT = "name the function that makes the module, package.module:function"
_RESHAPES = {torch.ops.aten.view.default, torch.ops.aten.reshape.default,
             torch.ops.aten._unsafe_view.default}
_CLOSE = 1e-4


def as_module(program: ExportedProgram, example: torch.Tensor, name: str) -> nn.Module:
    """Return a module that computes what an exported program computes, with torch's own layers.

    Modules that are one convolution, linear layer or batch normalisation become that layer of
    torch's, under the path that they had in the model; everything else runs as it was exported, in
    evaluation. The module takes batches of any size.

    program : the module takes its tensors over.   example : one input, float32 (1, ...).
    name : of the program, for messages.

    CelosiaError where it has no such layers, paths that cannot be names in Python, or does not
    compute the same for a batch as for its inputs one by one.
    """
    _check_paths(program, name)
    _check_operators(program, name)
    try:
        with tracing():
            unflattened: nn.Module = torch.export.unflatten(with_plain_names(program))
        _open_batches(unflattened)
        _restore(unflattened)
        module = _plain(unflattened)
    except Exception as error:      # torch raises whatever its parts do
        raise CelosiaError(f"{name}: its modules cannot be made again ({quoted(said(error))}); "
                           f"{_WAY_OUT}") from error
    if not any(isinstance(layer, (nn.Conv2d, nn.Linear)) for layer in module.modules()):
        raise CelosiaError(f"{name}: no module in it is one convolution or linear layer of torch's "
                           "own; save what torch.export.export returns, without "
                           f"run_decompositions, or {_WAY_OUT}")
    _check_same(program, module, example, name)
    return module


def _check_paths(program: ExportedProgram, name: str) -> None:
    """CelosiaError unless torch can write the modules' paths into source code.

    What else is said of where a node comes from is dropped.
    """
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        paths = [path for path, _ in stack.values()]
        for path in paths:
            if path and not is_plain(path):
                raise CelosiaError(f"{name}: a module is called {quoted(path)!r}, which is no name "
                                   f"in Python; {_WAY_OUT}")
        if stack:
            node.meta["nn_module_stack"] = {
                path + _call(key): (path, "torch.nn.Module")
                for key, (path, _) in stack.items()}


def _check_operators(program: ExportedProgram, name: str) -> None:
    """CelosiaError unless every operator is one that may be run on what a file says."""
    for _, _, graph in _graphs(program.graph_module):
        for node in graph.nodes:
            if quantised.word(node) is not None:
                raise CelosiaError(f"{name}: it is quantised; give the float network, and quantise "
                                   "what comes of it")
            if node.op == "call_function" and not kernels.runs(node.target, node.kwargs):
                raise CelosiaError(
                    f"{name}: {origin.layer(node, origin.operator(node))} is the operator "
                    f"{origin.operator(node)}, which is not run out of a file; {_WAY_OUT}")


def _call(key: str) -> str:
    """Return what tells a module's second call from its first, "@1", or ""."""
    number = key.rpartition("@")[2]
    return f"@{number}" if "@" in key and number.isdigit() else ""


def _graphs(module: nn.Module) -> Iterator[tuple[str, nn.Module, torch.fx.Graph]]:
    for path, part in module.named_modules():
        if isinstance(graph := getattr(part, "graph", None), torch.fx.Graph):
            yield path, part, graph


def _open_batches(module: nn.Module) -> None:
    """Let reshapes of one input to one input take any number of them."""
    for _, _, graph in _graphs(module):
        for node in graph.nodes:
            if node.target in _RESHAPES and _shape(node)[:1] == _shape(node.args[0])[:1] == (1,):
                node.args = (node.args[0], [-1, *_shape(node)[1:]])


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(getattr(getattr(node, "meta", {}).get("val"), "shape", ()))


def _restore(module: nn.Module) -> None:
    """Put torch's layers in the place of modules that are one such operator."""
    made: dict[tuple[int, ...], nn.Module] = {}
    for path, part, graph in list(_graphs(module)):
        layer = _layer(part, graph) if path else None
        if layer is not None:
            key = tuple(id(tensor) for tensor in layer.parameters())
            module.set_submodule(path, made.setdefault(key, layer) if key else layer)


def _plain(module: nn.Module) -> nn.Module:
    """Return the module as graphs of torch.fx alone, which can be copied: without what they were
    traced with, and without modules that nothing calls. It returns its one tensor as such."""
    inner = [found for found in _graphs(module) if found[0] and len(found[2].nodes)]
    for path, part, graph in sorted(inner, key=lambda found: -found[0].count(".")):
        module.set_submodule(path, _fx(part, graph))
    graph = next(_graphs(module))[2]
    result = next(node for node in reversed(graph.nodes) if node.op == "output")
    while isinstance(result.args[0], (tuple, list)) and len(result.args[0]) == 1:
        result.args = (result.args[0][0],)
    return _fx(module, graph)


def _fx(module: nn.Module, graph: torch.fx.Graph) -> nn.Module:
    for node in graph.nodes:
        node.meta.clear()
    return torch.fx.GraphModule(module, graph).eval()


def _layer(part: nn.Module, graph: torch.fx.Graph) -> nn.Module | None:
    """Return the layer that a module is, with its own tensors; None where it is none."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(calls) != 1 or len(inputs) != 1 or calls[0].kwargs or (
            calls[0].args[0] is not inputs[0]):
        return None
    make = _MAKERS.get(calls[0].target)
    arguments = [_tensor(part, argument) if isinstance(argument, Node) else argument
                 for argument in calls[0].args[1:]]
    return None if make is None else make(calls[0], *arguments)


def _tensor(part: nn.Module, node: Node) -> Any:
    return operator.attrgetter(str(node.target))(part) if node.op == "get_attr" else None


def _conv2d(node: Node, weight: nn.Parameter, bias: nn.Parameter | None = None,
            stride: Any = (1, 1), padding: Any = (0, 0), dilation: Any = (1, 1),
            groups: int = 1) -> nn.Module | None:
    if not isinstance(weight, nn.Parameter):
        return None
    rows, own, *kernel = weight.shape
    layer = nn.Conv2d(own * groups, rows, tuple(kernel), _pair(stride),
                      padding if isinstance(padding, str) else _pair(padding), _pair(dilation),
                      groups, bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def _pair(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[-1]))


def _linear(node: Node, weight: nn.Parameter, bias: nn.Parameter | None = None) -> nn.Module | None:
    if not isinstance(weight, nn.Parameter):
        return None
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight, layer.bias = weight, bias
    return layer


def _batch_norm(node: Node, weight: nn.Parameter | None, bias: nn.Parameter | None,
                mean: torch.Tensor | None, variance: torch.Tensor | None, training: bool,
                momentum: float, epsilon: float, *_: Any) -> nn.Module | None:
    if mean is None or variance is None or training:
        return None
    kind = {2: nn.BatchNorm1d, 4: nn.BatchNorm2d}.get(len(_shape(node)))
    if kind is None:
        return None
    layer = kind(len(mean), epsilon, momentum, affine=weight is not None)
    layer.weight, layer.bias = weight, bias
    layer.running_mean, layer.running_var = mean, variance
    return layer.eval()


_MAKERS: dict[Any, Callable[..., nn.Module | None]] = {
    torch.ops.aten.conv2d.default: _conv2d, torch.ops.aten.conv2d.padding: _conv2d,
    torch.ops.aten.linear.default: _linear, torch.ops.aten.batch_norm.default: _batch_norm,
}


def left_alone(module: nn.Module) -> list[str]:
    """Return the operators with weights that `as_module` could make no layer of, by name."""
    found = []
    for path, _, graph in _graphs(module):
        weights = {node for node in graph.nodes if node.op == "get_attr"}
        for node in graph.nodes:
            word = origin.operator(node)
            if word in ("conv2d", "linear", "matmul", "mm", "addmm", "convolution") and (
                    weights.intersection(node.all_input_nodes)):
                found.append(f"{path or 'model'} ({word})")
    return found


def _check_same(program: ExportedProgram, module: nn.Module, example: torch.Tensor,
                name: str) -> None:
    inputs = torch.rand((2, *example.shape[1:]), generator=torch.Generator().manual_seed(0))
    try:
        with tracing():
            run = with_plain_names(program).module()
            wanted = torch.cat([_flat(run(x[None])) for x in inputs])
            found = _flat(module(inputs))
    except Exception as error:
        raise CelosiaError(f"{name}: it does not run on a batch ({quoted(said(error))}); export "
                           f"it with flatten(1) for shapes that hold the batch size, or {_WAY_OUT}"
                           ) from error
    scale = float(wanted.abs().max())
    if found.shape != wanted.shape or not float((found - wanted).abs().max()) <= _CLOSE * scale:
        raise CelosiaError(f"{name}: its results for a batch are not those of its inputs one by "
                           f"one; {_WAY_OUT}")


def _flat(returned: Any) -> torch.Tensor:
    """Return all that a network returns of N inputs, (N, elements)."""
    return torch.cat([leaf.flatten(1) if leaf.ndim > 1 else leaf[:, None]
                      for leaf in tree_leaves(returned) if leaf is not None], dim=1)

