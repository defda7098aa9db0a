"""How large and how many the tensors of a program from a file become, before torch traces it.

Torch traces with tensors that have no values, so that a size costs nothing; but it makes one such
tensor for each part that another is split into, however many that are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch._guards import detect_fake_mode
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter

from celosia.frontend import origin
from celosia_spec.errors import CompileError

__all__ = ["MAX_ELEMENTS", "MAX_PARTS", "check_sizes", "refuse_large"]

MAX_ELEMENTS = 1 << 28
"""Most elements of a tensor of a network; constants among them are computed for real."""

MAX_PARTS = 1 << 13
"""Most tensors that others are split into, in all of a program from a file."""


def check_sizes(program: ExportedProgram) -> None:
    """CompileError where a program makes too many tensors or too large ones.

    It is run on tensors without values; torch raises what it likes where sizes do not fit together.
    """
    graph = program.graph_module.graph
    values = [node.meta.get("val") for node in graph.nodes if node.op == "placeholder"]
    mode = detect_fake_mode(values)
    if mode is not None:
        with mode, torch.no_grad():
            _Sizes(program.graph_module, _Count()).run(*values)


def refuse_large(node: torch.fx.Node, result: Any) -> None:
    """CompileError where a node's result holds a tensor of more than `MAX_ELEMENTS` elements."""
    for value in result if isinstance(result, (tuple, list)) else [result]:
        if isinstance(value, torch.Tensor) and all(
                isinstance(size, int) for size in value.shape) and value.numel() > MAX_ELEMENTS:
            raise CompileError(node.name, origin.operator(node), f"a tensor of {value.numel()} "
                               f"elements, more than {MAX_ELEMENTS}",
                               "use a smaller input or smaller layers")


@dataclass
class _Count:
    """parts : tensors that others have been split into so far."""

    parts: int = 0


class _Sizes(Interpreter):
    """Looks at what each node of a graph is about to make, and at what it made."""

    def __init__(self, module: GraphModule, count: _Count) -> None:
        super().__init__(module)
        self.count, self.extra_traceback = count, False

    def run_node(self, n: torch.fx.Node) -> Any:
        if n.op == "call_function":
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            self.count.parts += _parts(origin.operator(n), args, kwargs)
            if self.count.parts > MAX_PARTS:
                raise CompileError(n.name, origin.operator(n), f"tensors are split into more than "
                                   f"{MAX_PARTS} parts up to here", "use fewer and larger parts")
        result = super().run_node(n)
        refuse_large(n, result)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a function; a graph that it is to run is run here, so that it is looked at too."""
        for at, argument in enumerate(args):
            if isinstance(argument, GraphModule):
                return _Sizes(argument, self.count).run(*args[at + 1:])
        return super().call_function(target, args, kwargs)


def _parts(word: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return how many tensors an operator makes of one, 0 where it is none that splits."""
    count = _COUNTS.get(word.removeprefix("unsafe_"))
    return 0 if count is None else int(count(*args, **kwargs))


def _by_size(x: torch.Tensor, split_size: Any, dim: int = 0) -> int:
    if isinstance(split_size, (tuple, list)):
        return len(split_size)
    return -(-int(x.shape[dim]) // max(int(split_size), 1))


_COUNTS: dict[str, Callable[..., int]] = {
    "unbind": lambda x, dim=0: x.shape[dim],
    "chunk": lambda x, chunks, dim=0: min(chunks, x.shape[dim]),
    "split": _by_size,
    "split_with_sizes": lambda x, split_sizes, dim=0: len(split_sizes),
}
