"""Flatten disappears: a linear layer after it becomes a kernel of the whole input map; and where a
vector becomes a map, what works on each element of that does so before."""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from celosia.graph import (
    Activate,
    Add,
    AvgPool,
    BatchNorm,
    Conv,
    Curve,
    Graph,
    Leaky,
    MaxPool,
    Move,
    Multiply,
    Node,
    Reshape,
    Shape,
    node_shape,
)
from celosia.graph_text import operator
from celosia.passes.one_by_one import MOST_ROWS, few
from celosia.passes.rewriting import fresh
from celosia_spec.epilogue import Pool
from celosia_spec.errors import CompileError


def fold_flatten(graph: Graph) -> Graph:
    """Remove every Reshape, but of vectors that become maps.

    After: a Reshape makes a map of a vector, and no activation, normalisation or sum of such is
    behind it; of a map that becomes another one, a Move does. A linear layer's columns stay in
    PyTorch's flatten order (c * H + y) * W + x. ReLU, add and one factor for each channel work on
    the map before it was flattened; one for each element is a layer with a row for each. The
    network's input may be reshaped into any map, and the output into anything. Of several reshapes
    in a row the last one counts.
    """
    graph = _last_ones(graph)
    state = _State({graph.input: graph.input_map})
    input_map = graph.input_map
    for node in graph.nodes:
        if isinstance(node, Reshape) and _unflattens_input(graph, node):
            input_map = state.shapes[graph.input] = node.shape
            state.names[node.name] = graph.input
        elif (isinstance(node, Reshape) and node.name == graph.output
              and graph.uses[node.name] == 1):
            state.names[node.name] = state.names.get(node.input, node.input)
        elif isinstance(node, Reshape):
            state.reshape(node)
        else:
            state.add(node)
    return replace(graph, nodes=tuple(state.nodes), input_map=input_map,
                   output=state.names.get(graph.output, graph.output))


def _last_ones(graph: Graph) -> Graph:
    """Return the graph without reshapes that others alone read."""
    sources: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, Reshape):
            node = replace(node, input=sources.get(node.input, node.input))
            sources[node.name] = node.input
        nodes.append(node)
    graph = replace(graph, nodes=tuple(nodes))
    uses = graph.uses
    return replace(graph, nodes=tuple(
        node for node in nodes if uses[node.name] or not isinstance(node, Reshape)))


def _unflattens_input(graph: Graph, node: Reshape) -> bool:
    return (node.input == graph.input and node.shape[1:] != (1, 1)
            and graph.uses[graph.input] == 1)


@dataclass
class _State:
    """shapes : of the maps kept.   names : of removed tensors, to the map that holds the elements.

    flat : tensors that readers take for vectors although a map of more than one position is kept.
    lines : likewise for lines, each of a channel.
    maps  : likewise for maps of this shape, although a vector is kept.
    """

    shapes: dict[str, Shape]
    nodes: list[Node] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    flat: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)
    maps: dict[str, Shape] = field(default_factory=dict)

    def reshape(self, node: Reshape) -> None:
        source = self.names.get(node.input, node.input)
        shape = self.shapes[source]
        self.names[node.name] = source
        if node.shape == shape:
            return
        if node.shape[1:] == (1, 1):
            self.flat.add(node.name)
        elif shape[1:] == (1, 1):
            self.maps[node.name] = node.shape
        elif node.shape[:2] == (shape[0], 1):
            self.lines.add(node.name)
        else:
            self.move(node.name, node.shape)

    def move(self, name: str, shape: Shape) -> None:
        """Let a tensor that a map stands for be there, of another shape than that."""
        taken = {node.name for node in self.nodes}
        made = name if name not in taken else fresh(name, taken)
        self.nodes.append(Move(
            name=made, inputs=(self.names.get(name, name),), operator="reshape",
            index=np.arange(math.prod(shape)).reshape(shape),
            remedy="flatten maps into vectors, and make maps of vectors only"))
        self.names[name], self.shapes[made] = made, shape

    def as_map(self, name: str) -> None:
        """Let the map that a tensor stands for be there."""
        shape, source = self.maps.pop(name), self.names.get(name, name)
        taken = {node.name for node in self.nodes}
        made = name if name not in taken else fresh(name, taken)
        self.nodes.append(Reshape(name=made, input=source, shape=shape))
        self.names[name], self.shapes[made] = made, shape

    def add(self, node: Node) -> None:
        names = node.inputs
        shapes = {self.maps.get(name) for name in names}
        if shapes != {None}:
            if len(shapes) == 1 and isinstance(node, (Activate, Add, BatchNorm, Curve, Leaky)):
                self.maps[node.name] = shape = self.maps[names[0]]
                if isinstance(node, (BatchNorm, Leaky)):
                    node = _by_element(node, shape)
            else:
                for name in dict.fromkeys(names):
                    if name in self.maps:
                        self.as_map(name)
        flat = [name in self.flat for name in names]
        sources = tuple(self.names.get(name, name) for name in names)
        if isinstance(node, Add):
            node = replace(node, left=sources[0], right=sources[1])
            if self.shapes[sources[0]] != self.shapes[sources[1]]:
                first, second = (self.shapes[name] for name in sources)
                raise CompileError(node.name, "add", f"adds flattened tensors of the shapes "
                                   f"{first} and {second}",
                                   "let a linear layer of its own read the flattened map")
        elif isinstance(node, Move):        # a reshape leaves elements in their order
            node = replace(node, inputs=sources)
            flat, names = [], ()
        else:
            assert not isinstance(node, Multiply), node.name
            node = replace(node, input=sources[0])
        if self.lines.intersection(names):
            if isinstance(node, (Activate, Add, BatchNorm, Curve, Leaky)):
                self.lines.add(node.name)
            elif (over := _over_map(node, self.shapes[sources[0]])) is not None:
                node = over
            else:
                channels, *size = self.shapes[sources[0]]
                self.lines.remove(names[0])
                self.move(names[0], (channels, 1, math.prod(size)))
                assert not isinstance(node, (Move, Multiply))
                node = replace(node, input=self.names[names[0]])
        if any(flat) and isinstance(node, Conv):
            node = _whole_map(node, self.shapes[sources[0]])
        elif any(flat) and isinstance(node, (Activate, Add, BatchNorm, Curve, Leaky)):
            shape = self.shapes[sources[0]]
            if isinstance(node, BatchNorm) and not _of_channels(node, shape):
                node = _by_place(node, shape)
            else:
                if isinstance(node, (BatchNorm, Leaky)):
                    node = _by_channel(node, shape)
                self.flat.add(node.name)
        elif any(flat):
            raise CompileError(node.name, operator(node), "works on a flattened map of shape "
                               f"{self.shapes[sources[0]]}", "move it before the flattening, or "
                               "behind a linear layer")
        self.shapes[node.name] = node_shape(node, self.shapes)
        self.nodes.append(node)


