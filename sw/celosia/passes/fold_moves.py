"""Moves of elements, and what enlarges maps, go into the layers that read them."""

import math
from dataclasses import replace
from itertools import accumulate

import numpy as np

from celosia.graph import (
    Activate,
    Add,
    Conv,
    Graph,
    MaxPool,
    Move,
    Node,
    Reshape,
    fresh,
    identity,
    node_shape,
)
from celosia.passes.read_views import expanded, over_elements
from celosia.passes.views import Axis, View, seen_as
from celosia_spec.errors import CompileError
from celosia_spec.host_layers import HostLayer
from celosia_spec.qgraph import NodeKind

MOST_ROWS = 4096
"""Most elements that a layer moves one by one, each by a row of its own."""

MOST_WEIGHTS = 1 << 24
"""Most places that such rows have weights for: rows times elements of what they read."""


def fold_moves(graph: Graph) -> Graph:
    """Let layers read the elements where they lie.

    A map that was enlarged is kept as its phases, maps of the size before, in channels of their
    own: y[c, f * i + a, g * j + b] = stored[(c * f + a) * g + b, i, j]. Convolutions of such maps,
    and transposed ones, are convolutions of what is stored, with as many products; nothing is
    interleaved before the network's end, where the host does it. What was joined, split, sliced
    and shuffled along the channels is in the columns of the weights; rows and columns that are left
    out, or taken one in so many, are in stride and kernel. What no layer can read so is chosen by
    one with weights 1; where that is no convolution, by one with a row for each element.

    After: no Move is left, and no Conv with ``up`` or that cuts off. The network's input is read
    alone.
    """
    state = _State(graph)
    for node in graph.nodes:
        state.take(node)
    return state.graph()


