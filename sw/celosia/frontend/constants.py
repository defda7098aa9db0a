"""What of an exported program is constant: its parameters, and what it computes from these alone,
such as weight times mask."""

import operator as operators
from collections.abc import Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from celosia.frontend import kernels, quantised
from celosia.frontend.call import Constant, Moved, Value
from celosia.frontend.origin import operator
from celosia_spec.errors import CompileError

_REMEDY = "compute it before and register the result as a buffer"

_FILLED = {"scalar_tensor": 0, "full": 1}
"""Operators that make a tensor of one number, and which of their arguments that is."""

_COPIES = frozenset({"alias", "clone", "detach", "detach_", "lift_fresh_copy", "_to_copy"})

Operands = Mapping[FxNode, Value | Constant | Moved]


def stored(program: ExportedProgram) -> dict[FxNode, Constant]:
    """Return the parameters, buffers and constants of a program."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    found = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind != InputKind.USER_INPUT and isinstance(spec.target, str):
            value = program.state_dict.get(spec.target)
            if value is None:
                value = program.constants[spec.target]
            found[placeholders[spec.arg.name]] = Constant(value, spec.target)
    return found


def constant_nodes(program: ExportedProgram, operands: Operands) -> set[FxNode]:
    """Return the nodes that do not depend on the input."""
    found: set[FxNode] = set()
    for node in program.graph.nodes:
        if isinstance(operands.get(node), Constant) or (
                node.op != "placeholder" and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def scalars(program: ExportedProgram, operands: Operands) -> dict[FxNode, torch.Tensor]:
    """Return the parameters and buffers that are a single number, and what is filled with one
    (``zeros_like``), float64 (); no truth values."""
    found: dict[FxNode, torch.Tensor] = {}
    for node in program.graph.nodes:
        operand, at = operands.get(node), _FILLED.get(operator(node))
        read = node.all_input_nodes
        if isinstance(operand, Constant):
            if not isinstance(operand.value, torch.Tensor) or operand.value.numel() != 1:
                continue
            value = operand.value.detach().cpu()
        elif at is not None and isinstance(node.args[at], int | float):
            value = torch.full((), node.args[at], dtype=node.meta["val"].dtype)
        elif len(read) == 1 and read[0] in found and operator(node) in _COPIES:
            value = found[read[0]].to(node.meta["val"].dtype)
        else:
            continue
        if value.dtype != torch.bool and not value.is_complex():
            found[node] = value.to(torch.float64).reshape(())
    return found


def fold(node: FxNode, operands: Mapping[FxNode, Constant], owner: GraphModule, name: str,
         source: str | None) -> Constant:
    """Return the constant that a node computes from constants.

    owner        : the module that the node's graph belongs to.
    name, source : of the node, for messages.

    CompileError where it is not the same each time (random numbers), is no arithmetic on tensors,
    or fails.
    """
    origin = next((operand.origin for operand in operands.values()), node.name)
    if node.op == "get_attr":
        return Constant(getattr(owner, str(node.target), None), origin)
    args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: operands[n].value)
    if (word := quantised.word(node)) is not None:
        return Constant(_quantised(node, word, args, kwargs, name, source), origin)
    problem = _obstacle(node, args, kwargs)
    if problem and node.users and all("rrelu" in operator(reader) for reader in node.users):
        raise CompileError(name, "rrelu", "its slope is drawn while training", "use "
                           "LeakyReLU((lower + upper) / 2), which it is in evaluation", source)
    if problem:
        raise CompileError(name, operator(node), problem, _REMEDY, source)
    try:
        with torch.no_grad():
            return Constant(node.target(*args, **kwargs), origin)
    except (RuntimeError, ValueError, TypeError, IndexError, MemoryError) as error:
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise CompileError(name, operator(node), f"a constant cannot be computed ({words[0]})",
                           "repair the model's parameters", source) from None


def _quantised(node: FxNode, word: str, args: Any, kwargs: Mapping[str, Any], name: str,
               source: str | None) -> torch.Tensor:
    assert isinstance(node.target, torch._ops.OpOverload)
    names = [argument.name for argument in node.target._schema.arguments]
    try:
        return quantised.constant(word, dict(zip(names, args, strict=False)) | dict(kwargs))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise CompileError(name, word, f"a constant cannot be computed ({problem})",
                           quantised.REMEDY, source) from None


def _obstacle(node: FxNode, args: Any, kwargs: Mapping[str, Any]) -> str | None:
    """Return why a node is not computed while compiling, or None."""
    if node.target is operators.getitem:
        return None
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        return "a constant is made by an operator that is not one of ATen"
    if node.target._schema.is_mutable:
        return "a constant is made by an operator that is no arithmetic"
    if torch.Tag.nondeterministic_seeded in node.target.tags:
        return "it draws random numbers, others each time"
    if "empty" in operator(node):
        return "it takes memory as it is, without values"
    return kernels.obstacle(node.target, args, kwargs)
