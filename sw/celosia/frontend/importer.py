"""Walk an exported program and build the float graph."""

import math
import operator
from typing import Any

import numpy as np
import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as FxNode

from celosia.errors import CompileError
from celosia.frontend.call import Call, Constant, Value
from celosia.frontend.export import Model, example_tensor, export
from celosia.frontend.operators import HANDLERS, REMEDIES, REMEDY, reshape
from celosia.graph import Graph, Node, node_shape, verify


def import_model(model: Model, example_input: np.ndarray | torch.Tensor) -> Graph:
    """Return a PyTorch model as a float graph.

    model         : torch.nn.Module (left as it was), ExportedProgram, or the path of a .pt2 file.
    example_input : float32 (1, C, H, W) or (1, F); only its shape counts.

    Raises CompileError naming the layer and the operator that cannot be compiled, ArgumentError
    for a wrong argument, CelosiaError for a file that cannot be read.
    """
    example = example_tensor(example_input)
    return _Importer(export(model, example), example).graph()


class _Importer:
    def __init__(self, program: torch.export.ExportedProgram, example: torch.Tensor) -> None:
        self.program = program
        self.operands: dict[FxNode, Value | Constant] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self.input = self._placeholders(tuple(example.shape))

    def graph(self) -> Graph:
        output = self._output()
        needed = _ancestors(output)
        for node in self.program.graph.nodes:
            if node in needed and node not in self.operands:
                self.operands[node] = self._call(node)
        result = self.operands[output]
        if isinstance(result, Constant):
            raise CompileError("output", "output", "it does not depend on the input",
                               "return a tensor that the network computes from its input")
        source = self.input
        return verify(Graph(nodes=tuple(self.nodes), input=source.name,
                            input_map=self.shapes[source.name], input_shape=source.shape[1:],
                            output=result.name, output_shape=result.shape[1:]))

    def _placeholders(self, shape: tuple[int, ...]) -> Value:
        placeholders = {n.name: n for n in self.program.graph.nodes if n.op == "placeholder"}
        inputs = []
        for spec in self.program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(placeholders.get(spec.arg.name))
            elif isinstance(spec.target, str):
                stored = self.program.state_dict.get(spec.target)
                if stored is None:
                    stored = self.program.constants[spec.target]
                self.operands[placeholders[spec.arg.name]] = Constant(stored, spec.target)
        if len(inputs) != 1 or inputs[0] is None:
            raise CompileError("input", "input", f"the model has {len(inputs)} inputs",
                               "give it exactly one input, a tensor")
        declared = tuple(inputs[0].meta["val"].shape)
        if declared != shape:
            raise CompileError(inputs[0].name, "input",
                               f"the program takes {declared}, example_input has {shape}",
                               "give an example_input of the shape the model was exported with")
        value = Value(inputs[0].name, shape)
        self.operands[inputs[0]] = value
        self.shapes[value.name] = shape[1:] if len(shape) == 4 else (shape[1], 1, 1)
        return value

    def _output(self) -> FxNode:
        results = next(n for n in self.program.graph.nodes if n.op == "output").args[0]
        specs = self.program.graph_signature.output_specs
        users = [result for result, spec in zip(results, specs, strict=True)
                 if spec.kind == OutputKind.USER_OUTPUT]
        if len(users) != 1 or not isinstance(users[0], FxNode):
            raise CompileError("output", "output", f"the model returns {len(users)} values",
                               "return exactly one tensor")
        return users[0]

    def _call(self, node: FxNode) -> Value | Constant:
        """Return what a node computes; add it to the graph unless it is constant or the same."""
        if len(self._constants(node)) == len(node.all_input_nodes):
            return self._fold(node)
        kind = _operator(node)
        word, handler = HANDLERS.get(kind, (kind.lstrip("_"), None))
        shape = _shape(node)
        name = self._name(node, word)
        call = Call(name, word, self._bind(node), shape)
        if handler is None:
            raise call.refuse("this operator is not supported", REMEDIES.get(kind, REMEDY))
        ranks = range(1, 9) if handler is reshape else (2, 4)   # squeezed one axis at a time
        if len(shape) not in ranks or shape[0] != 1:
            raise call.refuse(f"its result has the shape {shape}",
                              "keep every tensor as (1, C, H, W) or (1, F)")
        made = handler(call)
        if isinstance(made, str):
            return Value(made, shape)
        self.shapes[name] = node_shape(made, self.shapes)
        assert math.prod(self.shapes[name]) == math.prod(shape), (name, self.shapes[name], shape)
        self.nodes.append(made)
        return Value(name, shape)

    def _fold(self, node: FxNode) -> Constant:
        """Compute a node whose operands are all constant, such as weight times mask."""
        constants = self._constants(node)
        origin = next((c.origin for c in constants.values()), node.name)
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs),
                                        lambda n: constants[n].tensor.detach())
        return Constant(node.target(*args, **kwargs), origin)

    def _constants(self, node: FxNode) -> dict[FxNode, Constant]:
        operands = {n: self.operands[n] for n in node.all_input_nodes}
        return {n: operand for n, operand in operands.items() if isinstance(operand, Constant)}

    def _bind(self, node: FxNode) -> dict[str, Any]:
        """Return the arguments by schema name, nodes replaced by what they stand for."""
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: self.operands[n])
        if node.target is operator.getitem:
            return {"input": args[0], "index": args[1]}
        arguments = node.target._schema.arguments
        bound = {a.name: a.default_value if a.has_default_value() else None for a in arguments}
        return bound | dict(zip((a.name for a in arguments), args, strict=False)) | dict(kwargs)

    def _name(self, node: FxNode, word: str) -> str:
        """Return a name not yet taken: the module's path where the node is a module's own work."""
        path, kind = _module(node)
        own = kind.startswith("torch.nn.") and "container" not in kind
        origins = [_owner(constant.origin) for constant in self._constants(node).values()]
        if own and path:
            name = path
        elif origins and origins[0]:
            name = origins[0]
        else:
            name = f"{path}.{word}" if path else word
        taken, number, unique = set(self.shapes), 1, name
        while unique in taken:
            number += 1
            unique = f"{name}_{number}"
        return unique


def _ancestors(node: FxNode) -> set[FxNode]:
    found, todo = set(), [node]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            todo.extend(current.all_input_nodes)
    return found


def _operator(node: FxNode) -> str:
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target._schema.name).split("::")[-1]
    return getattr(node.target, "__name__", str(node.target))


def _shape(node: FxNode) -> tuple[int, ...]:
    value = node.meta["val"]
    return tuple((value[0] if isinstance(value, (tuple, list)) else value).shape)


def _module(node: FxNode) -> tuple[str, str]:
    """Return path and class of the innermost module that a node was traced in."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1]
    return path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"


def _owner(parameter: str) -> str:
    """Return the path of the module that a parameter belongs to."""
    module, parametrised, _ = parameter.partition(".parametrizations.")
    return module if parametrised else parameter.rpartition(".")[0]
