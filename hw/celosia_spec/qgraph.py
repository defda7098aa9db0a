"""The quantised graph: what the golden model runs and what the scheduler lowers.

Integers only. It knows nothing of lanes, tiles or schedules. ``docs/numerics.md`` defines the
arithmetic; the field names below are its symbols.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

import numpy as np
from scipy.sparse import csr_array

from celosia_spec.block import Format
from celosia_spec.epilogue import PLAIN, Epilogue, Exponent
from celosia_spec.isa.numbers import EXPONENT_MIN


class NodeKind(StrEnum):
    """What a linear node is to the user, as messages and reports name it."""

    CONV = "conv"
    LINEAR = "linear"
    AVERAGE = "average"
    SELECT = "select"
    """Chooses elements of its input, whose block exponent its output keeps."""


@dataclass(frozen=True, kw_only=True)
class QTensor:
    """A stored tensor: it has one exponent for each image, its block's.

    shape      : (C, H, W). A vector of F features is (F, 1, 1).
    user_shape : the shape the user sees, without the batch axis: (C, H, W) or (F,).
    bits       : mantissa width L, sign included; 16 for the network's output.
    exponent   : how its block exponent is found.
    signed     : False where no element can be below 0: its mantissas have no sign then.
    low        : of a wide input (numerics, section 6), bits of every number's low part: channel 2c
                 of the shape holds high parts, channel 2c + 1 low ones. 0: there are none.
    raised     : bits by which each channel is larger than the float network's; empty: none is. Of
                 the network's output the host takes them away again, to its input it adds them;
                 else they are for reports.
    """

    name: str
    shape: tuple[int, int, int]
    user_shape: tuple[int, ...]
    bits: int
    exponent: Exponent
    signed: bool = True
    low: int = 0
    raised: tuple[int, ...] = ()

    @property
    def format(self) -> Format:
        """What its mantissas are."""
        return Format(bits=self.bits, signed=self.signed)

    @property
    def whole(self) -> Format:
        """What they are with their low parts."""
        return Format(bits=self.bits + self.low, signed=self.signed)

    @property
    def numbers(self) -> tuple[int, int, int]:
        """The shape without low parts."""
        channels, height, width = self.shape
        return channels // 2 if self.low else channels, height, width

    @property
    def larger(self) -> np.ndarray:
        """Bits by which each of its numbers is larger than the float network's, int64 (C, 1, 1), or
        (1, 1, 1)."""
        bits = np.array(self.raised[::2] if self.low else self.raised, np.int64)
        return bits.reshape(-1, 1, 1) if self.raised else np.zeros((1, 1, 1), np.int64)

    def parts(self, m: np.ndarray) -> np.ndarray:
        """Return whole mantissas (N, *numbers) as they are stored, (N, *shape)."""
        if not self.low:
            return m
        high = (m >> self.low).clip(min=self.format.least)
        return np.stack([high, m - (high << self.low)], axis=2).reshape(len(m), *self.shape)

    def joined(self, m: np.ndarray) -> np.ndarray:
        """Return stored mantissas (N, *shape) as whole ones, (N, *numbers)."""
        return (m[:, ::2] << self.low) + m[:, 1::2] if self.low else m

    def values(self, m: np.ndarray, exponents: np.ndarray) -> np.ndarray:
        """Return the numbers that stored mantissas (N, *shape) are at exponents (N,), exactly, in
        the float network's own scale: float64 (N, *user_shape)."""
        lsbs = self.whole.lsb(exponents)[:, None, None, None] - self.larger
        numbers: np.ndarray = np.ldexp(self.joined(m).astype(np.float64), lsbs)
        return numbers.reshape(len(m), *self.user_shape)


def static_exponent(tensors: Mapping[str, QTensor], name: str) -> int | None:
    """Return the exponent that a tensor has for every image, its own or the one it keeps; None
    where each image has another. ValueError where tensors keep each other's."""
    rule = tensors[name].exponent
    for _ in tensors:
        if rule.keeps is None:
            return rule.fixed
        rule = tensors[rule.keeps].exponent
    raise ValueError(f"{name!r} keeps the exponent of tensors that keep its own")


def windows(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int],
            dilation: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Return the positions that a window takes along both axes; below 1 where it does not fit."""
    down, right = ((length - (wide - 1) * apart - 1) // step + 1 for length, wide, step, apart in
                   zip(size, window, stride, dilation, strict=True))
    return down, right


@dataclass(frozen=True)
class Edge:
    """A line or a column of a map that stands beside it once more.

    at : its number.   channels : which channel stands in the place of each one; empty: its own.
    """

    at: int
    channels: tuple[int, ...] = ()


Border: TypeAlias = tuple[tuple[Edge, ...], tuple[Edge, ...], tuple[Edge, ...], tuple[Edge, ...]]
"""Lines above a map, columns to its left, lines below, columns to its right, each in their order.
Columns are those of the map with its lines: so corners are columns of lines."""

BARE: Border = ((), (), (), ())
"""The border of a map around which nothing stands."""


def moves_channels(border: Border) -> bool:
    """Whether channels stand in a border at other numbers than their own."""
    return any(edge.channels for edges in border for edge in edges)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where an output position of a linear node looks. All in elements of the input map.

    kernel, stride, dilation : (y, x).   padding : (top, left, bottom, right), zeros.
    border : what stands around the map, within these zeros.
    A fully connected layer is a kernel of its whole input map.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    border: Border = BARE

    def bordered(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a map with its border."""
        top, left, bottom, right = map(len, self.border)
        return size[0] + top + bottom, size[1] + left + right

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the size of a map with its border and its padding."""
        (height, width), (top, left, bottom, right) = self.bordered(size), self.padding
        return height + top + bottom, width + left + right

    def positions(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the positions that it gives on a map of this size."""
        return windows(self.padded(size), self.kernel, self.stride, self.dilation)


