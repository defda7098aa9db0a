"""The entries of batches: heads of their rows, and their weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from celosia.bands.entries import NOTHING, command
from celosia.bands.filling import page_record
from celosia.bands.layouts import Lines
from celosia.bands.pages import FILL_WORDS, index_of, piece_steps, row_pages, turns
from celosia.bands.plan import Layer, Part
from celosia.bands.regions import Region
from celosia.bands.rows import LONGEST, extra_words
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import BATCH, Op, head_words
from celosia_spec.isa.entries import entries_of
from celosia_spec.isa.heads import pack
from celosia_spec.isa.passes import code_weight
from celosia_spec.isa.words import DENSE, WEIGHT
from celosia_spec.qgraph import QGraph, QNode, as_made


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of a part, wherever its output lies.

    words : int64 (entries, 4), one batch behind the other; heads and fills are missing.
    heads : int64 (rows,), place of each row's head in `words`, in batch order.
    sizes : entries of each batch.
    fills : int64 (fills, 2), place of each fill of a page in `words`, and its page.
    """

    words: np.ndarray
    heads: np.ndarray
    sizes: list[int]
    fills: np.ndarray

    def entries(self, graph: QGraph, layer: Layer, part: Part, places: Mapping[str, Region],
                array: Array) -> np.ndarray:
        """Return the entries, uint64, where a layer's maps lie at ``places``."""
        node, layout = layer.node, layer.layout
        signed = graph.tensors[node.input].signed
        heads = _heads(graph, node, part.rows, places[node.output], array, signed=signed)
        words = self.words.copy()
        flat = words.reshape(-1)
        flat[self.heads[:, None] + np.arange(heads.shape[1])] = heads
        if isinstance(layout, Spread) and len(self.fills):
            fills = np.array([command(Op.FILL, **page_record(
                layout, page, places[node.input].word, array, signed=signed,
                log2_groups=layer.log2_groups)) for page in range(layout.pages)])
            at, page = self.fills.T
            flat[at[:, None] + np.arange(FILL_WORDS)] = fills[page]
        return entries_of(words)


