"""What a node reads: positions, taps and channel order, before they are laid out in banks."""

from dataclasses import dataclass

import numpy as np

from celosia_spec.qgraph import QNode, QTensor


@dataclass(frozen=True)
class Window:
    """Where a node's output positions look, in padded input coordinates.

    Output position (Y, X), pool-window position w and tap t read padded input row
    ``Y * step[0] + rows[w, t]`` and column ``X * step[1] + columns[w, t]``. Where ``turned``, rows
    and columns have changed places throughout (except in ``output``): an output of one column is
    walked as one of one row, which has no line ends.

    size    : padded input height and width.   origin : of the unpadded input inside it (top, left).
    shape   : stored output positions (H, W).   step : input rows and columns per output position,
              1 where there is one output position only.
    rows, columns : int64 (window positions, taps), taps in kernel order.
    output  : (H, W) of the output as its tensor has them.
    """

    size: tuple[int, int]
    origin: tuple[int, int]
    shape: tuple[int, int]
    step: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    output: tuple[int, int]
    turned: bool

    @classmethod
    def of(cls, node: QNode, source: QTensor, result: QTensor) -> "Window":
        geometry, pool = node.geometry, node.pool
        top, left, bottom, right = geometry.padding
        size = (source.shape[1] + top + bottom, source.shape[2] + left + right)
        window, stride = (pool.window, pool.stride) if pool else ((1, 1), (1, 1))
        offsets = [np.arange(window[axis])[:, None] * geometry.stride[axis]
                   + np.arange(geometry.kernel[axis]) * geometry.dilation[axis] for axis in (0, 1)]
        every = (*window, *geometry.kernel)
        taps = (window[0] * window[1], -1)
        rows = np.broadcast_to(offsets[0][:, None, :, None], every).reshape(taps)
        columns = np.broadcast_to(offsets[1][None, :, None, :], every).reshape(taps)
        _, height, width = result.shape
        step = (geometry.stride[0] * stride[0] if height > 1 else 1,
                geometry.stride[1] * stride[1] if width > 1 else 1)
        if width == 1 < height:
            return cls(size=size[::-1], origin=(left, top), shape=(1, height), step=step[::-1],
                       rows=columns, columns=rows, output=(height, width), turned=True)
        return cls(size=size, origin=(top, left), shape=(height, width), step=step, rows=rows,
                   columns=columns, output=(height, width), turned=False)

    @property
    def positions(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def phases(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Order:
    """Which stored channel and position a tensor's channels take.

    channel, shift : int64 (C,): stored channel, and positions to add.   channels : stored ones.
    A map keeps one position per pixel; a vector spreads over ``spread`` neighbouring positions.
    """

    channel: np.ndarray
    shift: np.ndarray
    channels: int
    spread: int = 1

    @classmethod
    def plain(cls, tensor: QTensor, spread: int) -> "Order":
        """Channels in their own order; a vector spreads over ``spread`` positions."""
        count, height, width = tensor.shape
        at = np.arange(count)
        if height == width == 1:
            return cls(at // spread, at % spread, -(-count // spread), spread)
        return cls(at, np.zeros_like(at), count)
