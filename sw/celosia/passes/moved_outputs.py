"""Moved outputs as they are stored: the host puts the phases of maps together."""

import math
from dataclasses import replace
from itertools import accumulate

import numpy as np

from celosia.graph import Graph, Move, Shape
from celosia.passes.stored_maps import StoredMaps
from celosia_spec.host_layers import HostLayer


def returned(maps: StoredMaps) -> Graph:
    """Return the graph of what was made; the host puts a map's phases together."""
    graph = _returned(maps)
    return replace(graph, input_map=maps.shapes[graph.input], ranges=maps.ranges)


def _returned(maps: StoredMaps) -> Graph:
    graph, name = maps.before, maps.before.output
    if graph.returns and name in maps.moves and maps.seen[name][1:] == (1, 1):
        graph = _of_stored_outputs(maps, graph, maps.moves[name])
    if name not in maps.views and name not in maps.moves:
        return replace(graph, nodes=tuple(maps.made))
    phases = maps.dividing(name, maps.view(name).phases)
    output = maps.stored(name, phases)
    if phases == (1, 1):
        return replace(graph, nodes=tuple(maps.made), output=output)
    layers = _together(name, maps.seen[name], graph.output_shape)
    return replace(graph, nodes=tuple(maps.made), output=output,
                   output_shape=maps.shapes[output], host=(*layers, *graph.host))


def _together(name: str, seen: Shape, shape: tuple[int, ...]) -> list[HostLayer]:
    """Return what puts the phases of a map together, and gives it the shape of an output."""
    layers = [HostLayer(name=name, operator="pixel_shuffle", axis=None, shape=seen)]
    if shape != seen:
        layers.append(HostLayer(name=name, operator="reshape", axis=None, shape=shape))
    return layers


def _of_stored_outputs(maps: StoredMaps, graph: Graph, move: Move) -> Graph:
    """Let the output have the numbers of several tensors as they are stored; the host puts the
    phases of each together."""
    enlarged = [maps.view(name).phases != (1, 1) for name in move.inputs]
    if not (move.index.ravel() == np.arange(move.index.size)).all():
        _part_stored(maps, move, enlarged)
        return graph
    sizes = [math.prod(maps.seen[name]) for name in move.inputs]
    begins = dict(zip(accumulate(sizes, initial=0), move.inputs, strict=False))
    whole = {(first, math.prod(maps.seen[name])) for first, name in begins.items()}
    if any(enlarged) and any((output.first, math.prod(output.shape)) not in whole
                             for output in graph.returns):
        _part_stored(maps, move, enlarged)
        return graph
    names = [maps.stored(name, maps.view(name).phases) if larger else name
             for name, larger in zip(move.inputs, enlarged, strict=True)]
    returns = []
    for output in graph.returns:
        name = begins.get(output.first, "")
        stored = dict(zip(move.inputs, names, strict=True)).get(name, name)
        if name and maps.view(name).phases != (1, 1):
            layers = _together(name, maps.seen[name], output.shape)
            output = replace(output, shape=maps.shapes[stored], host=(*layers, *output.host))
        returns.append(output)
    for name in names:
        maps.views.pop(name, None)
        maps.seen[name] = maps.shapes[name]
    maps.moves[move.name] = replace(move, inputs=tuple(names))
    return replace(graph, returns=tuple(returns))


def _part_stored(maps: StoredMaps, move: Move, enlarged: list[bool]) -> None:
    """Let enlarged maps of which the network returns parts be vectors for the move that makes
    the output, where no layer reads all that it moves."""
    if len({maps.shapes[part][1:] for name in move.inputs
            for part in maps.view(name).parts}) == 1 or not all(
            maps.few(name) for name, larger in zip(move.inputs, enlarged, strict=True)
            if larger):
        return
    names = []
    for name, larger in zip(move.inputs, enlarged, strict=True):
        size = math.prod(maps.seen[name])
        names.append(maps.fresh(name) if larger else name)
        if larger:
            maps.seen[names[-1]] = size, 1, 1
            maps.moves[names[-1]] = replace(move, name=names[-1], inputs=(name,),
                                            index=np.arange(size).reshape(-1, 1, 1))
    maps.moves[move.name] = replace(move, inputs=tuple(names))
