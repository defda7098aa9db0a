"""Rows into batches, batches into the weight stream."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from celosia_spec.isa import DELTA_BITS, ArrayConfig

_LONGEST = (1 << DELTA_BITS) - 1


@dataclass(frozen=True, eq=False)
class Stream:
    """Weight words of one node, in the order in which the array reads them.

    words   : int64 (n,), batch after batch, step after step, one word a group.
    lengths : int64 (batches,), steps of each batch.
    padding : words that hold no weight: index steps too long for one word, and rows shorter than
              their batch.
    """

    words: np.ndarray
    lengths: np.ndarray
    padding: int


def stretched(stream: Stream, groups: int, least: int) -> Stream:
    """Return the stream with every batch at least ``least`` steps long."""
    lengths = np.maximum(stream.lengths, least)
    if (lengths == stream.lengths).all():
        return stream
    starts = [np.concatenate([[0], np.cumsum(n)[:-1]]) * groups for n in (stream.lengths, lengths)]
    batch = np.repeat(np.arange(len(lengths)), stream.lengths * groups)
    words = np.zeros(int(lengths.sum()) * groups, np.int64)
    words[np.arange(len(stream.words)) - starts[0][batch] + starts[1][batch]] = stream.words
    return Stream(words, lengths, stream.padding + len(words) - len(stream.words))


def port_rows(stream: Stream, groups: int, array: ArrayConfig) -> np.ndarray:
    """Return the words as they stand in the weight memory, int64 (port rows * groups_max,)."""
    ports = array.groups_max
    if array.replicate:
        return np.repeat(stream.words.reshape(-1, groups), ports // groups, axis=1).ravel()
    return np.concatenate([stream.words, np.zeros(-len(stream.words) % ports, np.int64)])


def row_order(matrix: csr_array, groups: int, *, keep: bool) -> np.ndarray:
    """Return the rows in batch order; -1 stands for no row.

    Rows of like length share a batch, since a batch takes as long as its longest row. ``keep``
    leaves the rows in their own order (tensors that a residual addition reads).
    """
    rows = np.arange(matrix.shape[0])
    if groups > 1 and not keep:
        rows = rows[np.argsort(-np.diff(matrix.indptr), kind="stable")]
    return np.concatenate([rows, np.full(-len(rows) % groups, -1)])


def index_steps(matrix: csr_array, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sort every row by stream index and return (row, step, mantissa), long steps split.

    index : int64 (nnz,), stream index of every stored weight. A split step is a run of words with
    mantissa 0 and the longest step.
    """
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((index, row))
    row, index = row[order], index[order]
    mantissa = matrix.data[order].astype(np.int64)
    first = np.ones(len(row), bool)
    first[1:] = row[1:] != row[:-1]
    step = index.copy()
    step[1:] -= np.where(first[1:], 0, index[:-1])
    extra = np.maximum(0, (step - 1) // _LONGEST)
    at = np.arange(len(row)) + np.cumsum(extra)
    total = len(row) + int(extra.sum())
    steps, mantissas = np.full(total, _LONGEST), np.zeros(total, np.int64)
    steps[at], mantissas[at] = step - extra * _LONGEST, mantissa
    return np.repeat(row, extra + 1), steps, mantissas


def encode(matrix: csr_array, index: np.ndarray, order: np.ndarray, groups: int,
           array: ArrayConfig) -> Stream:
    """Lay the rows out as words; ``order`` is :func:`row_order`'s."""
    row, step, mantissa = index_steps(matrix, index)
    length = np.bincount(row, minlength=matrix.shape[0])
    per_place = np.where(order < 0, 0, length[np.maximum(order, 0)]).reshape(-1, groups)
    lengths = np.maximum(per_place.max(axis=1), 1)
    batch_start = np.concatenate([[0], np.cumsum(lengths)[:-1]]) * groups
    place = np.empty(matrix.shape[0], np.int64)
    place[order[order >= 0]] = np.flatnonzero(order >= 0)
    row_start = np.concatenate([[0], np.cumsum(length)[:-1]])
    within = np.arange(len(row)) - row_start[row]
    at = batch_start[place[row] // groups] + within * groups + place[row] % groups
    words = np.zeros(int(lengths.sum()) * groups, np.int64)
    mask = (1 << array.weight_bits) - 1
    words[at] = (mantissa & mask) | step << array.weight_bits
    return Stream(words, lengths, len(words) - matrix.nnz)
