"""How fast passes can follow each other at the output of the second machine."""

from celosia_spec.stream.array import Array
from celosia_spec.stream.controls import head_words

WIDE_GAP = 4
"""Cycles behind a row whose sums are stored, where two lanes leave a cycle: they go around the
normalisers."""

RESIDUAL_GAP, RESIDUAL_ROW = 3, 11
"""Cycles behind a row with a residual operand, and the least that such a row takes: so no write
meets the next row's reads."""

RESIDUAL_AHEAD, RESIDUAL_PASS = 10, 14
"""Cycles by which a pass with a residual operand is announced before its last step, and the least
that it takes: it must have its tile's written lanes a cycle later."""


def pass_cycles(array: Array, *, log2_groups: int, signed_in: bool, wide: bool = False,
                residual: bool = False) -> int:
    """Return the cycles that a pass takes at least."""
    rows = row_cycles(array, log2_groups=log2_groups, signed_in=signed_in, wide=wide,
                      residual=residual) << log2_groups
    return max(rows, RESIDUAL_PASS) if residual else rows


def row_cycles(array: Array, *, log2_groups: int, signed_in: bool, wide: bool = False,
               residual: bool = False) -> int:
    """Return the cycles from one row of a pass to the next where sums leave: what reading its head
    takes, and its sums. A pass takes as many for each of its rows, at least.

    `Array.drain` lanes leave a cycle; one where sums are stored, or a residual operand is added.
    """
    positions, head = array.positions(log2_groups), head_words(signed_in=signed_in)
    if array.drain == 1:
        return max(positions, head)
    if residual:
        return max(positions + RESIDUAL_GAP, RESIDUAL_ROW)
    return max(positions + WIDE_GAP if wide else positions // 2, head)