def _over_map(node: Node, shape: Shape) -> Node | None:
    """Return a pool over whole lines as one over the maps that these were; None of another node."""
    size, whole = shape[1:], (1, shape[1] * shape[2])
    if isinstance(node, AvgPool) and (node.window, node.padding) == (whole, (0, 0, 0, 0)):
        return replace(node, window=size, stride=size)
    if isinstance(node, MaxPool) and (node.pool.window, node.padding) == (whole, (0, 0, 0, 0)):
        return replace(node, pool=Pool(window=size, stride=size))
    return None


def _of_channels(node: BatchNorm | Leaky, shape: Shape) -> bool:
    """Whether a node of a flattened map does the same at all places of a channel."""
    arrays = (getattr(node, field).reshape(shape) for field in _fields(node))
    return all(np.all(array == array[:, :1, :1]) for array in arrays)


def _fields(node: BatchNorm | Leaky) -> tuple[str, ...]:
    return ("slope",) if isinstance(node, Leaky) else ("scale", "shift")


def _by_channel(node: BatchNorm | Leaky, shape: Shape) -> BatchNorm | Leaky:
    """Return the node for the map before it was flattened."""
    if not _of_channels(node, shape):
        raise CompileError(node.name, operator(node), f"works on a flattened map of shape {shape}, "
                           "otherwise from place to place", "put it before the flattening, or "
                           "let one linear layer alone read it")
    return replace(node, **{field: getattr(node, field).reshape(shape)[:, 0, 0].copy()
                            for field in _fields(node)})


def _by_place(node: BatchNorm, shape: Shape) -> Conv:
    """Return the layer with a row for each element of the map before it was flattened."""
    count = math.prod(shape)
    if not few(count, count):
        raise CompileError(
            node.name, operator(node), f"it has numbers for each of {count:,} elements of a map of "
            f"shape {shape}, and of a layer with weights for each place {MOST_ROWS:,} elements are "
            "made at most", "use one number for each channel, or give the network those that it "
            "adds as a second input")
    weight = np.diag(node.scale).reshape(count, *shape)
    return Conv(name=node.name, input=node.input, weight=weight, bias=node.shift,
                live=np.eye(count, dtype=bool).reshape(weight.shape))


def _by_element(node: BatchNorm | Leaky, shape: Shape) -> BatchNorm | Leaky:
    """Return the node of a map for the vector that becomes it."""
    count = shape[1] * shape[2]
    if isinstance(node, Leaky):
        return replace(node, slope=np.repeat(node.slope, count))
    return replace(node, scale=np.repeat(node.scale, count), shift=np.repeat(node.shift, count))


def _whole_map(node: Conv, shape: Shape) -> Conv:
    if node.groups != 1 or node.kernel != (1, 1) or any(node.padding) or node.up != (1, 1):
        raise CompileError(node.name, "conv2d", f"convolves a flattened map of shape {shape}",
                           "use a linear layer behind the flattening")
    whole = len(node.weight), *shape
    return replace(node, weight=node.weight.reshape(whole),
                   live=None if node.live is None else node.live.reshape(whole))
