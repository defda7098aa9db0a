"""What an exported program takes: one tensor, or several that are parts of one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node as FxNode

from celosia.frontend.call import Call, Moved, Value, map_shape
from celosia.frontend.examples import RANKS
from celosia_spec.errors import CompileError
from celosia_spec.network_inputs import (
    INPUTS_MAX,
    Input,
    channels,
    joined_shape,
    places,
    size_of,
)

_JOINED = "inputs"
_REMEDY = "give the network maps of one size, or vectors"


@dataclass(frozen=True, eq=False)
class Start:
    """whole : what the array reads.   map : its shape (C, H, W).   operands : of the program's own
    inputs.   takes : these, where they are several."""

    whole: Value
    map: tuple[int, int, int]
    operands: Mapping[FxNode, Value | Moved]
    takes: tuple[Input, ...] = field(default=())


def user_inputs(program: ExportedProgram) -> list[FxNode]:
    """Return what a program takes from its caller; CompileError where that are not tensors."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    specs = [spec for spec in program.graph_signature.input_specs
             if spec.kind == InputKind.USER_INPUT]
    found = [placeholders.get(spec.arg.name) for spec in specs]
    nodes = [node for node in found if node is not None
             and isinstance(node.meta.get("val"), torch.Tensor)]
    if not 1 <= len(nodes) <= INPUTS_MAX or len(nodes) < len(found):
        raise CompileError("input", "input", f"the model has {len(found)} inputs, of which "
                           f"{len(nodes)} are tensors", f"give it 1 to {INPUTS_MAX} inputs, all of "
                           "them tensors")
    return nodes


def start(program: ExportedProgram, shapes: Sequence[tuple[int, ...]],
          names: Sequence[str]) -> Start:
    """Return what a program takes.

    shapes : of the examples, batch axis first.   names : of its inputs, as users know them; empty
    where they are the program's.

    CompileError where the program takes others.
    """
    nodes = user_inputs(program)
    if len(nodes) != len(shapes):
        raise CompileError("input", "input", f"the model takes {len(nodes)} inputs, and "
                           f"example_input has {len(shapes)}", "give one example of each, in a "
                           "tuple, or by their names")
    for node, shape in zip(nodes, shapes, strict=True):
        declared = tuple(node.meta["val"].shape)
        if declared != shape:
            raise CompileError(node.name, "input",
                               f"the program takes {declared}, example_input has {shape}",
                               "give an example_input of the shape the model was exported with"
                               if declared[:1] == (1,) else "export it with one input, (1, ...)")
    if len(nodes) == 1:
        value = Value(nodes[0].name, shapes[0])
        return Start(value, map_shape(shapes[0]), {nodes[0]: value})
    return _joined(nodes, shapes, names or [node.name for node in nodes])


def _joined(nodes: Sequence[FxNode], shapes: Sequence[tuple[int, ...]],
            names: Sequence[str]) -> Start:
    """Return several inputs as parts of one; CompileError where one is neither map nor vector."""
    for name, shape in zip(names, shapes, strict=True):
        if len(shape) not in RANKS:
            raise CompileError(name, "input", f"it has the shape {shape}",
                               "give it the shape (1, C, H, W), (1, C, L) or (1, F)")
    user = joined_shape([shape[1:] for shape in shapes])
    height, width = size = size_of(user)
    first, operands = 0, {}
    for node, shape, name in zip(nodes, shapes, names, strict=True):
        elements = torch.from_numpy(first * height * width + 1 + places(shape[1:], size)[None])
        call = Call(name=node.name, layer=name, operator="input", args={}, shape=shape,
                    source=None, free=str)
        operands[node] = Moved((_JOINED,), elements.double(), call, _REMEDY)
        first += channels(shape[1:], size)
    return Start(Value(_JOINED, (1, *user)), (first, height, width), operands, tuple(
        Input(name=name, shape=shape[1:]) for name, shape in zip(names, shapes, strict=True)))
