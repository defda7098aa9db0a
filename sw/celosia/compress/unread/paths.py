"""Which numbers of a network's tensors can reach an output at all: paths through its operators.

Every tensor that depends on an input or a parameter is replaced by a `Path`: 1 where its number
may be other than 0, 0 where zeros among the weights hold it at 0, whatever the input. An operator
becomes a sum of what it reads, with the same pattern of who reads what: nothing in a sum of
numbers that are not negative can cancel or vanish. So its gradient, also brought back to 0 and 1
at each step, is 1 exactly where a path leads on to an output. That errs on one side only: it may
take a number for read that is not. Tensors that depend on neither are computed as they are.

The operators are those of core ATen, into which `torch.export` takes a network apart, hooks and
layers with a forward of their own included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils import _pytree

from celosia.compress.unread.path import Path, pattern, unknown
from celosia.compress.unread.rules import RULES

__all__ = ["paths_to_outputs"]


def paths_to_outputs(program: ExportedProgram,
                     weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return for each weight, of its shape, True where a path leads from a number to an output.

    program : a network in core ATen operators, on the CPU.
    weights : parameters of it, found by their place in memory, whose zeros hold. Other parameters
              are taken to have none.

    Raises ArgumentError for an operator that is not known; it names the layer and the line.
    """
    leaves = [pattern(weight).requires_grad_() for weight in weights]
    read = [torch.zeros(weight.shape, dtype=torch.bool) for weight in weights]
    arguments: list[Any] = []
    for spec in program.graph_signature.input_specs:
        given = _given(program, spec)
        leaf = None
        if isinstance(given, torch.Tensor):
            for index, weight in enumerate(weights):
                if given.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():
                    continue
                if given.data_ptr() == weight.data_ptr() and given.shape == weight.shape and (
                        given.stride() == weight.stride()):
                    leaf = leaves[index]
                else:               # a part of it, or it in another form
                    read[index][:] = True
        changes = spec.kind in (InputKind.PARAMETER, InputKind.USER_INPUT) or (
            spec.target in program.graph_signature.buffers_to_mutate.values())
        if leaf is not None:
            arguments.append(Path(leaf))
        elif changes and isinstance(given, torch.Tensor):
            arguments.append(Path(torch.ones(given.shape)))
        else:
            arguments.append(given)
    with torch.enable_grad():
        outputs = _Walk(program.graph_module).run(*arguments, enable_io_processing=False)
        ends = [part.value.sum() for part in _pytree.tree_leaves(outputs)
                if isinstance(part, Path)]
        total = sum(ends, torch.zeros(()).requires_grad_())
        slopes = torch.autograd.grad(total, leaves, allow_unused=True)
    return [found if slope is None else found | (slope != 0)
            for found, slope in zip(read, slopes, strict=True)]


def _given(program: ExportedProgram, spec: Any) -> Any:
    """Return what an input of a program holds; of the user's, what it looks like."""
    if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER) and spec.target in program.state_dict:
        return program.state_dict[spec.target]
    if spec.target in program.constants:
        return program.constants[spec.target]
    if not hasattr(spec.arg, "name") or spec.kind is not InputKind.USER_INPUT:
        return getattr(spec.arg, "value", None)
    node = next(node for node in program.graph.nodes if node.name == spec.arg.name)
    return torch.empty(node.meta["val"].shape)


class _Walk(fx.Interpreter):
    """Runs a program with Paths in the place of what depends on inputs and parameters."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.extra_traceback = False    # the errors are sentences

    def run_node(self, n: fx.Node) -> Any:
        """Run a node by its rule, or as it is where none of its arguments is a Path."""
        if n.op != "call_function":
            return super().run_node(n)
        from celosia.frontend.origin import operator

        if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()):
            raise unknown(n)            # random numbers: none of them is what it is now for good
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if not any(isinstance(part, Path) for part in _pytree.tree_leaves((args, kwargs))):
            return n.target(*args, **kwargs)
        found = RULES.get(operator(n))
        if found is None:
            raise unknown(n)
        try:
            result = found(n, *args, **kwargs)
        except (TypeError, RuntimeError, IndexError, KeyError, AttributeError) as problem:
            raise unknown(n) from problem       # a form of it that its rule was not made for
        for part, value in zip(_pytree.tree_leaves(result), _pytree.tree_leaves(n.meta.get("val")),
                               strict=False):
            if isinstance(part, Path) and part.shape != value.shape:
                raise unknown(n)
        return result
