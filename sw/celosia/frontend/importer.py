"""Walk an exported program and build the float graph."""

import math
import operator as operators
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch.fx import Node as FxNode

from celosia.frontend import layouts, origin, quantised
from celosia.frontend.activations import curve
from celosia.frontend.by_place import constant
from celosia.frontend.call import Call, Constant, Moved, Value
from celosia.frontend.constants import constant_nodes, fold, scalars, stored
from celosia.frontend.ends import End, ends
from celosia.frontend.examples import RANKS, Example, check_examples, example_tensors, readings
from celosia.frontend.export import Model, export, exported, opened, remarks
from celosia.frontend.host_axes import by_host
from celosia.frontend.joined import joined
from celosia.frontend.moves import joined_constants, moved, moves, node_of
from celosia.frontend.operators import HANDLERS, Handler, reshape
from celosia.frontend.patterns import Patterns, prelu
from celosia.frontend.refusals import AT_END, REMEDY, Refusals
from celosia.frontend.starts import start
from celosia.graph import Curve, Graph, Move, Node, Quantise, Reshape, node_shape
from celosia.graph_rules import verify
from celosia.grids import Grid
from celosia_spec.errors import ArgumentError, CompileError, quoted
from celosia_spec.host_layers import HostLayer
from celosia_spec.outputs import Output

NAME_LENGTH = 900
"""Longest name of a layer; the passes may add a word to it, a program file takes 1,000."""


W = TypeVar("W", bound="Importer")


def import_model(model: Model, example_input: Example | None = None) -> Graph:
    """Return a PyTorch or ONNX model as a float graph.

    model         : torch.nn.Module (left as it was), ExportedProgram, or the path of a .pt2 or
                    .onnx file.
    example_input : as `celosia.compile` has it; only its shape counts.

    Raises CompileError naming the layer, the operator that cannot be compiled and the line of the
    user's source, ArgumentError for a wrong argument, CelosiaError for a file that cannot be read.
    May be called from several threads at once.
    """
    return walker(Importer, model, example_input).graph()


def walker(kind: type[W], model: Model, example_input: Example | None) -> W:
    """Return what walks the model's program, which it was exported to."""
    model, given = opened(model, None if example_input is None else example_tensors(example_input))
    refusal = check_examples(given)
    if refusal is None:
        with quantised.marked(model):
            program, way = exported(model, readings(given))
        done = [way.remark] if way.remark else []
        return kind(program, way.examples, remarks=(*done, *remarks(model, program)),
                    names=getattr(model, "meta", {}).get("inputs", ()))
    if isinstance(model, torch.nn.Module) and all(
            one.ndim and len(one) == 1 for one in given.tensors):
        # Layers that take such an example, an embedding, are what does not compile.
        try:
            return kind(export(model, given.tensors), given.tensors, refusal)
        except CompileError:
            pass
    raise refusal


