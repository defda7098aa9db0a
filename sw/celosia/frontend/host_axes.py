"""Outputs whose axes stand in another order than those of the stored map: the host's work."""

import math
from collections.abc import Iterator

import numpy as np

from celosia.frontend.layouts import Layout
from celosia.graph import Shape
from celosia_spec.host_layers import HostLayer


def by_host(found: Layout, name: str) -> tuple[HostLayer, ...] | None:
    """Return what the host does to put a map's elements in their order, for each image alone; None
    where that is more than axes in another order.

    name : of the layer.
    """
    axes, shape = _axes(found.elements.ravel()), found.elements.shape[1:]
    if axes is None or found.elements.shape[0] != 1:
        return None
    source = sorted(axes, key=lambda axis: -axis[1])
    if [step for _, step in source] != [math.prod(size for size, _ in source[at + 1:])
                                        for at in range(len(source))]:
        return None
    order = [source.index(axis) for axis in axes]
    return tuple(_layers(name, found.shape, [size for size, _ in source], order, shape))


def _layers(name: str, stored: Shape, sizes: list[int], order: list[int], shape: tuple[int, ...]
            ) -> Iterator[HostLayer]:
    """Yield layers that make a shape of a stored one: axes of some sizes, put in an order."""
    before: tuple[int, ...] = stored
    if tuple(sizes) != before:
        before = tuple(sizes)
        yield HostLayer(name=name, operator="reshape", axis=None, shape=before)
    stay = next((at for at in range(1, len(order)) if order[at] < order[at - 1]), len(order))
    now = list(range(len(order)))
    for axis in order[stay:]:
        at = now.index(axis)
        now.append(now.pop(at))
        before = tuple(sizes[own] for own in now)
        yield HostLayer(name=name, operator="movedim", axis=at, shape=before)
    if shape != before:
        yield HostLayer(name=name, operator="reshape", axis=None, shape=shape)


def _axes(elements: np.ndarray) -> list[tuple[int, int]] | None:
    """Return sizes and steps of the axes along which elements are evenly apart, the last one last;
    None where they are not."""
    found: list[tuple[int, int]] = []
    while elements.size > 1:
        step = int(elements[1] - elements[0])
        even = np.diff(elements) == step
        size = elements.size if even.all() else int(even.argmin()) + 1
        if elements.size % size or step < 1 or (np.diff(elements.reshape(-1, size)) != step).any():
            return None
        found.insert(0, (size, step))
        elements = elements[::size]
    return found
