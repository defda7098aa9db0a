"""The batches of a layer's parts, and what they take: counted, not encoded."""

import math

import numpy as np

from celosia.bands.counting import Work
from celosia.bands.dealing import loads
from celosia.bands.filling import page_record
from celosia.bands.layouts import Lines, joined
from celosia.bands.pages import TURN, dense_steps, page_steps
from celosia.bands.rows import row_order
from celosia.bands.shares import Share, shares_of
from celosia.bands.spreads import Spread
from celosia_spec.isa.array import ENTRY_WORDS, RING_GAP, Array
from celosia_spec.isa.controls import BATCH, head_words
from celosia_spec.isa.fills import cycles
from celosia_spec.isa.passes import pass_cycles
from celosia_spec.qgraph import QGraph, QNode

DENSE = 32
"""A batch gets a step for every column, and half as many entries, where that adds no more than one
step in so many."""


def works_of(graph: QGraph, node: QNode, array: Array, log2: int,
             layout: Lines | Spread) -> list[Work]:
    """Return the batches of each part."""
    count = joined(graph, node).shape[0]
    index = (layout.index(count) if isinstance(layout, Spread) else
             layout.index(count, math.prod(node.geometry.kernel)))
    operand = layout.operand_index() if layout.addends else None
    return [_work(graph, node, array, log2, layout, index, operand, share)
            for share in shares_of(graph, node, layout)]


def _work(graph: QGraph, node: QNode, array: Array, log2: int, layout: Lines | Spread,
          index: np.ndarray, operand: np.ndarray | None, share: Share) -> Work:
    """Return the batches of a share's rows."""
    groups, matrix, inside = 1 << log2, node.matrix, share.rows
    signed = graph.tensors[node.input].signed
    rows = row_order(matrix, groups)
    if inside is not None:
        order = row_order(matrix[inside.start:inside.stop], groups)
        rows = np.where(order < 0, -1, inside.start + order)
    steps = page_steps(matrix, layout, index, rows, groups)
    every = dense_steps(layout, index)
    dense = every.sum() * (DENSE - 1) <= steps.sum(axis=1) * DENSE
    steps = np.where(dense[:, None], every, steps)
    entries = -(-steps * groups // np.where(dense, 2 * ENTRY_WORDS, ENTRY_WORDS)[:, None])
    taken = entries.sum(axis=1)
    least = pass_cycles(array, log2_groups=log2, signed_in=signed,
                        wide=node.output == graph.output, residual=operand is not None)
    phases = math.prod(node.epilogue.pool.window) if node.epilogue.pool else 1
    passes, filled = steps.sum(axis=1), 0
    if isinstance(layout, Spread) and layout.page:      # another one is filled beside
        filled = max(cycles(page_record(layout, page, 0, array, signed=signed, log2_groups=log2),
                            array) for page in range(layout.pages))
        longer = np.maximum(filled + entries - steps, 0)[:, 1:-1].sum(axis=1)
        passes, filled = passes + longer + TURN * (layout.pages - 1), filled * (layout.pages - 2)
    passes = np.maximum(passes, least) * phases
    added = None
    if operand is not None:             # an entry more, and a pass of one step
        added = np.where(rows < 0, 0, operand[np.maximum(rows - share.added, 0)])
        taken, passes = taken + 1, passes + least
    return Work(rows=rows, added=added, page_steps=steps, dense=dense, index=index,
                longest=int(taken.max()), passes=passes, loads=loads(passes, array.clusters),
                least=least,
                fetched=int(taken.sum()) + len(steps) * (
                    filled + head_words(array, signed_in=signed) * groups + 1))


def longest_batch(array: Array, *, single: bool) -> int:
    """Return the entries at which batches are cut: those of one pass where another part can be
    fetched meanwhile, others where the ring ends."""
    return min(array.ring // 2 if single else array.ring - RING_GAP,
               BATCH["steps"].most // (2 * ENTRY_WORDS))
