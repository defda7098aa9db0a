"""Pooling to a map of a given size, whatever the size before.

Along an axis of ``n`` elements, output ``i`` of ``m`` is of the elements from ``i * n // m`` to
``ceil((i + 1) * n / m)``, as PyTorch has it. Where all windows are of one size and equally far
apart, that is an ordinary pool.
"""

import math
from itertools import pairwise

import numpy as np

from celosia.frontend.call import Call, map_shape
from celosia.frontend.moves import repeats
from celosia.frontend.periodic import axis, layer
from celosia.frontend.pooling import MOST, Windows, pooled
from celosia.graph import AvgPool, MaxPool, Move, Node
from celosia_spec.epilogue import Pool

_WAY_OUT = "choose an output size that divides the map"

_Windows = list[tuple[int, int]]
"""The first element and the end of each output's window."""


def average(call: Call) -> Node | list[Node]:
    """Return an average pool; where windows differ in size, a layer whose weights come again."""
    axes = _axes(call)
    pools = [_pool(windows) for windows in axes]
    if all(pools):
        window, stride = _pairs(pools)
        return AvgPool(name=call.name, input=call.value("self").name, window=window, stride=stride,
                       divisor=math.prod(window))
    return _by_element(call, axes)


def largest(call: Call) -> Node | list[Node]:
    """Return a max-pool; where windows differ in size, several, one behind the other."""
    axes = _axes(call)
    pools = [_pool(windows) for windows in axes]
    if all(pools):
        window, stride = _pairs(pools)
        return MaxPool(name=call.name, input=call.value("self").name,
                       pool=Pool(window=window, stride=stride))
    if all(end - first == 1 for windows in axes for first, end in windows):
        return _by_element(call, axes)
    lines, columns = (_parts(windows, size) for windows, size in
                      zip(axes, call.value("self").shape[2:], strict=True))
    if len(lines) * len(columns) <= MOST:
        return pooled(call, (lines, columns), f"{_WAY_OUT}, or take averages")
    return _apart(call, axes)


def _apart(call: Call, axes: tuple[_Windows, _Windows]) -> list[Node]:
    """Return a max-pool of a map in which all windows are of one size and next to each other: the
    last elements of smaller ones stand there several times."""
    source = call.value("self")
    shape = map_shape(source.shape)
    index, size = np.arange(math.prod(shape)).reshape(shape), []
    for along, windows in enumerate(axes, start=1):
        size.append(max(end - first for first, end in windows))
        index = index.take([min(first + at, end - 1) for first, end in windows
                            for at in range(size[-1])], along)
    inner, window = call.part("inner"), (size[0], size[1])
    return [Move(name=inner, inputs=(source.name,), index=index, operator=call.operator,
                 remedy=f"{_WAY_OUT}, or take averages"),
            MaxPool(name=call.name, input=inner, pool=Pool(window=window, stride=window))]


def _axes(call: Call) -> tuple[_Windows, _Windows]:
    lines, columns = (
        [(at * old // new, -(-(at + 1) * old // new)) for at in range(new)]
        for old, new in zip(call.value("self").shape[2:], call.shape[2:], strict=True))
    return lines, columns


def _pool(windows: _Windows) -> tuple[int, int] | None:
    """Return the size and the distance of windows; None where these are not the same."""
    sizes = {end - first for first, end in windows}
    steps = {after[0] - before[0] for before, after in pairwise(windows)}
    if len(sizes) > 1 or len(steps) > 1 or steps == {0}:
        return None
    size = min(sizes)
    return size, min(steps, default=size)


def _parts(windows: _Windows, before: int) -> list[Windows]:
    """Return windows as those of every so-manieth output, all of one size."""
    if (even := _pool(windows)) is not None:
        return [Windows(windows[0][0], 1, *even, len(windows))]
    count = math.gcd(before, len(windows))
    return [Windows(first, 1, end - first, before // count, count)
            for first, end in windows[:len(windows) // count]]


def _pairs(pools: list[tuple[int, int] | None]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return windows and strides, (y, x), of what `_pool` returns for both axes."""
    (high, down), (wide, right) = (pool for pool in pools if pool is not None)
    return (high, wide), (down, right)


def _by_element(call: Call, axes: tuple[_Windows, _Windows]) -> Node | list[Node]:
    """Return a layer that averages windows; a move where each is one element, and stands as often
    as every other."""
    source = call.value("self")
    _, channels, height, width = source.shape
    if repeats((height, width), call.shape[2:]) and all(
            end - first == 1 for windows in axes for first, end in windows):
        index = np.arange(channels * height * width).reshape(channels, height, width)
        lines, columns = ([first for first, _ in windows] for windows in axes)
        return Move(name=call.name, inputs=(source.name,), operator=call.operator,
                    index=index[:, lines][:, :, columns], remedy=_WAY_OUT)
    down, right = (
        axis([dict.fromkeys(range(first, end), 1 / (end - first)) for first, end in windows], size)
        for windows, size in zip(axes, (height, width), strict=True))
    assert down is not None and right is not None
    return layer(call, source.name, (channels, height, width), (down, right), _WAY_OUT)
