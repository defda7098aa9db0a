"""Inputs that are larger than the banks, or than what taps reach of them: they go through the banks
page by page, again for each batch."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from celosia.bands.entries import command
from celosia.bands.layouts import Lines
from celosia.bands.rows import batch_steps, long_steps, row_words
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import RECORDS, Op
from celosia_spec.isa.words import BLOCK

TURN = 40
"""Cycles from a page's last step to the next one's first one."""

FILL_WORDS = 1 + len(RECORDS[Op.FILL].words)
"""Control words of a fill."""


def page_of(array: Array, size: int) -> int:
    """Return the elements of a page: of two pages the banks hold each, and taps reach it.

    size : P'.
    """
    return min(array.bank_rows * size, array.taps * BLOCK) // 2


def index_of(layout: Lines | Spread, index: np.ndarray, batch: int) -> np.ndarray:
    """Return the column index of every column for the batch of a number.

    index : for the first one.
    """
    if isinstance(layout, Spread) and layout.page:
        return layout.index(layout.channels, batch)
    return index


def row_pages(matrix: csr_array, layout: Lines | Spread, index: np.ndarray) -> np.ndarray:
    """Return the weight words of every row in each page, int64 (rows, pages), pages in the order in
    which they are read."""
    at = index[matrix.indices]
    if not isinstance(layout, Spread) or not layout.page:
        return row_words(matrix.indptr, at)[:, None]
    rows, pages = matrix.shape[0], layout.pages
    own = np.repeat(np.arange(rows), np.diff(matrix.indptr)) * pages + at // layout.page
    row, index, extra = long_steps(matrix.indptr, at)
    found: np.ndarray = np.bincount(own, minlength=rows * pages) + np.bincount(
        row * pages + index // layout.page, extra, rows * pages).astype(np.int64)
    return found.reshape(rows, pages)


def page_steps(words: Sequence[np.ndarray], rows: np.ndarray, groups: int) -> np.ndarray:
    """Return the steps of each batch in each page, int64 (batches, pages), pages in the order in
    which it reads them.

    words : `row_pages` of each of the orders in which batches read them in turn.
    rows  : in batch order.
    """
    either = [np.stack([batch_steps(page, rows, groups) for page in own.T], axis=1)
              for own in words]
    batch = np.arange(len(either[0]))
    found: np.ndarray = np.stack(either)[batch % len(words), batch]
    return found


def dense_steps(layout: Lines | Spread, index: np.ndarray) -> np.ndarray:
    """Return the steps in each page of a batch that has one for every column, int64 (pages,)."""
    if isinstance(layout, Spread) and layout.page:
        return np.full(layout.pages, layout.page)
    return np.array([int(index.max()) + 1])


def piece_steps(longest: int, dense: np.ndarray, groups: int) -> np.ndarray:
    """Return the steps of the pieces in which batches are read, int64 (batches,).

    longest : their entries.   dense : bool, which batches are dense8.
    """
    found: np.ndarray = longest * ENTRY_WORDS * (1 + dense) // groups
    return found


def turns(layout: Lines | Spread) -> list[list[int]]:
    """Return the control words before each page of a batch; those of fills are 0. The first two
    pages are in the banks; while one of the others is read, the next one takes the place of the one
    before it."""
    if not isinstance(layout, Spread) or not layout.page:
        return [[]]
    band = command(Op.BAND)
    return [[], *[[*band, *[0] * FILL_WORDS]] * (layout.pages - 2), band]


def beside_words(layout: Lines | Spread) -> list[int]:
    """Return the control words that other clusters read while the first one runs a batch: they turn
    its pages with it."""
    return [word for words in turns(layout) if words for word in command(Op.BAND)]


def words_held(layout: Lines | Spread, steps: np.ndarray, longest: np.ndarray, heads: int) -> int:
    """Return the words of the controls' ring that the longest batch holds. Its heads are needed
    until its sums leave, so whatever stands between its pieces stays behind them; words that fill
    an entry up behind a batch's do not come to the ring.

    steps : `page_steps`.   longest : `piece_steps`.   heads : words of its heads.
    """
    pieces = (-(-steps // longest[:, None])).sum(axis=1)
    return heads + int(pieces.max()) - 1 + sum(map(len, turns(layout)))
