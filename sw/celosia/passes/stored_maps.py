"""Where the elements of moved tensors lie, and the layers that store them so."""

import math
from dataclasses import replace

import numpy as np

from celosia.graph import Add, Conv, Graph, Move, Node, Reshape, node_shape
from celosia.passes.one_by_one import MOST_ROWS, MOST_WEIGHTS, few
from celosia.passes.read_views import expanded, over_elements
from celosia.passes.rewriting import fresh, identity
from celosia.passes.views import View, common_phases, seen_as
from celosia_spec.errors import CompileError
from celosia_spec.qgraph import NodeKind


class StoredMaps:
    """The nodes that were made, and where in what they store the tensors of a network lie.

    shapes : of stored maps.   seen : of all tensors, as the network has them.   made : nodes.
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

    def keep(self, node: Node) -> str:
        self.shapes[node.name] = node_shape(node, self.shapes)
        self.made.append(node)
        return node.name

    def fresh(self, name: str) -> str:
        """Return a name that no tensor has, nor will have."""
        return fresh(name, self.taken)

    def part(self, name: str, count: int) -> str:
        """Return a name for one of so many parts of a tensor."""
        if count == 1:
            return name
        part = self.fresh(name)
        if name in self.ranges:
            self.ranges[part] = self.ranges[name]
        return part

    # Where elements lie

    def view(self, name: str) -> View:
        """Return where a tensor's elements lie; CompileError where the machine cannot read them so.
        """
        if name not in self.views and name in self.moves:
            move = self.moves[name]
            view = self._moved(move)
            if view is None or (move.apart and view.phases != (1, 1) and view.shift is not None
                                and self.few(name)):
                self.one_by_one(name)
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
            view = (View.found(index[own], self.seen[source], self.view(source))
                    or self._of_input(index[own], source))
            if view is None:
                return None
            views.append(view)
            rows.append(own)
        if not views:
            return None
        sizes_stored = {self.shapes[part][1:] for view in views for part in view.parts}
        if len({view.axes for view in views}) > 1 or len(sizes_stored) > 1:
            phases = common_phases(views)
            if self.dividing(move.name, phases) != phases:
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
        if view.phases == phases and self.whole(view):
            return view
        found = self._identity(view, name, phases)
        return seen_as(found, len(view.table), view.size, phases)

    def dividing(self, name: str, phases: tuple[int, int], read: tuple[str, ...] = ()
                  ) -> tuple[int, int]:
        """Return phases into which a tensor's size divides: where it does not, none, if what is
        read for it can be moved one by one; else CompileError."""
        _, height, width = self.seen[name]
        if height % phases[0] == width % phases[1] == 0:
            return phases
        if all(map(self.few, read or (name,))):
            return 1, 1
        operator = self.moves[name].operator if name in self.moves else "add" if read else "output"
        raise CompileError(name, operator, f"a map of {height} x {width} does not divide into "
                           f"{phases[0]} x {phases[1]}, by which maps were enlarged",
                           "use maps whose size does")

    def _numbers(self, view: View, parts: list[str]) -> np.ndarray:
        """Return a view's table with the channels' numbers in ``parts``, to which its own are
        added."""
        steps = []
        for part in view.parts:
            if part not in parts:
                parts.append(part)
            steps.append(np.arange(self.shapes[part][0])
                         + self.count(parts[:parts.index(part)]))
        numbers: np.ndarray = np.concatenate([*steps, [-1]])[view.table]
        return numbers

    def elements(self, name: str) -> tuple[tuple[str, ...], np.ndarray]:
        """Return stored maps, and which of their elements a tensor's are, int64 (C, H, W); -1 for
        zeros."""
        if name not in self.views and name in self.moves:
            move, tables = self.moves[name], []
            parts: list[str] = []
            for other in move.inputs:
                own, index = self.elements(other)
                tables.append(self._element_numbers(own, index, parts).ravel())
            return tuple(parts), np.concatenate([*tables, [-1]])[move.index]
        view = self.view(name)
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

    # What stores them

    def stored(self, name: str, phases: tuple[int, int]) -> str:
        """Return the stored map that has a tensor's elements in phases, and no others."""
        view = self.view(name)
        table = np.arange(view.table.size).reshape(view.table.shape)
        if (view.phases == phases and self.whole(view) and len(view.parts) == 1
                and self.count(view.parts) == view.table.size and (view.table == table).all()):
            return view.parts[0]
        if view.phases != phases == (1, 1):
            return self.one_by_one(name)
        if (name, phases) not in self.kept:
            self.kept[name, phases] = self._identity(view, name, phases)
        return self.kept[name, phases]

    def _identity(self, view: View, name: str, phases: tuple[int, int]) -> str:
        """Add a layer that stores a view in phases."""
        view = self._apart(view)
        chosen = len(view.parts) == 1 and view.table.min() >= 0
        kind = NodeKind.SELECT if chosen else NodeKind.CONV
        node = identity(self.fresh(name), name, len(view.table), kind)
        return self.keep(self.of_view(node, view, view.size, phases))

    def of_view(self, node: Conv, view: View, size: tuple[int, int],
                 phases: tuple[int, int]) -> Conv:
        """Return a convolution of a view as one of what is stored."""
        view = self._apart(view)
        stored = self.shapes[view.parts[0]]
        made = expanded(node, view, stored[1:], self.count(view.parts), size, phases)
        if made is None:            # what is around is read where something else is stored
            inner = replace(view, axes=(view.axes[0].inner, view.axes[1].inner))
            name = self._identity(inner, node.input, view.phases)
            around = seen_as(name, len(view.table), inner.size, view.phases)
            lines, columns = (replace(axis, phases=own.phases, first=0, step=1)
                              for own, axis in zip(around.axes, view.axes, strict=True))
            view = replace(around, axes=(lines, columns))
            made = expanded(node, view, self.shapes[name][1:], self.count(view.parts), size,
                            phases)
        if made is None and self.few(node.input):
            name = self.one_by_one(node.input)
            made = expanded(node, self.view(name), self.shapes[name][1:], self.shapes[name][0],
                            size, phases)
        if made is None:
            raise CompileError(
                node.name, node.kind, "of a map that was enlarged, lines or columns are to stand "
                "around it where the machine keeps others",
                "pad it before it is enlarged, or with fewer lines, or with zeros")
        return made

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
                table[inside] = view.table[inside] - first + self.count(parts)
                parts.append(part)
            first += count
        return replace(view, parts=self._copied(parts or view.parts[:1]), table=table)

    def _copied(self, parts: list[str] | tuple[str, ...]) -> tuple[str, ...]:
        source = self.before.input
        if source not in parts or len(parts) == 1:
            return tuple(parts)
        if (source,) not in self.kept:
            self.kept[source,] = self.keep(identity(
                self.fresh(source), source, self.shapes[source][0], NodeKind.SELECT))
        return tuple(self.kept[source,] if part == source else part for part in parts)

    def few(self, name: str) -> bool:
        """Whether a layer can move the elements of a tensor one by one."""
        return few(*self._rows_and_columns(name))

    def _rows_and_columns(self, name: str) -> tuple[int, int]:
        """Return how many elements a tensor has, and how many what is read for them."""
        parts, index = self.elements(name)
        return index.size, sum(math.prod(self.shapes[part]) for part in parts)

    def one_by_one(self, name: str) -> str:
        """Return the stored map that has a tensor's elements, each made by a row of its own;
        CompileError where these are too many."""
        key = "elements", name
        if key in self.kept:
            return self.kept[key]
        shape = self.seen[name]
        if not self.few(name):
            move = self.moves[name]
            if name == self.before.output and self.before.returns:
                raise self._no_output(move)
            rows, columns = self._rows_and_columns(name)
            raise CompileError(
                move.name, move.operator, f"of a map of {' x '.join(map(str, shape))} it moves "
                "elements one by one, and " + (
                    f"{MOST_ROWS:,} at most are moved so" if rows > MOST_ROWS else
                    f"{MOST_WEIGHTS:,} weights at most do so, not {rows:,} for each of "
                    f"{columns:,} elements"), move.remedy)
        parts, index = self.elements(name)
        chosen = len(parts) == 1 and index.min() >= 0
        vector = self.fresh(name)
        weight = np.eye(index.size)[:, :, None, None]
        self.over(Conv(name=vector, input=name, weight=weight, bias=None, live=weight > 0,
                        kind=NodeKind.SELECT if chosen else NodeKind.CONV, fixed=True),
                   parts, index.reshape(-1, 1, 1))
        self.kept[key] = vector if shape[1:] == (1, 1) else self.keep(
            Reshape(name=self.fresh(name), input=vector, shape=shape))
        self.views[name] = seen_as(self.kept[key], shape[0], shape[1:], (1, 1))
        return self.kept[key]

    def over(self, node: Conv, parts: tuple[str, ...], index: np.ndarray) -> None:
        """Add a layer with one position, of elements of some parts."""
        sizes = {self.shapes[part][1:] for part in parts}
        names: list[str] = []
        for size in sorted(sizes):
            own = tuple(part for part in parts if self.shapes[part][1:] == size)
            made = over_elements(node, index, parts, own, self.shapes, first=not names)
            name = node.name if len(sizes) == 1 else self.fresh(node.name)
            first, *others = self._copied(own)
            names.append(self.keep(replace(made, name=name, input=first, others=tuple(others))))
        while len(names) > 1:
            left, right, *names = names
            names.insert(0, self.keep(Add(name=self.fresh(node.name) if names else node.name,
                                           left=left, right=right)))

    def _no_output(self, move: Move) -> CompileError:
        """Return the refusal of the outputs that a move joins."""
        sizes = [math.prod(self.seen[name]) for name in move.inputs]
        sources = np.searchsorted(np.cumsum(sizes), move.index.ravel(), side="right")
        larger = [self.view(name).phases != (1, 1) for name in move.inputs]
        of, output = max(((sizes[source], source), output) for output in self.before.returns
                         for source in set(sources[output.first:output.first + math.prod(
                             output.shape)].tolist()) if larger[source] or not any(larger))
        return CompileError(
            output.name, "output", f"it has elements of {move.inputs[of[1]]}, a map that was "
            f"enlarged, in another order, or not all of them, beside outputs of other sizes; "
            f"{len(sources):,} of {sum(sizes):,} elements are too many to be moved one by one",
            f"return {move.inputs[of[1]]} from a network of its own, or maps of one size")

    def count(self, parts: list[str] | tuple[str, ...]) -> int:
        return sum(self.shapes[part][0] for part in parts)

    def whole(self, view: View) -> bool:
        """Whether a view's axes are those of what is stored."""
        _, height, width = self.shapes[view.parts[0]]
        return (view.shift is None and view.axes[0].whole(height)
                and view.axes[1].whole(width))
