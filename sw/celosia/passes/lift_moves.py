"""Moves of elements come behind what does the same to every element."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from celosia.graph import (
    Activate,
    AvgPool,
    Conv,
    Graph,
    Move,
    Node,
    Pad,
    Range,
    Reshape,
    Shape,
    node_shape,
)
from celosia.passes.rewriting import fresh
from celosia.passes.views import PHASES


def lift_moves(graph: Graph) -> Graph:
    """Let activations work on what is moved, and move their results; and make one move of several,
    and of reshapes among them.

    After: no Activate and no Move reads a Move, and no Reshape but one that makes the output, or a
    map of a vector. No Move makes a map of vectors but of elements that stand in it several times.
    Zero padding that something else reads than convolutions and average pools is a Move, too.
    """
    state, kept = (_State(graph, {graph.input: graph.input_map}, dict(graph.ranges)),
                   _pads(graph))
    for node in graph.nodes:
        if isinstance(node, Move):
            state.move(node)
        elif isinstance(node, Pad) and node.name not in kept:
            state.moves[node.name] = state.composed(_as_move(node, graph.shapes[node.input]))
        elif isinstance(node, Reshape) and node.input in state.moves and (
                node.name != graph.output or graph.uses[node.name] > 1) and not _unflattens(
                node, node_shape(state.moves[node.input], state.shapes)):
            before = state.moves[node.input]
            state.moves[node.name] = replace(before, name=node.name,
                                             index=before.index.reshape(node.shape))
        elif isinstance(node, Activate) and node.input in state.moves:
            state.activate(node)
        else:
            state.add(node)
    if graph.output in state.moves:
        state.add_move(graph.output)
    return replace(graph, nodes=tuple(state.nodes), ranges=state.ranges)


def _pads(graph: Graph) -> set[str]:
    """Return the paddings that are read by convolutions and average pools alone, or by such; and
    the reshapes among them."""
    kept: set[str] = set()
    for node in reversed(graph.nodes):
        readers = [reader for reader in graph.nodes if node.name in reader.inputs]
        if isinstance(node, (Pad, Reshape)) and node.name != graph.output and all(
                isinstance(reader, (Conv, AvgPool)) or reader.name in kept for reader in readers):
            kept.add(node.name)
    return kept


def _as_move(pad: Pad, shape: Shape) -> Move:
    top, left, bottom, right = pad.padding
    index = np.pad(np.arange(shape[0] * shape[1] * shape[2]).reshape(shape),
                   ((0, 0), (top, bottom), (left, right)), constant_values=-1)
    return Move(name=pad.name, inputs=(pad.input,), index=index, operator="pad",
                remedy="pad in front of convolutions only")


def _unflattens(node: Reshape, shape: Shape) -> bool:
    """Whether a reshape of a tensor of a shape makes a map of a vector."""
    return shape[1:] == (1, 1) != node.shape[1:]


@dataclass
class _State:
    """shapes : of the tensors so far.   nodes : that are kept.   moves : which do not read moves.
    done : activations of what is moved, by what they read and are.
    """

    graph: Graph
    shapes: dict[str, Shape]
    ranges: dict[str, Range]
    nodes: list[Node] = field(default_factory=list)
    moves: dict[str, Move] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    reshapes: dict[str, Reshape] = field(default_factory=dict)
    done: dict[tuple[object, ...], str] = field(default_factory=dict)

    def move(self, node: Move) -> None:
        """Take a move. One that makes a map of vectors makes a vector first, and a reshape that
        map; but where elements stand in it several times, as far as a view tells."""
        made = self.composed(node)
        size = made.index.shape[1:]
        elements = made.index[made.index >= 0]
        if (size == (1, 1) or any(self.shapes[name][1:] != (1, 1) for name in made.inputs)
                or self.graph.input in made.inputs
                or (np.unique(elements).size < elements.size and max(size) <= PHASES)):
            self.moves[node.name] = made
            return
        vector = fresh(node.name, {*self.graph.shapes, *self.moves, *self.shapes})
        self.moves[vector] = replace(made, name=vector, index=made.index.reshape(-1, 1, 1))
        if node.name in self.ranges:
            self.ranges[vector] = self.ranges[node.name]
        self.add(Reshape(name=node.name, input=vector, shape=made.index.shape))

    def composed(self, node: Move) -> Move:
        """Return a move as one of tensors that are not moved."""
        inputs: list[str] = []
        tables = []
        for name in node.inputs:
            before = self.moves.get(name)
            sources = before.inputs if before else (self._source(name),)
            own = before.index.ravel() if before else np.arange(self._size(name))
            tables.append(_among(own, sources, inputs, self._size))
        table = np.concatenate([*tables, [-1]])
        return replace(node, inputs=tuple(inputs), index=table[node.index])

    def _source(self, name: str) -> str:
        """Return the tensor that has the elements of ``name`` in this order and is no reshape, but
        of the input, or one that makes a map of a vector."""
        while ((node := self.reshapes.get(name)) and node.input != self.graph.input
               and not _unflattens(node, self.shapes[node.input])):
            name = node.input
        return name

    def _size(self, name: str) -> int:
        channels, height, width = self.shapes[name]
        return channels * height * width

    def activate(self, node: Activate) -> None:
        """Let an activation work on what is moved."""
        before = self.moves[node.input]
        names = []
        for number, name in enumerate(before.inputs):
            key = name, node.activation
            if key not in self.done:
                self.done[key] = f"{node.name}.{number}"
                if node.name in self.ranges:
                    self.ranges[self.done[key]] = self.ranges[node.name]
                self.add(replace(node, name=self.done[key], input=name))
            names.append(self.done[key])
        self.moves[node.name] = replace(before, name=node.name, inputs=tuple(names))

    def add(self, node: Node) -> None:
        for name in node.inputs:
            if name in self.moves:
                self.add_move(name)
        if isinstance(node, Reshape):
            self.reshapes[node.name] = node
        self.shapes[node.name] = node_shape(node, self.shapes)
        self.nodes.append(node)

    def add_move(self, name: str) -> None:
        if name not in self.added:
            self.added.add(name)
            self.add(self.moves[name])


def _among(index: np.ndarray, sources: tuple[str, ...], inputs: list[str],
           size: Callable[[str], int]) -> np.ndarray:
    """Return elements of some sources as those of ``inputs``, to which these are added."""
    starts, first = [], 0
    for name in sources:
        if name not in inputs:
            inputs.append(name)
        starts.append(sum(size(other) for other in inputs[:inputs.index(name)]) - first)
        first += size(name)
    ends = np.cumsum([size(name) for name in sources])
    return np.where(index < 0, -1,
                    index + np.array(starts)[np.searchsorted(ends, index, side="right").clip(
                        max=len(sources) - 1)])
