"""How a tensor is stored in the activation banks for the node that reads it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from celosia.qgraph import QNode, QTensor
from celosia_hw.isa import BLOCK, ArrayConfig


@dataclass(frozen=True)
class Window:
    """Where a node's output positions look, in padded input coordinates.

    Output position (Y, X) of the stored tensor, pool-window position w and tap t read padded input
    row ``Y * step[0] + rows[w, t]`` and column ``X * step[1] + columns[w, t]``.

    size    : padded input height and width.   origin : of the unpadded input inside it (top, left).
    shape   : stored output positions (H, W).   step : input rows and columns per output position.
    rows, columns : int64 (window positions, taps), taps in kernel order.
    """

    size: tuple[int, int]
    origin: tuple[int, int]
    shape: tuple[int, int]
    step: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, node: QNode, source: QTensor, result: QTensor) -> "Window":
        geometry, pool = node.geometry, node.pool
        _, height, width = source.shape
        top, left, bottom, right = geometry.padding
        window = pool.window if pool else (1, 1)
        stride = pool.stride if pool else (1, 1)
        (ky, kx), (sy, sx), (dy, dx) = geometry.kernel, geometry.stride, geometry.dilation
        rows = (np.arange(window[0])[:, None] * sy + np.arange(ky) * dy)
        columns = (np.arange(window[1])[:, None] * sx + np.arange(kx) * dx)
        every = (window[0], window[1], ky, kx)
        rows = np.broadcast_to(rows[:, None, :, None], every).reshape(window[0] * window[1], -1)
        columns = np.broadcast_to(columns[None, :, None, :], every).reshape(rows.shape)
        return cls(size=(height + top + bottom, width + left + right), origin=(top, left),
                   shape=(result.shape[1], result.shape[2]),
                   step=(sy * stride[0], sx * stride[1]), rows=rows, columns=columns)

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


class StoredMap:
    """A tensor in the banks of one group of ``size`` lanes, as its consumer wants it.

    The padded input is split into ``step`` x ``step`` planes of its rows and columns, so that
    neighbouring output positions are neighbouring in memory. A plane's lines are ``pitch``
    positions long: the output's line width, plus ``size`` if the input's lines are longer
    (``jump``). Channels are innermost: bank = position % size,
    row = position // size * channels + channel.
    """

    def __init__(self, array: ArrayConfig, window: Window, order: Order, groups: int) -> None:
        self.array, self.window, self.order, self.groups = array, window, order, groups
        self.size = array.lanes // groups
        self.lines = self._reach(window.rows, 0)
        reach = self._reach(window.columns, 1) + order.spread - 1
        width = window.shape[1]
        self.jump = window.shape[0] > 1 and reach > width
        self.pitch = width + self.size * self.jump if window.shape[0] > 1 else reach
        self.plane_step = self._plane_step()
        plane = self.lines * self.pitch
        self._row_planes = -(-(plane + (window.step[1] - 1) * self.plane_step)
                             // self.size) * self.size
        self.reach = reach

    def _reach(self, offsets: np.ndarray, axis: int) -> int:
        """Plane lines (columns) that reads reach, and that hold data."""
        step = self.window.step[axis]
        last = (self.window.shape[axis] - 1) * step + int(offsets.max())
        return max(last // step + 1, -(-self.window.size[axis] // step))

    def _plane_step(self) -> int:
        """Positions from one column plane to the next: behind the plane, and half a beat on, so
        that a beat's even and odd columns go to different banks in one cycle."""
        if self.window.step[1] == 1:
            return 0
        half = self.array.beat // 2
        size = self.lines * self.pitch
        return -(-(size - half) // self.size) * self.size + half

    @property
    def valid(self) -> bool:
        """Whether the array can walk it: at most one line end in a tile, jumps reach far enough."""
        height, width = self.window.shape
        if height == 1:
            return True
        if self.jump and self.reach > self.pitch:
            return False
        starts = np.arange(0, self.window.positions, self.size) % width
        return not self.jump or bool((starts + self.size <= 2 * width).all())

    @cached_property
    def rows_needed(self) -> int:
        """Bank rows of the whole map."""
        return self._row_planes * self.window.step[0] // self.size * self.order.channels

    @property
    def tiles(self) -> int:
        return -(-self.window.positions // self.size)

    @property
    def blocks(self) -> int:
        """Tap-table entries of one tap."""
        return -(-self.order.channels // BLOCK)

    def position(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Positions of padded input coordinates."""
        step_y, step_x = self.window.step
        return ((rows % step_y) * self._row_planes + (columns % step_x) * self.plane_step
                + (rows // step_y) * self.pitch + columns // step_x)

    def element_positions(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Positions of a (C, H, W) tensor's elements, int64 (H, W), without the order's shift."""
        _, height, width = shape
        rows = np.arange(height)[:, None] + self.window.origin[0]
        columns = np.arange(width)[None, :] + self.window.origin[1]
        return self.position(rows, columns)

    def addresses(self, tensor: QTensor, base: int) -> np.ndarray:
        """Host-bus addresses of every element in every copy, int64 (groups, C, H, W)."""
        at = self.element_positions(tensor.shape)[None] + self.order.shift[:, None, None]
        row = base + at // self.size * self.order.channels + self.order.channel[:, None, None]
        copies = np.arange(self.groups)[:, None, None, None] * self.size
        return row * self.array.lanes + at % self.size + copies

    @property
    def plane_distance(self) -> int:
        """Positions that a deinterleaved beat's second half lies further on, besides following its
        first half; 0 where beats are not deinterleaved."""
        return self.plane_step - self.array.beat // 2 if self.window.step[1] == 2 else 0

    def has_zeros(self, tensor: QTensor) -> bool:
        """Whether reads of real output positions meet cells that no element fills."""
        return self.window.size != tensor.shape[1:]

    def taps(self) -> np.ndarray:
        """Tap-table words, int64 (window positions, taps * spread * blocks)."""
        shift = np.arange(self.order.spread)
        at = self.position(self.window.rows, self.window.columns)[:, :, None] + shift
        block = np.arange(self.blocks) * BLOCK
        row = (at // self.size * self.order.channels)[..., None] + block
        rotation = np.broadcast_to((at % self.size)[..., None], row.shape)
        pack = np.vectorize(self.array.pack_tap, otypes=[np.int64])
        return pack(row, rotation).reshape(len(row), -1)

    def column_index(self, columns: np.ndarray, taps: int) -> np.ndarray:
        """Stream index of weight-matrix columns ``channel * taps + tap``."""
        channel, tap = columns // taps, columns % taps
        stored, shift = self.order.channel[channel], self.order.shift[channel]
        tap = tap * self.order.spread + shift
        return (tap * self.blocks + stored // BLOCK) * BLOCK + stored % BLOCK

    def key(self) -> tuple:
        """Equal keys: the same layout."""
        window = self.window
        return (self.groups, window.size, window.origin, window.step, self.pitch, self.lines,
                self.plane_step, self._row_planes, self.order.spread, self.order.channels,
                self.order.channel.tobytes(), self.order.shift.tobytes())