def batches(graph: QGraph, layer: Layer, part: Part, array: Array) -> Batches:
    """Return a part's batches; in pieces where they are too long for the ring, or read the input
    page by page."""
    groups, size = layer.groups, head_words(
        array, signed_in=graph.tensors[layer.node.input].signed)
    longest = piece_steps(part.longest, part.dense, groups)
    pieces = -(-part.page_steps // longest[:, None]).ravel()
    batch, page = np.divmod(np.repeat(np.arange(len(pieces)), pieces), layer.layout.pages)
    begin = _within(pieces) * longest[batch]
    left = part.page_steps[batch, page] - begin
    steps = np.minimum(left, longest[batch])
    first, dense = (page == 0) & (begin == 0), part.dense[batch]
    turning = turns(layer.layout)
    turn = np.where(begin == 0, np.array([len(words) for words in turning])[page], 0)
    count = -(-steps // (1 + dense)) * groups                   # weight words of a piece
    control = -(-(turn + 1 + np.where(first, groups * size, 0)) // ENTRY_WORDS)
    own = np.where(first, int(part.added is not None), 0)       # entries of what is added
    entries = control + own + -(-count // ENTRY_WORDS)
    at = np.cumsum(entries) - entries
    words = np.zeros((int(entries.sum()), ENTRY_WORDS), np.int64)
    words[np.repeat(at, control) + _within(control)] = NOTHING
    flat = words.reshape(-1)
    for number, own_words in enumerate(turning):
        places = at[(page == number) & (begin == 0)] * ENTRY_WORDS
        flat[places[:, None] + np.arange(len(own_words))] = own_words
    flat[at * ENTRY_WORDS + turn] = BATCH.pack(
        steps=steps, single=(steps == 1).astype(np.int64), dense=dense.astype(np.int64),
        joins=(~first).astype(np.int64),
        open=((page < layer.layout.pages - 1) | (steps < left)).astype(np.int64))
    if part.added is not None:
        weight = code_weight(signed_out=graph.tensors[layer.node.output].signed)
        words[(at + control)[first], :groups] = WEIGHT.pack(
            mantissa=(part.rows >= 0) * weight,
            step=part.added).reshape(-1, groups)
    flat[np.repeat((at + control + own) * ENTRY_WORDS, count) + _within(count)] = _weights(
        layer, part)
    heads = at[first][:, None] * ENTRY_WORDS + 1 + np.arange(groups) * size
    return Batches(words=words, heads=heads.ravel(),
                   sizes=np.bincount(batch, entries).astype(np.int64).tolist(),
                   fills=_fills(layer.layout, batch, page, at * ENTRY_WORDS, turn))


def _fills(layout: Lines | Spread, batch: np.ndarray, page: np.ndarray, at: np.ndarray,
           turn: np.ndarray) -> np.ndarray:
    """Return where which pages are filled in pieces, `Batches.fills`.

    batch, page : of each piece; its page's number in its batch.   at : its first word.
    turn : its words before the batch's.
    """
    fills = turn > FILL_WORDS
    if not isinstance(layout, Spread) or not fills.any():
        return np.zeros((0, 2), np.int64)
    orders = np.array([layout.order(number) for number in range(layout.orders)])
    return np.stack([(at + turn)[fills] - FILL_WORDS,
                     orders[batch[fills] % layout.orders, page[fills] + 1]], axis=1)


def _within(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... for each count, one behind the other."""
    found: np.ndarray = (np.arange(int(counts.sum()))
                         - np.repeat(np.cumsum(counts) - counts, counts))
    return found


def _weights(layer: Layer, part: Part) -> np.ndarray:
    """Return the weight words of a part, int64, batch after batch."""
    groups, dense, steps = layer.groups, part.dense, part.steps
    count = -(-steps // (1 + dense)) * groups
    found = np.empty(int(count.sum()), np.int64)
    rows, number = part.rows.reshape(-1, groups), np.arange(len(dense)) % layer.layout.orders
    for order in range(layer.layout.orders):
        index = index_of(layer.layout, layer.index, order)
        for own, words in ((dense, _dense), (~dense, _sparse)):
            of = own & (number == order)
            if of.any():
                found[np.repeat(of, count)] = words(layer, index, rows[of], part.page_steps[of])
    return found


def _sparse(layer: Layer, index: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the words of batches that are not dense8; in each page those of a row begin together
    with the others'."""
    groups = layer.groups
    places = np.flatnonzero(rows.ravel() >= 0)
    matrix = layer.node.matrix[rows.ravel()[places]]
    own = row_pages(matrix, layer.layout, index)
    step, mantissa = _split(matrix, index)
    batch, group = np.divmod(places, groups)
    begin = (np.cumsum(steps) - steps.ravel()).reshape(steps.shape)[batch]
    found = np.zeros(int(steps.sum()) * groups, np.int64)
    found[(np.repeat(begin, own.ravel()) + _within(own.ravel())) * groups
          + np.repeat(group, own.sum(axis=1))] = WEIGHT.pack(mantissa=mantissa, step=step)
    return found


def _split(matrix: csr_array, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return step and mantissa of every word, rows in their order and sorted by stream index; a
    step that is too long for one word begins with words of the longest step and mantissa 0."""
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
    return steps, mantissas


def _dense(layer: Layer, index: np.ndarray, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the words of batches of dense8, (batches, groups): a step is a column, and two steps
    of a row a word."""
    columns = int(steps[0].sum())
    matrix, places = layer.node.matrix, np.flatnonzero(rows.ravel() >= 0)
    own = matrix[rows.ravel()[places]]
    batch, group = np.divmod(np.repeat(places, np.diff(own.indptr)), layer.groups)
    mantissas = np.zeros((len(rows), columns + columns % 2, layer.groups), np.int64)
    mantissas[batch, index[own.indices], group] = own.data
    return DENSE.pack(low=mantissas[:, ::2], high=mantissas[:, 1::2]).ravel()


def _heads(graph: QGraph, node: QNode, rows: np.ndarray, place: Region, array: Array, *,
           signed: bool) -> np.ndarray:
    """Return the head of each row, int64 (rows, words)."""
    real, row = (rows >= 0).astype(np.int64), np.maximum(rows, 0)
    result = graph.tensors[node.output]
    size = math.prod(result.shape[1:]) if as_made(graph.tensors, node) is not result else 1
    begins = place.element(row // size) + (row % size << place.wide)
    word, element = np.divmod(begins, ENTRY_WORDS)
    sums = np.asarray(node.matrix.astype(np.int64).sum(axis=1)).ravel()
    words = pack(array, signed_in=signed, sw=real * node.sw[row],
                 sb=real * (node.sb - node.sw)[row], bias=real * node.bias[row],
                 sums=real * sums[row], word=real * word, element=real * element, real=real)
    return np.stack(words, axis=1)
