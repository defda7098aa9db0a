"""How many weight words the rows of a matrix take, and the batches that rows stand in.

A word holds a weight and the step to it from the weight before it in its row; steps that are too
long for one word take more words without a weight. Counted here, encoded in `batches`.
"""

import numpy as np
from scipy.sparse import csr_array

from celosia_spec.isa.numbers import DELTA_BITS

LONGEST = (1 << DELTA_BITS) - 1
"""The longest step of one word."""

_HALF = 1 << DELTA_BITS - 1


def extra_words(step: np.ndarray) -> np.ndarray:
    """Return how many words without a weight steps of these lengths take before the weight's."""
    found: np.ndarray = np.maximum(0, (step - 1) // LONGEST)
    return found


def row_words(starts: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the weight words of every row, int64 (rows,); a row without weights has none.

    starts : int (rows + 1,), where each row's weights begin.   index : int (weights,), stream index
    of every weight, in any order within a row.
    """
    words = np.diff(starts).astype(np.int64)
    row, _, extra = long_steps(starts, index)
    return words + np.bincount(row, extra, len(words)).astype(np.int64)


def long_steps(starts: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the weights that take words without a weight before theirs: row and stream index of
    each, and how many words, int64 (n,).

    Arguments as of `row_words`.
    """
    words, most = np.diff(starts).astype(np.int64), int(index.max(initial=0))
    if most <= LONGEST:
        return (np.zeros(0, np.int64),) * 3
    # A row with a weight in every half of a longest step has no step that is too long.
    met = csr_array((np.ones(len(index), bool), index // _HALF, starts),
                    shape=(len(words), most // _HALF + 1)).toarray()
    sparse = np.flatnonzero(~met.all(axis=1) & (words > 0))
    counts = words[sparse]
    row = np.repeat(np.arange(len(sparse)), counts)
    begin = np.cumsum(counts) - counts
    at = np.arange(len(row)) + np.repeat(starts[sparse] - begin, counts)
    cell = np.sort(row * (most + 1) + index[at])        # by row, then by index
    step = np.diff(cell, prepend=0)
    step[begin] = cell[begin] % (most + 1)
    long = np.flatnonzero(step > LONGEST)
    return sparse[row[long]], cell[long] % (most + 1), extra_words(step[long])


def row_order(weights: np.ndarray, groups: int) -> np.ndarray:
    """Return rows in batch order; -1 stands for no row.

    weights : how many each row has. Rows of like length share a batch, since a batch takes as long
    as its longest row.
    """
    rows = np.arange(len(weights))
    if groups > 1:
        rows = rows[np.argsort(-weights, kind="stable")]
    return np.concatenate([rows, np.full(-len(rows) % groups, -1)])


def batch_steps(words: np.ndarray, rows: np.ndarray, groups: int) -> np.ndarray:
    """Return the steps of each batch, int64 (batches,): its longest row's words, 1 at least.

    words : of each row.   rows : in batch order, -1 for none.
    """
    per_place = np.where(rows < 0, 0, words[rows]).reshape(-1, groups)
    steps: np.ndarray = np.maximum(per_place.max(axis=1), 1)
    return steps