@dataclass(frozen=True, eq=False, kw_only=True)
class NodeRecord:
    """A node without its arrays: what a file's manifest holds of it.

    kind     : what it is to the user; of the machine's work it says nothing.
    inputs   : names of the tensors that it reads, one behind another along the channels; if they
               are several, at an exponent of the reading (numerics, section 4).
    output   : name of the tensor that it makes. Of a map with as many elements as a node of one
               position has rows, row k makes element k, one channel behind another.
    weights  : number of weights of the layer before any was removed (density's denominator).
    epilogue : what follows the sums, bias included.
    least    : smallest exponent of a reading of several tensors; -16 where it reads one, whose own
               exponent has one.
    room     : by how much the exponent of the residual operand may lie above that at which the node
               reads, which is made larger where it does not; None where it always does.
    raised   : (row, bits) of the faint rows whose sw was raised so far (numerics, section 5);
               for reports only.
    """

    name: str
    kind: NodeKind
    inputs: tuple[str, ...]
    output: str
    weights: int
    geometry: Geometry
    epilogue: Epilogue
    least: int
    room: int | None
    raised: tuple[tuple[int, int], ...]

    @property
    def input(self) -> str:
        """The first tensor that it reads, and mostly the only one: all have its mantissas'
        format."""
        return self.inputs[0]

    @property
    def joins(self) -> bool:
        """Whether it reads several tensors."""
        return len(self.inputs) > 1

    @property
    def exponents(self) -> int:
        """How many exponents are set for it: its output's, one for each further tensor that it
        reads, and one where its residual operand may need room."""
        return len(self.inputs) + (self.room is not None)

    @property
    def rounds(self) -> bool:
        """Whether it reads at an exponent of the reading, which is not always its tensor's."""
        return self.joins or self.room is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class QNode(NodeRecord):
    """One node: exact sums, one rounding, one stored tensor (numerics, sections 3 and 4).

    matrix : weight mantissas, csr_array int16 (rows, C * kh * kw), column index
             ``c * kh * kw + ky * kw + kx`` over all input channels (grouped and depthwise rows
             hold only their own channels). Sorted indices. A stored zero counts as a weight to
             be executed (that is how the dense baseline keeps its zeros).
    sw     : int64 (rows,), exponent of a weight mantissa's least significant bit.
    bias   : int64 (rows,), 16-bit bias mantissas.   sb : int64 (rows,), their exponents s_b.
    """

    matrix: csr_array
    sw: np.ndarray
    bias: np.ndarray
    sb: np.ndarray
    epilogue: Epilogue = PLAIN
    least: int = EXPONENT_MIN
    room: int | None = None
    raised: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class QGraph:
    """Nodes in execution order; tensors by name.

    input, output : names of the network's input and output tensors.
    weight_bits, activation_bits : mantissa widths L.
    acc_bits      : accumulator width W, proved sufficient for every row.
    remarks       : what was done with the model and its example, and what 24-bit accumulators
                    cost it, or why it takes 32 bits; for reports only, one line each.
    """

    tensors: dict[str, QTensor]
    nodes: tuple[QNode, ...]
    input: str
    output: str
    weight_bits: int
    activation_bits: int
    acc_bits: int
    remarks: tuple[str, ...] = ()


def low_sums(graph: QGraph) -> set[str]:
    """Return the names of the nodes that sum up the low parts of a wide input."""
    if not graph.tensors[graph.input].low:
        return set()
    return {node.epilogue.add for node in graph.nodes
            if node.epilogue.add is not None and node.input == graph.input}


def least_read(tensors: Mapping[str, QTensor], node: NodeRecord) -> int:
    """Return the smallest exponent at which a node reads."""
    return max(node.least, *(tensors[name].exponent.least for name in node.inputs))


def as_made(tensors: Mapping[str, QTensor], node: QNode) -> QTensor:
    """Return a node's output as its rows and positions make it: where rows make the elements of a
    map, a vector (rows, 1, 1)."""
    tensor, rows = tensors[node.output], node.sw.size
    return tensor if tensor.shape[0] == rows else replace(tensor, shape=(rows, 1, 1))


def row_magnitudes(matrix: csr_array) -> np.ndarray:
    """Return the sum of each row's absolute mantissas, int64 (rows,)."""
    return _row_sums(matrix, np.abs(matrix.data))


def farthest_sums(matrix: csr_array, inputs: Format) -> np.ndarray:
    """Return how far from 0 the sum of a row's products may lie, int64 (rows,).

    With inputs that are never below 0, positive and negative weights never push the same way.
    """
    reach = row_magnitudes(matrix)
    if not inputs.signed:
        reach = (reach + np.abs(_row_sums(matrix, matrix.data))) // 2
    return reach * inputs.largest


def _row_sums(matrix: csr_array, data: np.ndarray) -> np.ndarray:
    """Return the sum of what ``data`` has for each row of a matrix, int64 (rows,)."""
    sums = np.zeros(matrix.shape[0], np.int64)
    rows = np.flatnonzero(np.diff(matrix.indptr))
    if rows.size:
        sums[rows] = np.add.reduceat(data, matrix.indptr[rows], dtype=np.int64)
    return sums
