"""The entries of batches: heads of their rows, and their weights."""

from dataclasses import dataclass

import numpy as np

from celosia.bands.entries import NOTHING, packed
from celosia.bands.plan import Layer, Part
from celosia.bands.regions import Region
from celosia.emit.weight_stream import encode
from celosia_spec.isa import ArrayConfig
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.controls import BATCH, head_words
from celosia_spec.stream.heads import pack
from celosia_spec.stream.passes import code_weight
from celosia_spec.stream.words import WEIGHT


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of a part, wherever its output lies.

    words : int64 (entries, 4), one batch behind the other; heads are missing.
    heads : int64 (rows,), place of each row's head in `words`, in batch order.
    sizes : entries of each batch.
    """

    words: np.ndarray
    heads: np.ndarray
    sizes: list[int]

    def entries(self, graph: QGraph, node: QNode, part: Part, place: Region,
                array: Array) -> np.ndarray:
        """Return the entries, uint64, where a node's output lies at ``place``."""
        signed = graph.tensors[node.input].signed
        heads = _heads(node, part.rows, place, array, signed=signed)
        words = self.words.copy()
        words.reshape(-1)[self.heads[:, None] + np.arange(heads.shape[1])] = heads
        return packed(words)


def batches(graph: QGraph, layer: Layer, part: Part, array: Array) -> Batches:
    """Return a part's batches; those that are too long for the ring in pieces."""
    groups, size = layer.groups, head_words(
        array, signed_in=graph.tensors[layer.node.input].signed)
    longest = part.longest * ENTRY_WORDS * (1 + part.dense) // groups
    pieces = -(-part.steps // longest)
    batch = np.repeat(np.arange(len(pieces)), pieces)
    begin = _within(pieces) * longest[batch]
    steps = np.minimum(part.steps[batch] - begin, longest[batch])
    dense = part.dense[batch]
    count = -(-steps // (1 + dense)) * groups                   # weight words of a piece
    control = -(-(1 + np.where(begin > 0, 0, groups * size)) // ENTRY_WORDS)
    own = np.where(begin > 0, 0, int(part.added is not None))       # entries of what is added
    entries = control + own + -(-count // ENTRY_WORDS)
    at = np.cumsum(entries) - entries
    words = np.zeros((int(entries.sum()), ENTRY_WORDS), np.int64)
    words[np.repeat(at, control) + _within(control)] = NOTHING
    words[at, 0] = BATCH.pack(steps=steps, single=(steps == 1).astype(np.int64),
                              dense=dense.astype(np.int64),
                              joins=(begin > 0).astype(np.int64),
                              open=(begin + steps < part.steps[batch]).astype(np.int64))
    if part.added is not None:
        weight = code_weight(signed_out=graph.tensors[layer.node.output].signed)
        words[(at + control)[begin == 0], :groups] = WEIGHT.pack(
            mantissa=(part.rows >= 0) * weight,
            step=part.added).reshape(-1, groups)
    words.reshape(-1)[np.repeat((at + control + own) * ENTRY_WORDS, count) + _within(count)
                      ] = _weights(layer, part, array)
    heads = at[begin == 0][:, None] * ENTRY_WORDS + 1 + np.arange(groups) * size
    return Batches(words=words, heads=heads.ravel(),
                   sizes=np.bincount(batch, entries).astype(np.int64).tolist())


def _within(counts: np.ndarray) -> np.ndarray:
    """Return 0, 1, ... for each count, one behind the other."""
    found: np.ndarray = (np.arange(int(counts.sum()))
                         - np.repeat(np.cumsum(counts) - counts, counts))
    return found


def _weights(layer: Layer, part: Part, array: Array) -> np.ndarray:
    """Return the weight words of a part, int64, batch after batch."""
    groups, dense = layer.groups, part.dense
    count = -(-part.steps // (1 + dense)) * groups
    found = np.empty(int(count.sum()), np.int64)
    rows = part.rows.reshape(-1, groups)
    in_dense = np.repeat(dense, count)
    found[in_dense] = _dense(layer, rows[dense], int(part.steps[dense].max(initial=0)))
    sparse = rows[~dense].ravel()
    own = np.sort(sparse[sparse >= 0])
    found[~in_dense] = encode(
        layer.node.matrix[own], layer.index, np.where(sparse < 0, -1, np.searchsorted(own, sparse)),
        part.steps[~dense], groups, ArrayConfig(lanes=array.lanes))
    return found


def _dense(layer: Layer, rows: np.ndarray, columns: int) -> np.ndarray:
    """Return the words of batches of dense8, (batches, groups): a step is a column, and two steps
    of a row a word."""
    matrix, places = layer.node.matrix, np.flatnonzero(rows.ravel() >= 0)
    own = matrix[rows.ravel()[places]]
    batch, group = np.divmod(np.repeat(places, np.diff(own.indptr)), layer.groups)
    mantissas = np.zeros((len(rows), columns + columns % 2, layer.groups), np.int64)
    mantissas[batch, layer.index[own.indices], group] = own.data
    low, high = mantissas[:, ::2] & 0xFF, mantissas[:, 1::2] & 0xFF
    return (low | high << 8).ravel()


def _heads(node: QNode, rows: np.ndarray, place: Region, array: Array, *,
           signed: bool) -> np.ndarray:
    """Return the head of each row, int64 (rows, words)."""
    real, row = (rows >= 0).astype(np.int64), np.maximum(rows, 0)
    word, element = np.divmod(place.element(row), ENTRY_WORDS)
    sums = np.asarray(node.matrix.astype(np.int64).sum(axis=1)).ravel()
    words = pack(array, signed_in=signed, sw=real * node.sw[row],
                 sb=real * (node.sb - node.sw)[row], bias=real * node.bias[row],
                 sums=real * sums[row], word=real * word, element=real * element, real=real)
    return np.stack(words, axis=1)