class _State:
    """shapes : of stored maps.   seen : of all tensors, as the network has them.   made : nodes.
    views : of tensors that are not stored as they are.   moves : those that nobody has read yet.
    kept : what has been made of a stored map, or of a view, already.   taken : names.
    """

    def __init__(self, graph: Graph) -> None:
        self.before, self.shapes, self.seen = graph, {graph.input: graph.input_map}, graph.shapes
        self.made: list[Node] = []
        self.taken = set(self.seen)
        self.ranges = dict(graph.ranges)
        self.views: dict[str, View] = {}
        self.moves: dict[str, Move] = {}
        self.kept: dict[tuple[object, ...], str] = {}

    def graph(self) -> Graph:
        """Return the graph of what was made; the host puts a map's phases together."""
        graph = self._graph()
        return replace(graph, input_map=self.shapes[graph.input], ranges=self.ranges)

    def _graph(self) -> Graph:
        graph, name = self.before, self.before.output
        if graph.returns and name in self.moves and self.seen[name][1:] == (1, 1):
            graph = self._of_stored_outputs(graph, self.moves[name])
        if name not in self.views and name not in self.moves:
            return replace(graph, nodes=tuple(self.made))
        phases = self._dividing(name, self._view(name).phases)
        output = self._stored(name, phases)
        if phases == (1, 1):
            return replace(graph, nodes=tuple(self.made), output=output)
        layers = [HostLayer(name=name, operator="pixel_shuffle", axis=None, shape=self.seen[name])]
        if graph.output_shape != self.seen[name]:
            layers.append(HostLayer(name=name, operator="reshape", axis=None,
                                    shape=graph.output_shape))
        return replace(graph, nodes=tuple(self.made), output=output,
                       output_shape=self.shapes[output], host=(*layers, *graph.host))

    def _of_stored_outputs(self, graph: Graph, move: Move) -> Graph:
        """Let the output have the numbers of several tensors as they are stored; the host puts the
        phases of each together."""
        enlarged = [self._view(name).phases != (1, 1) for name in move.inputs]
        if not (move.index.ravel() == np.arange(move.index.size)).all():
            self._part_stored(move, enlarged)
            return graph
        sizes = [math.prod(self.seen[name]) for name in move.inputs]
        begins = dict(zip(accumulate(sizes, initial=0), move.inputs, strict=False))
        whole = {(first, math.prod(self.seen[name])) for first, name in begins.items()}
        if any(enlarged) and any((output.first, math.prod(output.shape)) not in whole
                                 for output in graph.returns):
            self._part_stored(move, enlarged)
            return graph
        names = [self._stored(name, self._view(name).phases) if larger else name
                 for name, larger in zip(move.inputs, enlarged, strict=True)]
        returns = []
        for output in graph.returns:
            name = begins.get(output.first, "")
            stored = dict(zip(move.inputs, names, strict=True)).get(name, name)
            if name and self._view(name).phases != (1, 1):
                layers = [HostLayer(name=name, operator="pixel_shuffle", axis=None,
                                    shape=self.seen[name])]
                if output.shape != self.seen[name]:
                    layers.append(HostLayer(name=name, operator="reshape", axis=None,
                                            shape=output.shape))
                output = replace(output, shape=self.shapes[stored],
                                 host=(*layers, *output.host))
            returns.append(output)
        for name in names:
            self.views.pop(name, None)
            self.seen = {**self.seen, name: self.shapes[name]}
        self.moves[move.name] = replace(move, inputs=tuple(names))
        return replace(graph, returns=tuple(returns))

    def _part_stored(self, move: Move, enlarged: list[bool]) -> None:
        """Let enlarged maps of which the network returns parts be vectors for the move that makes
        the output, where no layer reads all that it moves."""
        if len({self.shapes[part][1:] for name in move.inputs
                for part in self._view(name).parts}) == 1 or not all(
                self._few(name) for name, larger in zip(move.inputs, enlarged, strict=True)
                if larger):
            return
        names = []
        for name, larger in zip(move.inputs, enlarged, strict=True):
            size = math.prod(self.seen[name])
            names.append(self._fresh(name) if larger else name)
            if larger:
                self.seen = {**self.seen, names[-1]: (size, 1, 1)}
                self.moves[names[-1]] = replace(move, name=names[-1], inputs=(name,),
                                                index=np.arange(size).reshape(-1, 1, 1))
        self.moves[move.name] = replace(move, inputs=tuple(names))

    def take(self, node: Node) -> None:
        """Add a node, or what it becomes."""
        moved = any(name in self.moves or name in self.views for name in node.inputs)
        match node:
            case Move():
                self.moves[node.name] = node
            case Conv() if moved or node.up != (1, 1) or min(node.padding) < 0:
                self._conv(node)
            case Activate() | MaxPool() if moved:
                self._each(node)
            case Add() if moved:
                self._add(node)
            case Reshape() if moved:
                self._keep(replace(node, input=self._stored(node.input, (1, 1))))
            case _:
                assert not moved, node.name
                self._keep(node)

    def _keep(self, node: Node) -> str:
        self.shapes[node.name] = node_shape(node, self.shapes)
        self.made.append(node)
        return node.name

    def _fresh(self, name: str) -> str:
        """Return a name that no tensor has, nor will have."""
        return fresh(name, self.taken)

    def _part(self, name: str, count: int) -> str:
        """Return a name for one of so many parts of a tensor."""
        if count == 1:
            return name
        part = self._fresh(name)
        if name in self.ranges:
            self.ranges[part] = self.ranges[name]
        return part

    # What reads moved elements

    def _conv(self, node: Conv) -> None:
        if self.seen[node.name][1:] == (1, 1) and node.up == (1, 1) and node.groups == 1:
            self._of_all(node)
            return
        view = self._view(node.input)
        if node.groups == len(view.table) == len(node.weight) > 1 and self._channels(node, view):
            return
        phases = (1, 1)
        sizes = self.seen[node.name][1:]
        for axis in range(2):
            own, up, stride = view.axes[axis].phases, node.up[axis], node.stride[axis]
            least = own * up // math.gcd(own * up, stride) if sizes[axis] > 1 else 1
            if sizes[axis] % least and up == 1 and self._few(node.input):
                self._conv(replace(node, input=self._one_by_one(node.input)))
                return
            if sizes[axis] % least:
                raise CompileError(
                    node.name, node.kind, f"its output of {sizes[0]} x {sizes[1]} does not divide "
                    f"into the {least} by which its input was enlarged",
                    f"give it an output that does (output_padding={-sizes[axis] % least})"
                    if -sizes[axis] % least < up else
                    "pad it so that it does, or pad it before it is enlarged")
            phases = (least, phases[1]) if axis == 0 else (phases[0], least)
        self._expanded(node, view, phases)

    def _expanded(self, node: Conv, view: View, phases: tuple[int, int]) -> None:
        """Add a convolution of a view, and note how its own output is stored."""
        size = self.seen[node.name][1:]
        made = self._of_view(node, view, size, phases)
        self._keep(made)
        if phases != (1, 1):
            self.views[node.name] = seen_as(node.name, len(node.weight), size, phases)

    def _of_view(self, node: Conv, view: View, size: tuple[int, int],
                 phases: tuple[int, int]) -> Conv:
        """Return a convolution of a view as one of what is stored."""
        view = self._apart(view)
        stored = self.shapes[view.parts[0]]
        made = expanded(node, view, stored[1:], self._count(view.parts), size, phases)
        if made is None:            # what is around is read where something else is stored
            inner = replace(view, axes=(view.axes[0].inner, view.axes[1].inner))
            name = self._identity(inner, node.input, view.phases)
            around = seen_as(name, len(view.table), inner.size, view.phases)
            lines, columns = (replace(axis, phases=own.phases, first=0, step=1)
                              for own, axis in zip(around.axes, view.axes, strict=True))
            view = replace(around, axes=(lines, columns))
            made = expanded(node, view, self.shapes[name][1:], self._count(view.parts), size,
                            phases)
        if made is None and self._few(node.input):
            name = self._one_by_one(node.input)
            made = expanded(node, self._view(name), self.shapes[name][1:], self.shapes[name][0],
                            size, phases)
        if made is None:
            raise CompileError(
                node.name, node.kind, "of a map that was enlarged, lines or columns are to stand "
                "around it where the machine keeps others",
                "pad it before it is enlarged, or with fewer lines, or with zeros")
        return made

    def _of_all(self, node: Conv) -> None:
        """Add a layer with one position: whatever it reads, each element has a column."""
        self._over(node, *self._elements(node.input))

    def _over(self, node: Conv, parts: tuple[str, ...], index: np.ndarray) -> None:
        """Add a layer with one position, of elements of some parts."""
        sizes = {self.shapes[part][1:] for part in parts}
        names: list[str] = []
        for size in sorted(sizes):
            own = tuple(part for part in parts if self.shapes[part][1:] == size)
            made = over_elements(node, index, parts, own, self.shapes, first=not names)
            name = node.name if len(sizes) == 1 else self._fresh(node.name)
            first, *others = self._copied(own)
            names.append(self._keep(replace(made, name=name, input=first, others=tuple(others))))
        while len(names) > 1:
            left, right, *names = names
            names.insert(0, self._keep(Add(name=self._fresh(node.name) if names else node.name,
                                           left=left, right=right)))

    def _channels(self, node: Conv, view: View) -> bool:
        """Add a depthwise layer for each part of a view, and return whether that can be. Channels
        that the view leaves out have no weights there."""
        channel = view.table.ravel()
        if (node.up != (1, 1) or min(node.padding) < 0 or not self._whole(view)
                or view.phases != (1, 1)
                or channel.min() < 0 or len(set(channel.tolist())) < len(channel)):
            return False
        names, first = [], 0
        for part in view.parts:
            count = self.shapes[part][0]
            rows = np.flatnonzero((channel >= first) & (channel < first + count))
            own = channel[rows] - first
            weight, bias = np.zeros((count, 1, *node.kernel)), np.zeros(count)
            live = np.zeros(weight.shape, bool)
            weight[own], live[own] = node.weight[rows], True
            if node.bias is not None:
                bias[own] = node.bias[rows]
            name = self._part(node.name, len(view.parts))
            names.append(self._keep(replace(
                node, name=name, input=part, weight=weight, groups=count,
                bias=None if node.bias is None else bias, live=None if live.all() else live)))
            first += count
        _, height, width = self.seen[node.name]
        self.views[node.name] = View(tuple(names), view.table,
                                     (Axis.of(height), Axis.of(width)))
        return True

    def _each(self, node: Activate | MaxPool) -> None:
        """Let what an activation or a pool does be done to each part."""
        view = self._view(node.input)
        if isinstance(node, MaxPool) and not (self._whole(view) and view.phases == (1, 1)):
            if view.phases != (1, 1) and not self._few(node.input):
                raise CompileError(node.name, "max_pool2d", "it pools a map that was enlarged",
                                   "pool it before, or use a convolution with a stride")
            self._keep(replace(node, input=self._stored(node.input, (1, 1))))
            return
        what = node.pool if isinstance(node, MaxPool) else node.activation
        names = []
        for part in view.parts:
            if (part, what) not in self.kept:
                name = self._part(node.name, len(view.parts))
                self.kept[part, what] = self._keep(replace(node, name=name, input=part))
            names.append(self.kept[part, what])
        axes = view.axes
        if isinstance(node, MaxPool):
            _, height, width = self.seen[node.name]
            axes = Axis.of(height), Axis.of(width)
        self.views[node.name] = replace(view, parts=tuple(names), axes=axes)

    def _add(self, node: Add) -> None:
        views = [self._view(name) for name in node.inputs]
        phases = self._dividing(node.name, _common(views), node.inputs)
        left, right = (self._stored(name, phases) for name in node.inputs)
        self._keep(replace(node, left=left, right=right))
        if phases != (1, 1):
            count, height, width = self.seen[node.name]
            self.views[node.name] = seen_as(node.name, count, (height, width), phases)

    def _dividing(self, name: str, phases: tuple[int, int], read: tuple[str, ...] = ()
                  ) -> tuple[int, int]:
        """Return phases into which a tensor's size divides: where it does not, none, if what is
        read for it can be moved one by one; else CompileError."""
        _, height, width = self.seen[name]
        if height % phases[0] == width % phases[1] == 0:
            return phases
        if all(map(self._few, read or (name,))):
            return 1, 1
        operator = self.moves[name].operator if name in self.moves else "add" if read else "output"
        raise CompileError(name, operator, f"a map of {height} x {width} does not divide into "
                           f"{phases[0]} x {phases[1]}, by which maps were enlarged",
                           "use maps whose size does")

    # Where elements lie

    def _view(self, name: str) -> View:
        """Return where a tensor's elements lie; CompileError where the machine cannot read them so.
        """
        if name not in self.views and name in self.moves:
            move = self.moves[name]
            view = self._moved(move)
            if view is None or (move.apart and view.phases != (1, 1) and view.shift is not None
                                and self._few(name)):
                self._one_by_one(name)
            else:
                self.views[name] = view
        if name in self.views:
            return self.views[name]
        channels, height, width = self.shapes[name]
        return seen_as(name, channels, (height, width), (1, 1))

    def _moved(self, move: Move) -> View | None:
        """Return a move's view, of one input for each channel; None where it has none."""
        sizes = [math.prod(self.seen[name]) for name in move.inputs]
        ends = np.cumsum(sizes)
        owners = np.where(move.index < 0, -1, np.searchsorted(ends, move.index, side="right"))
        owners = owners.reshape(len(owners), -1)
        owner = owners.max(axis=1)
        if ((owners != owner[:, None]) & (owners >= 0)).any():
            return None
        views, rows = [], []
        for number in sorted(set(owner.tolist()) - {-1}):
            source, first = move.inputs[number], int(ends[number]) - sizes[number]
            index = np.where(move.index < 0, -1, move.index - first)
            own = np.flatnonzero(owner == number)
            view = (View.found(index[own], self.seen[source], self._view(source))
                    or self._of_input(index[own], source))
            if view is None:
                return None
            views.append(view)
            rows.append(own)
        if not views:
            return None
        sizes_stored = {self.shapes[part][1:] for view in views for part in view.parts}
        if len({view.axes for view in views}) > 1 or len(sizes_stored) > 1:
            phases = _common(views)
            if self._dividing(move.name, phases) != phases:
                return None
            views = [self._phased(view, move.name, phases) for view in views]
        parts: list[str] = []
        table = np.full((len(owner), *views[0].phases), -1)
        shift = np.zeros((len(owner), 2), np.int64)
        for view, own in zip(views, rows, strict=True):
            table[own], shift[own] = self._numbers(view, parts), view.shifts
        return View(tuple(parts), table, views[0].axes, shift if shift.any() else None)

    def _of_input(self, index: np.ndarray, name: str) -> View | None:
        """Return the view that a move has of the network's input as a map of one channel, where it
        alone reads it: channels come last there."""
        first, height, width = self.seen[name]
        if name != self.before.input or self.before.uses[name] != 1:
            return None
        for shape in ((1, first, height * width), (1, 1, first * height * width)):
            view = View.found(index, shape, seen_as(name, 1, shape[1:], (1, 1)))
            if view is not None:
                self.shapes[name] = shape
                return view
        return None

    def _phased(self, view: View, name: str, phases: tuple[int, int]) -> View:
        """Return a view that is stored in phases."""
        if view.phases == phases and self._whole(view):
            return view
        found = self._identity(view, name, phases)
        return seen_as(found, len(view.table), view.size, phases)

    def _numbers(self, view: View, parts: list[str]) -> np.ndarray:
        """Return a view's table with the channels' numbers in ``parts``, to which its own are
        added."""
        steps = []
        for part in view.parts:
            if part not in parts:
                parts.append(part)
            steps.append(np.arange(self.shapes[part][0])
                         + self._count(parts[:parts.index(part)]))
        numbers: np.ndarray = np.concatenate([*steps, [-1]])[view.table]
        return numbers

    def _elements(self, name: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return stored maps, and which of their elements a tensor's are, int64 (C, H, W); -1 for
        zeros."""
        if name not in self.views and name in self.moves:
            move, tables = self.moves[name], []
            parts: list[str] = []
            for other in move.inputs:
                own, index = self._elements(other)
                tables.append(self._element_numbers(own, index, parts).ravel())
            return tuple(parts), np.concatenate([*tables, [-1]])[move.index]
        view = self._view(name)
        return view.parts, view.elements(self.shapes[view.parts[0]][1:])

    def _element_numbers(self, own: tuple[str, ...], index: np.ndarray,
                         parts: list[str]) -> np.ndarray:
        """Return elements of some maps as those of ``parts``, to which these are added."""
        numbers = []
        for part in own:
            if part not in parts:
                parts.append(part)
            before = sum(math.prod(self.shapes[other]) for other in parts[:parts.index(part)])
            numbers.append(before + np.arange(math.prod(self.shapes[part])))
        found: np.ndarray = np.concatenate([*numbers, [-1]])[index]
        return found

    def _stored(self, name: str, phases: tuple[int, int]) -> str:
        """Return the stored map that has a tensor's elements in phases, and no others."""
        view = self._view(name)
        table = np.arange(view.table.size).reshape(view.table.shape)
        if (view.phases == phases and self._whole(view) and len(view.parts) == 1
                and self._count(view.parts) == view.table.size and (view.table == table).all()):
            return view.parts[0]
        if view.phases != phases == (1, 1):
            return self._one_by_one(name)
        if (name, phases) not in self.kept:
            self.kept[name, phases] = self._identity(view, name, phases)
        return self.kept[name, phases]

    def _few(self, name: str) -> bool:
        """Whether a layer can move the elements of a tensor one by one."""
        parts, index = self._elements(name)
        read = sum(math.prod(self.shapes[part]) for part in parts)
        return index.size <= MOST_ROWS and index.size * read <= MOST_WEIGHTS

    def _one_by_one(self, name: str) -> str:
        """Return the stored map that has a tensor's elements, each made by a row of its own;
        CompileError where these are too many."""
        key = "elements", name
        if key in self.kept:
            return self.kept[key]
        shape = self.seen[name]
        if not self._few(name):
            move = self.moves[name]
            if name == self.before.output and self.before.returns:
                raise self._no_output(move)
            raise CompileError(
                move.name, move.operator, f"of a map of {' x '.join(map(str, shape))} it moves "
                f"elements one by one, and {MOST_ROWS:,} at most are moved so", move.remedy)
        parts, index = self._elements(name)
        chosen = len(parts) == 1 and index.min() >= 0
        vector = self._fresh(name)
        weight = np.eye(index.size)[:, :, None, None]
        self._over(Conv(name=vector, input=name, weight=weight, bias=None, live=weight > 0,
                        kind=NodeKind.SELECT if chosen else NodeKind.CONV, fixed=True),
                   parts, index.reshape(-1, 1, 1))
        self.kept[key] = vector if shape[1:] == (1, 1) else self._keep(
            Reshape(name=self._fresh(name), input=vector, shape=shape))
        self.views[name] = seen_as(self.kept[key], shape[0], shape[1:], (1, 1))
        return self.kept[key]

    def _no_output(self, move: Move) -> CompileError:
        """Return the refusal of the outputs that a move joins."""
        sizes = [math.prod(self.seen[name]) for name in move.inputs]
        sources = np.searchsorted(np.cumsum(sizes), move.index.ravel(), side="right")
        larger = [self._view(name).phases != (1, 1) for name in move.inputs]
        of, output = max(((sizes[source], source), output) for output in self.before.returns
                         for source in set(sources[output.first:output.first + math.prod(
                             output.shape)].tolist()) if larger[source] or not any(larger))
        return CompileError(
            output.name, "output", f"it has elements of {move.inputs[of[1]]}, a map that was "
            f"enlarged, in another order, or not all of them, beside outputs of other sizes; "
            f"{len(sources):,} of {sum(sizes):,} elements are too many to be moved one by one",
            f"return {move.inputs[of[1]]} from a network of its own, or maps of one size")

    def _identity(self, view: View, name: str, phases: tuple[int, int]) -> str:
        """Add a layer that stores a view in phases."""
        view = self._apart(view)
        chosen = len(view.parts) == 1 and view.table.min() >= 0
        kind = NodeKind.SELECT if chosen else NodeKind.CONV
        node = identity(self._fresh(name), name, len(view.table), kind)
        return self._keep(self._of_view(node, view, view.size, phases))

    def _apart(self, view: View) -> View:
        """Return a view of the parts that it reads, with a copy in place of the network's input,
        which is read alone."""
        first = 0
        parts: list[str] = []
        table = np.full_like(view.table, -1)
        for part in view.parts:
            count = self.shapes[part][0]
            inside = (view.table >= first) & (view.table < first + count)
            if inside.any():
                table[inside] = view.table[inside] - first + self._count(parts)
                parts.append(part)
            first += count
        return replace(view, parts=self._copied(parts or view.parts[:1]), table=table)

    def _copied(self, parts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
        source = self.before.input
        if source not in parts or len(parts) == 1:
            return tuple(parts)
        if (source,) not in self.kept:
            self.kept[source,] = self._keep(identity(
                self._fresh(source), source, self.shapes[source][0], NodeKind.SELECT))
        return tuple(self.kept[source,] if part == source else part for part in parts)

    def _count(self, parts: list[str] | tuple[str, ...]) -> int:
        return sum(self.shapes[part][0] for part in parts)

    def _whole(self, view: View) -> bool:
        """Whether a view's axes are those of what is stored."""
        _, height, width = self.shapes[view.parts[0]]
        return (view.shift is None and view.axes[0].whole(height)
                and view.axes[1].whole(width))


def _common(views: list[View]) -> tuple[int, int]:
    """Return the phases into which those of all views divide."""
    return (math.lcm(*(view.phases[0] for view in views)),
            math.lcm(*(view.phases[1] for view in views)))
