"""Moves of elements, and what enlarges maps, go into the layers that read them."""

import math
from dataclasses import replace

import numpy as np

from celosia.graph import Activate, Add, Conv, Graph, MaxPool, Move, Node, Reshape
from celosia.passes.moved_outputs import returned
from celosia.passes.stored_maps import StoredMaps
from celosia.passes.views import Axis, View, common_phases, seen_as
from celosia_spec.errors import CompileError


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
    maps = StoredMaps(graph)
    for node in graph.nodes:
        _take(maps, node)
    return returned(maps)


def _take(maps: StoredMaps, node: Node) -> None:
    """Add a node, or what it becomes."""
    moved = any(name in maps.moves or name in maps.views for name in node.inputs)
    match node:
        case Move():
            maps.moves[node.name] = node
        case Conv() if moved or node.up != (1, 1) or min(node.padding) < 0:
            _conv(maps, node)
        case Activate() | MaxPool() if moved:
            _each(maps, node)
        case Add() if moved:
            _add(maps, node)
        case Reshape() if moved:
            maps.keep(replace(node, input=maps.stored(node.input, (1, 1))))
        case _:
            assert not moved, node.name
            maps.keep(node)


def _conv(maps: StoredMaps, node: Conv) -> None:
    if maps.seen[node.name][1:] == (1, 1) and node.up == (1, 1) and node.groups == 1:
        maps.over(node, *maps.elements(node.input))     # each element has a column
        return
    view = maps.view(node.input)
    if node.groups == len(view.table) == len(node.weight) > 1 and _channels(maps, node, view):
        return
    phases = (1, 1)
    sizes = maps.seen[node.name][1:]
    for axis in range(2):
        own, up, stride = view.axes[axis].phases, node.up[axis], node.stride[axis]
        least = own * up // math.gcd(own * up, stride) if sizes[axis] > 1 else 1
        if sizes[axis] % least and up == 1 and maps.few(node.input):
            _conv(maps, replace(node, input=maps.one_by_one(node.input)))
            return
        if sizes[axis] % least:
            raise CompileError(
                node.name, node.kind, f"its output of {sizes[0]} x {sizes[1]} does not divide "
                f"into the {least} by which its input was enlarged",
                f"give it an output that does (output_padding={-sizes[axis] % least})"
                if -sizes[axis] % least < up else
                "pad it so that it does, or pad it before it is enlarged")
        phases = (least, phases[1]) if axis == 0 else (phases[0], least)
    _expanded(maps, node, view, phases)


def _expanded(maps: StoredMaps, node: Conv, view: View, phases: tuple[int, int]) -> None:
    """Add a convolution of a view, and note how its own output is stored."""
    size = maps.seen[node.name][1:]
    made = maps.of_view(node, view, size, phases)
    maps.keep(made)
    if phases != (1, 1):
        maps.views[node.name] = seen_as(node.name, len(node.weight), size, phases)


def _channels(maps: StoredMaps, node: Conv, view: View) -> bool:
    """Add a depthwise layer for each part of a view, and return whether that can be. Channels
    that the view leaves out have no weights there."""
    channel = view.table.ravel()
    if (node.up != (1, 1) or min(node.padding) < 0 or not maps.whole(view)
            or view.phases != (1, 1)
            or channel.min() < 0 or len(set(channel.tolist())) < len(channel)):
        return False
    names, first = [], 0
    for part in view.parts:
        count = maps.shapes[part][0]
        rows = np.flatnonzero((channel >= first) & (channel < first + count))
        own = channel[rows] - first
        weight, bias = np.zeros((count, 1, *node.kernel)), np.zeros(count)
        live = np.zeros(weight.shape, bool)
        weight[own], live[own] = node.weight[rows], True
        if node.bias is not None:
            bias[own] = node.bias[rows]
        name = maps.part(node.name, len(view.parts))
        names.append(maps.keep(replace(
            node, name=name, input=part, weight=weight, groups=count,
            bias=None if node.bias is None else bias, live=None if live.all() else live)))
        first += count
    _, height, width = maps.seen[node.name]
    maps.views[node.name] = View(tuple(names), view.table,
                                 (Axis.of(height), Axis.of(width)))
    return True


def _each(maps: StoredMaps, node: Activate | MaxPool) -> None:
    """Let what an activation or a pool does be done to each part."""
    view = maps.view(node.input)
    if isinstance(node, MaxPool) and not (maps.whole(view) and view.phases == (1, 1)):
        if view.phases != (1, 1) and not maps.few(node.input):
            raise CompileError(node.name, "max_pool2d", "it pools a map that was enlarged",
                               "pool it before, or use a convolution with a stride")
        maps.keep(replace(node, input=maps.stored(node.input, (1, 1))))
        return
    what = node.pool if isinstance(node, MaxPool) else node.activation
    names = []
    for part in view.parts:
        if (part, what) not in maps.kept:
            name = maps.part(node.name, len(view.parts))
            maps.kept[part, what] = maps.keep(replace(node, name=name, input=part))
        names.append(maps.kept[part, what])
    axes = view.axes
    if isinstance(node, MaxPool):
        _, height, width = maps.seen[node.name]
        axes = Axis.of(height), Axis.of(width)
    maps.views[node.name] = replace(view, parts=tuple(names), axes=axes)


def _add(maps: StoredMaps, node: Add) -> None:
    views = [maps.view(name) for name in node.inputs]
    phases = maps.dividing(node.name, common_phases(views), node.inputs)
    left, right = (maps.stored(name, phases) for name in node.inputs)
    maps.keep(replace(node, left=left, right=right))
    if phases != (1, 1):
        count, height, width = maps.seen[node.name]
        maps.views[node.name] = seen_as(node.name, count, (height, width), phases)
