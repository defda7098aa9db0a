"""How a node's input lies in the activation banks: what the node reads, and where it stands."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from celosia_spec.isa import BLOCK, ArrayConfig
from celosia_spec.qgraph import QNode, QTensor

_ROW_BITS = 32
_ROW_MASK = (1 << _ROW_BITS) - 1


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
        geometry, pool = node.geometry, node.epilogue.pool
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


class InputMap:
    """A tensor in the banks of one group of ``size`` lanes, as its consumer wants it.

    The padded input is split into ``step`` x ``step`` planes of its rows and columns, so that
    neighbouring output positions are neighbouring in memory. A plane's lines are ``pitch``
    positions long: the output's line width, plus ``size`` if the input's lines are longer
    (``jump``). Channels are innermost: bank = position % size,
    row = position // size * channels + channel.

    A tap-table entry covers BLOCK bank rows. Every tap has entries of its own where the array's
    column indices reach so far; else taps share entries (``packed``): positions ``size`` apart
    lie in one bank, and ``channels`` rows apart.
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
        entries = window.rows.shape[1] * order.spread * self.blocks
        self.packed = window.phases == 1 and entries * BLOCK > 1 << array.index_bits

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
        starts = np.arange(0, self.window.positions, self.size)
        lanes = np.minimum(self.window.positions - starts, self.size)
        return not self.jump or bool((starts % width + lanes <= 2 * width).all())

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
        at: np.ndarray = ((rows % step_y) * self._row_planes + (columns % step_x) * self.plane_step
                          + (rows // step_y) * self.pitch + columns // step_x)
        return at

    def element_positions(self, shape: tuple[int, int]) -> np.ndarray:
        """Positions of a map's elements, int64 (H, W), without the order's shift.

        shape : (H, W) of the tensor, not turned.
        """
        turned = self.window.turned
        top, left = self.window.origin[::-1] if turned else self.window.origin
        rows, columns = np.arange(shape[0])[:, None] + top, np.arange(shape[1])[None, :] + left
        return self.position(columns, rows) if turned else self.position(rows, columns)

    def addresses(self, tensor: QTensor, base: int) -> np.ndarray:
        """Host-bus addresses of every element in every copy, int64 (groups, C, H, W)."""
        at = self.element_positions(tensor.shape[1:])[None] + self.order.shift[:, None, None]
        row = base + at // self.size * self.order.channels + self.order.channel[:, None, None]
        copies = np.arange(self.groups)[:, None, None, None] * self.size
        addresses: np.ndarray = row * self.array.lanes + at % self.size + copies
        return addresses

    @property
    def plane_distance(self) -> int:
        """Positions that a deinterleaved beat's second half lies further on, besides following its
        first half; 0 where beats are not deinterleaved."""
        return self.plane_step - self.array.beat // 2 if self.window.step[1] == 2 else 0

    def has_zeros(self, tensor: QTensor) -> bool:
        """Whether reads of real output positions meet cells that no element fills."""
        _, height, width = tensor.shape
        return self.window.size != ((width, height) if self.window.turned else (height, width))

    def taps(self) -> np.ndarray:
        """Tap-table entries, int64 (window positions, entries, 2): bank row and rotation."""
        if self.packed:
            return self._entries(self._starts & _ROW_MASK, self._starts >> _ROW_BITS)[None]
        shift = np.arange(self.order.spread)
        at = self.position(self.window.rows, self.window.columns)[:, :, None] + shift
        row = (at // self.size * self.order.channels)[..., None] + np.arange(self.blocks) * BLOCK
        rotation = np.broadcast_to((at % self.size)[..., None], row.shape)
        return self._entries(row, rotation).reshape(len(row), -1, 2)

    def _entries(self, row: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        return np.stack([row % (1 << self.array.bank_row_bits), rotation], axis=-1)

    def columns(self, count: int) -> np.ndarray:
        """Stream index of each of a weight matrix's ``count`` columns, int64 (count,)."""
        return self.column_index(np.arange(count), self.window.rows.shape[1])

    def column_index(self, columns: np.ndarray, taps: int) -> np.ndarray:
        """Stream index of weight-matrix columns ``channel * taps + tap``."""
        channel, tap = columns // taps, columns % taps
        stored, shift = self.order.channel[channel], self.order.shift[channel]
        if self.packed:
            at = self.position(self.window.rows[0, tap], self.window.columns[0, tap]) + shift
            cell = self._cell(at, stored)
            entry = np.searchsorted(self._starts, cell, side="right") - 1
            return entry * BLOCK + cell - self._starts[entry]
        tap = tap * self.order.spread + shift
        index: np.ndarray = (tap * self.blocks + stored // BLOCK) * BLOCK + stored % BLOCK
        return index

    def _cell(self, at: np.ndarray, channel: np.ndarray) -> np.ndarray:
        """One number for a position's bank and a channel's row there: the bank above the row."""
        row = at // self.size * self.order.channels + channel
        cell: np.ndarray = at % self.size << _ROW_BITS | row
        return cell

    @cached_property
    def _starts(self) -> np.ndarray:
        """Cells where the entries of packed taps begin: as few as cover every cell that is read."""
        at = (self.position(self.window.rows[0], self.window.columns[0])[:, None]
              + np.arange(self.order.spread))
        cells = np.unique(self._cell(at[..., None], np.arange(self.order.channels)))
        starts, next_cell = [], 0
        while next_cell < len(cells):
            starts.append(cells[next_cell])
            next_cell = int(np.searchsorted(cells, starts[-1] + BLOCK))
        return np.array(starts)
