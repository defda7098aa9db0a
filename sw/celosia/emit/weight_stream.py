"""The weight stream of a layer: batch after batch, step after step, one word a group."""

import numpy as np
from scipy.sparse import csr_array

from celosia.schedule.steps import LONGEST, extra_words
from celosia_spec.isa import ArrayConfig, weight_word


def encode(matrix: csr_array, index: np.ndarray, rows: np.ndarray, steps: np.ndarray, groups: int,
           array: ArrayConfig) -> np.ndarray:
    """Return a layer's weight words, int64 (steps.sum() * groups,).

    matrix : weight mantissas.   index : int64 (columns,), stream index of every column.
    rows   : in batch order, -1 for none.   steps : int64 (batches,), of each batch; what is longer
    than its rows is filled with words of 0.
    """
    row, step, mantissa = _split(matrix, index)
    place = np.empty(matrix.shape[0], np.int64)
    place[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    length = np.bincount(row, minlength=matrix.shape[0])
    within = np.arange(len(row)) - (np.cumsum(length) - length)[row]
    start = (np.cumsum(steps) - steps) * groups
    words = np.zeros(int(steps.sum()) * groups, np.int64)
    words[start[place[row] // groups] + within * groups + place[row] % groups] = (
        weight_word(array).pack(mantissa=mantissa, step=step))
    return words


def _split(matrix: csr_array, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, step and mantissa of every word, rows in their order and sorted by stream index;
    a step that is too long for one word begins with words of the longest step and mantissa 0."""
    row = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    cell = row * (int(index.max(initial=0)) + 1) + index[matrix.indices]
    order = np.argsort(cell)
    at_index = index[matrix.indices[order]]
    step = at_index.copy()
    step[1:] -= np.where(row[1:] == row[:-1], at_index[:-1], 0)
    extra = extra_words(step)
    at = np.arange(len(row)) + np.cumsum(extra)
    steps, mantissas = np.full((2, len(row) + int(extra.sum())), [[LONGEST], [0]])
    steps[at], mantissas[at] = step - extra * LONGEST, matrix.data[order]
    return np.repeat(row, extra + 1), steps, mantissas


def port_rows(words: np.ndarray, groups: int, array: ArrayConfig) -> np.ndarray:
    """Return the words as they stand in the weight memory, int64 (port rows * groups_max,)."""
    ports = array.groups_max
    if array.replicate:
        return np.repeat(words.reshape(-1, groups), ports // groups, axis=1).ravel()
    return np.concatenate([words, np.zeros(-len(words) % ports, np.int64)])