class Importer:
    """Walks one program.

    examples : what ``program`` was exported with.   wrong : what is wrong with them.
    remarks : what was done with model and examples so far.   names : of several inputs, where they
    are not the program's.
    """

    def __init__(self, program: torch.export.ExportedProgram, examples: Sequence[torch.Tensor],
                 wrong: ArgumentError | None = None, remarks: tuple[str, ...] = (),
                 names: Sequence[str] = ()) -> None:
        self.program, self.wrong, self.remarks = program, wrong, remarks
        self.operands: dict[FxNode, Value | Constant | Moved] = {}
        self.nodes: list[Node] = []
        self.shapes: dict[str, tuple[int, int, int]] = {}
        self.sources: dict[str, str] = {}
        self.given: dict[tuple[object, ...], Value] = {}
        self.on_maps: set[str] = set()
        self.reshapes: dict[str, str] = {}
        self.whole = quantised.ProgramNumbers()
        self.operands |= stored(program)
        found = start(program, [tuple(example.shape) for example in examples], names)
        self.input, self.takes = found.whole, found.takes
        self.operands |= found.operands
        self.shapes[self.input.name] = found.map
        self.patterns = Patterns(program.graph.nodes, constant_nodes(program, self.operands),
                                 scalars(program, self.operands))

    def graph(self) -> Graph:
        """Return the program as a float graph; CompileError for the first node that is none."""
        result = self.walk()
        return self.made(self.nodes, result)

    def walk(self) -> Value:
        """Turn every node that an output depends on into nodes of the graph; return the output:
        of several, the one that has all."""
        self.ends, left = ends(self.program)
        self.remarks += tuple(left)
        needed = self._ancestors([end.tail.output for end in self.ends])
        functions = filter(None, map(self.patterns.function, needed))
        inside = {step for function in functions for step in function.steps}
        self.refusals = Refusals(needed | inside, self.operands, self.input)
        for node in self.program.graph.nodes:
            if node in needed and node not in self.operands:
                self.operands[node] = self._call(node)
        self._check_state(needed)
        results = [self._result(end) for end in self.ends]
        found, self.ends = [value for value, _ in results], [end for _, end in results]
        if self.wrong is not None:
            raise self.wrong
        self.host: tuple[HostLayer, ...] = ()
        self.returns: tuple[Output, ...] = ()
        if len(found) == 1:
            self.host = self.ends[0].tail.layers
            return found[0]
        whole, self.returns = joined(self.ends, found, self.nodes, self.shapes,
                                     self._unique("outputs"))
        if whole.node is not None:
            self._add(whole.node, None)
        return whole.value

    def _result(self, end: End) -> tuple[Value, End]:
        """Return the tensor that the array computes of one that the network returns, and the end
        with what the host then does to it."""
        if end.tail.output in self.whole.grids:
            raise CompileError(end.name, "output", "its result is whole numbers",
                               "dequantise it in the network")
        found = self._unreshaped({"output": self.operands[end.tail.output]})
        layout = layouts.Layout.of(found["output"], self.shapes, self.on_maps)
        if layout is not None and layout.name != self.input.name:
            moved = self.operands[end.tail.output]
            assert isinstance(moved, Moved)
            layers = by_host(layout, moved.call.layer)
            if layers is not None:
                tail = replace(end.tail, layers=(*layers, *end.tail.layers))
                return Value(layout.name, (1, *layout.shape)), replace(end, tail=tail)
        self._settle(end.tail.output)
        result = self.operands[end.tail.output]
        if isinstance(result, Constant):
            raise CompileError(end.name, "output", "it does not depend on the input",
                               "return tensors that the network computes from its input")
        assert isinstance(result, Value)
        return result, end

    def made(self, nodes: Sequence[Node], result: Value) -> Graph:
        """Return the graph of some of the nodes."""
        source = self.input
        return verify(Graph(nodes=tuple(nodes), input=source.name,
                            input_map=self.shapes[source.name], input_shape=source.shape[1:],
                            output=result.name, output_shape=result.shape[1:],
                            sources=self.sources, host=self.host, returns=self.returns,
                            takes=self.takes,
                            remarks=(*self.remarks, *_approximations(nodes))))

    def _ancestors(self, outputs: list[FxNode]) -> set[FxNode]:
        found, todo = set(), list(outputs)
        while todo:
            current = todo.pop()
            if current not in found:
                found.add(current)
                todo.extend(self.patterns.read(current))
        return found

    def _check_state(self, needed: set[FxNode]) -> None:
        """CompileError where an output depends on a buffer that the forward pass changes."""
        signature = self.program.graph_signature
        changed = set(signature.buffers_to_mutate.values())
        names = {spec.arg.name: spec.target for spec in signature.input_specs}
        for node in needed:
            if node.op == "placeholder" and names.get(node.name) in changed:
                raise CompileError(names[node.name], "buffer", "the forward pass changes it, and "
                                   "the next output depends on it",
                                   "give the state to the network as an input, or leave it out")

    def _call(self, node: FxNode) -> Value | Constant | Moved:
        """Return what a node computes; add it to the graph unless it is constant or the same."""
        operands = tuple(self.patterns.read(node))
        known = self._constants(node)
        if len(known) < len(operands) and quantised.word(node) is not None:
            return self._quantised(node)
        moving = moves(node, [self.operands[n] for n in operands])
        kind = origin.operator(node)
        word, handler = HANDLERS.get(kind, (kind.lstrip("_"), None))
        if self.patterns.function(node) is not None:
            handler = curve
        args = self._bind(node)
        work = None if moving else layouts.work(
            "relu" if handler is curve else kind, self._unreshaped(args), result_shape(node),
            self.shapes, self.on_maps)
        for operand in () if moving or work else operands:
            self._settle(operand)
        called = self.refusals.called(node, word)
        name, layer = self._unique(self._layer(node, word)), self._layer(node, called)
        source = origin.source(node)
        if len(known) == len(operands):
            return fold(node, known, self.program.graph_module, layer, source)
        try:
            self.whole.follow(node, (n for n in operands if n not in known), kind)
        except ValueError as problem:
            raise CompileError(layer, called, str(problem), quantised.REMEDY, source) from None
        if node in self.whole.scales:
            return self.operands[operands[0]]
        shape = result_shape(node)
        call = Call(name=name, layer=layer, operator=called, args=self._bind(node),
                    shape=shape, source=source, free=self._unique)
        if moving:
            return moved(node, self._moving(node, call), call,
                         self.refusals.unsupported(node, call).remedy, self._size)
        if handler is None:
            raise self.refusals.unsupported(node, call)
        if work is not None:
            return self._on_map(node, work, call, word, handler)
        ranks = range(1, 9) if handler is reshape else RANKS   # squeezed one axis at a time
        if len(shape) not in ranks or shape[0] != 1 or 0 in shape:
            raise self.refusals.wrong_shape(node, call, self.wrong)
        return self._handled(node, call, word, handler)

    def _moving(self, node: FxNode, call: Call) -> dict[FxNode, Value | Constant | Moved]:
        """Return the tensors whose elements a node moves; what is constant of them is made."""
        operands = {n: self.operands[n] for n in node.all_input_nodes}
        for of in joined_constants(node, operands):
            source = next(own.name if isinstance(own, Value) else own.names[0]
                          for own in operands.values() if not isinstance(own, Constant))
            values = call.of(operands[of], "constant")
            name = call.part("joined")
            for part in constant(call, name, source, self.shapes[source], values):
                self._add(part, call.source)
            operands[of] = Value(name, values.shape)
        return operands

    def _handled(self, node: FxNode, call: Call, word: str, handler: Handler) -> Value:
        """Return what a handler makes of a call; add its nodes to the graph."""
        try:
            made = handler(call)
        except CompileError as refusal:
            told = self.refusals.explained(node, call, word, refusal)
            if handler is curve and told.remedy == REMEDY:      # a formula of the user's own
                told = refusal
            elif handler is curve and self.refusals.unsupported(node, call).remedy == AT_END:
                told = call.refuse(told.problem, AT_END)
            raise told from None
        if isinstance(made, str):
            return Value(made, call.shape)
        for part in made if isinstance(made, list) else [made]:
            self._add(part, call.source)
        name = call.name
        assert math.prod(self.shapes[name]) == math.prod(call.shape), (name, self.shapes[name],
                                                                       call.shape)
        return Value(name, call.shape)

    def _unreshaped(self, args: dict[str, Any]) -> dict[str, Any]:
        """Return arguments with what was moved as elements of tensors that are no reshapes."""
        found = dict(args)
        for argument, operand in args.items():
            if isinstance(operand, Moved) and len(operand.names) == 1:
                name = operand.names[0]
                while name in self.reshapes:
                    name = self.reshapes[name]
                found[argument] = replace(operand, names=(name,))
        return found

    def _on_map(self, node: FxNode, work: layouts.Work, call: Call, word: str,
                handler: Handler) -> Moved:
        """Return what a handler makes of what was moved: it works on the map before that."""

        def given(moved: Moved) -> Value:
            assert isinstance(moved.elements, torch.Tensor)
            shape = tuple(moved.elements.shape)
            name = call.part("moved")
            made = node_of(moved, name, self.shapes[moved.names[0]])
            if made is None:
                return Value(moved.names[0], shape)
            key = moved.names, shape, moved.elements.numpy().tobytes()
            if key not in self.given:
                self._add(replace(made, apart=True) if isinstance(made, Move) else made,
                          call.source)
                self.given[key] = Value(name, shape)
            return self.given[key]

        own, elements = work(replace(call, args=self._unreshaped(call.args)), given)
        made = self._handled(node, own, word, handler)
        self.on_maps.add(made.name)
        return Moved((made.name,), torch.from_numpy(np.ascontiguousarray(elements + 1.0)), call,
                     self.refusals.unsupported(node, call).remedy)

    def _quantised(self, node: FxNode) -> Value | Constant | Moved:
        """Return what a quantiser, a dequantiser, or what finds a scale, makes of its tensor."""
        word, tensor = quantised.word(node) or "", node.all_input_nodes[0]
        args = {name: value.value if isinstance(value, Constant) else
                None if isinstance(value, Value | Moved) else value
                for name, value in self._bind(node).items()}
        try:
            grid = self.whole.take(node, args)
        except ValueError as problem:
            raise CompileError(self._layer(node, word), word, str(problem), quantised.REMEDY,
                               origin.source(node)) from None
        return self.operands[tensor] if grid is None else self._on_grid(tensor, grid)

    def _on_grid(self, tensor: FxNode, grid: Grid) -> Value | Moved:
        """Return a tensor rounded to a grid. What is moved is rounded before, where that is the
        same."""
        if grid.scale.size > 1:
            self._settle(tensor)
        found = self.operands[tensor]
        assert isinstance(found, Value | Moved)
        names = [found.name] if isinstance(found, Value) else found.names
        made = [self._unique(f"{name}.quantised") for name in names]
        for name, new in zip(names, made, strict=True):
            self._add(Quantise(name=new, input=name, grid=grid), None)
        return (replace(found, name=made[0]) if isinstance(found, Value) else
                replace(found, names=tuple(made)))

    def _add(self, node: Node, source: str | None) -> None:
        self.shapes[node.name] = node_shape(node, self.shapes)
        self.nodes.append(node)
        if isinstance(node, Reshape):
            self.reshapes[node.name] = node.input
        if source is not None:
            self.sources[node.name] = source

    def _settle(self, node: FxNode) -> None:
        """Make a tensor of the network of what was moved: something reads it that is no move."""
        found = self.operands[node]
        if not isinstance(found, Moved):
            return
        shape = result_shape(node)
        if (not isinstance(found.elements, torch.Tensor) or len(shape) not in RANKS
                or shape[0] != 1 or 0 in shape):
            raise self.refusals.wrong_shape(node, found.call, self.wrong)
        name = self._unique(found.call.layer)
        made = node_of(found, name, self.shapes[found.names[0]])
        if made is not None:
            self._add(made, found.call.source)
        self.operands[node] = Value(found.names[0] if made is None else name, shape)

    def _size(self, name: str) -> int:
        return math.prod(self.shapes[name])

    def _constants(self, node: FxNode) -> dict[FxNode, Constant]:
        operands = {n: self.operands[n] for n in self.patterns.read(node)}
        return {n: operand for n, operand in operands.items() if isinstance(operand, Constant)}

    def _bind(self, node: FxNode) -> dict[str, Any]:
        """Return the arguments by schema name, nodes replaced by what they stand for."""
        if (found := prelu(node)) is not None:
            return {"self": self.operands[found.x], "weight": self.operands[found.slope]}
        if (whole := self.patterns.function(node)) is not None:
            return {"self": self.operands[whole.x], "function": whole}
        args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: self.operands[n])
        if node.target is operators.getitem:
            return {"input": args[0], "index": args[1]}
        if not isinstance(node.target, torch._ops.OpOverload):
            return {}
        arguments = node.target._schema.arguments
        bound = {a.name: a.default_value if a.has_default_value() else None for a in arguments}
        return bound | dict(zip((a.name for a in arguments), args, strict=False)) | dict(kwargs)

    def _layer(self, node: FxNode, word: str) -> str:
        """Return what the user calls a node: a module's own work, a parameter's owner, or a path
        with ``word``."""
        path, _ = origin.module(node)
        if not (origin.torch_module(node) and path):
            owners = [origin.owner(constant.origin) for constant in self._constants(node).values()]
            if owners and owners[0]:
                return owners[0]
        return origin.layer(node, word)

    def _unique(self, name: str) -> str:
        """Return a name that no tensor has yet, printable and of a length that files take."""
        name = quoted(name, NAME_LENGTH)
        number, unique = 1, name
        while unique in self.shapes:
            number += 1
            unique = f"{name}_{number}"
        return unique


def _approximations(nodes: Sequence[Node]) -> list[str]:
    """Return how far the nodes' curves are off at most, a line for each function of the user's."""
    found: dict[str, Curve] = {}
    for node in nodes:
        if isinstance(node, Curve) and node.off >= found.get(node.operator, node).off:
            found[node.operator] = node
    return [f"{operator}: {len(curve.pieces.values) - 1} straight pieces, off by up to "
            f"{curve.off:.2%} of its span between -4 and 4; coarse where all numbers are below "
            f"about {curve.pieces.nearest / 4:.1g}"
            for operator, curve in found.items() if curve.off > 1e-6]


def result_shape(node: FxNode) -> tuple[int, ...]:
    """Return the shape of a node's (first) result; () where that is no tensor, and 0 for a size
    that depends on values."""
    value = node.meta.get("val")
    first = value[0] if isinstance(value, (tuple, list)) and value else value
    return tuple(size if isinstance(size, int) else 0 for size in getattr(first, "shape", ()))
