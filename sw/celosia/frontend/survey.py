"""Every operator of a network that the machine does not have, where importing stops at the first.

What is refused is left out, and the walk goes on behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Node as FxNode

from celosia.frontend import origin
from celosia.frontend.call import Constant, Moved, Value, map_shape
from celosia.frontend.examples import RANKS, Example
from celosia.frontend.export import Model
from celosia.frontend.importer import Importer, result_shape, walker
from celosia.frontend.operators import HANDLERS
from celosia.graph import Conv, Graph, Node
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError


@dataclass(frozen=True, eq=False)
class Survey:
    """What was found in a network.

    graph    : the network; where there are refusals, what remains without the operators that they
               name. None where it is not known how a tensor goes on behind one of these.
    layers   : the linear layers, which are known in any case.
    refusals : one for each layer or function that does not compile, in the order of execution.
    """

    graph: Graph | None
    layers: tuple[Conv, ...]
    refusals: tuple[CompileError, ...]


def survey(model: Model, example_input: Example | None = None) -> Survey:
    """Return what is in a PyTorch or ONNX model.

    Arguments and errors are those of `celosia.frontend.import_model`, except that operators which
    do not compile are collected.
    """
    return walker(_Surveyor, model, example_input).survey()


class _Surveyor(Importer):
    """Stands a tensor in for the result of what is refused.

    It is the tensor that the refused call took, where that is one of the same shape; else it is
    among `unknown`, and among `loose` where it is neither a map nor a vector.

    found : refusals by layer and operator.   calls : calls of the user's that are refused.
    """

    def __init__(self, program: torch.export.ExportedProgram, examples: Sequence[torch.Tensor],
                 wrong: ArgumentError | None = None, remarks: tuple[str, ...] = (),
                 names: Sequence[str] = ()) -> None:
        super().__init__(program, examples, wrong, remarks, names)
        self.found: dict[tuple[str, str], CompileError] = {}
        self.calls: set[str] = set()
        self.unknown: set[str] = set()
        self.loose: set[str] = set()

    def survey(self) -> Survey:
        graph = None
        try:
            result = self.walk()
            nodes = self._needed(result)
            reads = {name for node in nodes for name in node.inputs} | {result.name}
            if nodes and not reads & self.unknown:
                graph = self.made(nodes, result)
        except CelosiaError as refusal:     # of the whole: its state, its output, its example
            if not self.found:
                raise
            if isinstance(refusal, CompileError):
                self._note(refusal)
        layers = tuple(node for node in self.nodes if isinstance(node, Conv))
        return Survey(graph, layers, tuple(self.found.values()))

    def _needed(self, result: Value) -> list[Node]:
        """Return the nodes that the output depends on; a refused call leaves others behind."""
        names, nodes = {result.name}, []
        for node in reversed(self.nodes):
            if node.name in names:
                names.update(node.inputs)
                nodes.append(node)
        return nodes[::-1]

    def _call(self, node: FxNode) -> Value | Constant | Moved:
        call, kind = origin.call_of(node), origin.operator(node)
        taken = {value.name for n in self.patterns.read(node)
                 if isinstance(value := self.operands[n], Value)}
        follows = taken & self.loose or (kind == "getitem" and taken & self.unknown)
        if call in self.calls or (follows and kind in HANDLERS):
            return self._stand_in(node)
        try:
            return super()._call(node)
        except CompileError as refusal:
            self._note(refusal)
        except ArgumentError as refusal:
            if refusal is not self.wrong:
                raise
        if call:
            self.calls.add(call)
        return self._stand_in(node)

    def _note(self, refusal: CompileError) -> None:
        self.found.setdefault((refusal.node, refusal.operator), refusal)

    def _stand_in(self, node: FxNode) -> Value:
        shape, passed = result_shape(node), self.refusals.passed(node)
        if passed is not None and passed.shape == shape:
            return passed
        name = self._unique(f"behind {node.name}")
        self.unknown.add(name)
        if len(shape) not in RANKS or shape[0] != 1 or 0 in shape:
            self.loose.add(name)
        self.shapes[name] = map_shape(shape)
        return Value(name, shape)
