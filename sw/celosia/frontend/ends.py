"""What an exported program returns: which of its nodes, and what users call them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Node as FxNode

from celosia.frontend.tail import Tail, split
from celosia_spec.errors import CompileError, quoted
from celosia_spec.graph_rules import SEPARATORS
from celosia_spec.outputs import ONLY, OUTPUTS_MAX

_NAME_LENGTH, _REMARK_LENGTH = 100, 1000


@dataclass(frozen=True, eq=False)
class End:
    """name : as `celosia_spec.outputs.Output` has it.   tail : the node, and what the host makes of
    it."""

    name: str
    tail: Tail


def ends(program: ExportedProgram) -> tuple[list[End], list[str]]:
    """Return the tensors that a program returns, and remarks on their names and on None
    beside them.

    CompileError where it returns something else, or nothing.
    """
    results = next(n for n in program.graph.nodes if n.op == "output").args[0]
    specs = program.graph_signature.output_specs
    users = [result for result, spec in zip(results, specs, strict=True)
             if spec.kind == OutputKind.USER_OUTPUT]
    own = _names(program.call_spec.out_spec)
    names = _unique(own, len(users))
    found = [(name, user) for name, user in zip(names, users, strict=True) if user is not None]
    if not found:
        raise CompileError("output", "output", "the model returns no tensor",
                           "return a tensor that the network computes from its input")
    if len(found) > OUTPUTS_MAX:
        raise CompileError("output", "output", f"the model returns {len(found)} tensors, above "
                           f"{OUTPUTS_MAX}", "join some of them along axis 1 (torch.cat)")
    for name, user in found:
        if not isinstance(user, FxNode) or not isinstance(user.meta.get("val"), torch.Tensor):
            raise CompileError(name, "output", "the model returns a value there that is no tensor",
                               "leave it out of what the model returns")
    none = ", ".join(name for name, user in zip(names, users, strict=True) if user is None)
    left = [quoted(f"output {none} is None, and left out", _REMARK_LENGTH)] if none else []
    return [End(name, split(user)) for name, user in found], [*left, *_renamed(own, names)]


def _renamed(own: list[str], names: list[str]) -> list[str]:
    """Return a remark on the outputs whose names cannot be those of arrays in a file."""
    found = [f"{quoted(old, _NAME_LENGTH)} {new}" for old, new in zip(own, names, strict=False)
             if set(old) & set(SEPARATORS)]
    if len(names) < 2 or not found:
        return []
    return [quoted(f"outputs are called by other names: {', '.join(found)}", _REMARK_LENGTH)]


def _unique(names: list[str], count: int) -> list[str]:
    """Return so many names, printable, without separators of paths, and each another."""
    names = [quoted(re.sub(r"[/\\]+", ".", name).strip("."), _NAME_LENGTH) for name in names]
    if len(names) != count or not all(names) or len(set(names)) != count:
        return [str(number) for number in range(count)]
    return names


def _names(spec: Any) -> list[str]:
    """Return what users call the leaves of a returned tree."""
    return [".".join(path) or ONLY for path in _paths(spec)]


def _paths(spec: Any) -> Iterator[tuple[str, ...]]:
    if spec.is_leaf():
        yield ()
        return
    children = spec.children()
    for key, child in zip(_keys(spec.type, spec.context, len(children)), children, strict=True):
        yield from ((key, *path) for path in _paths(child))


def _keys(kind: Any, context: Any, count: int) -> list[str]:
    """Return the keys of a container's parts: of a dictionary its own, of a tuple with names and of
    a dataclass those of its fields, else numbers."""
    own: list[Any] = []
    if isinstance(context, list) and issubclass(kind, dict):
        own = context
    elif hasattr(context, "_fields"):
        own = list(context._fields)
    elif is_dataclass(kind):
        own = context[0] if context and isinstance(context[0], list) else [
            field.name for field in fields(kind)]
    return [str(key) for key in own] if len(own) == count else [str(k) for k in range(count)]
