"""How fast passes can follow each other at the output of the second machine."""

from celosia_spec.stream.array import Array
from celosia_spec.stream.controls import head_words

WIDE_GAP = 4
"""Cycles behind a row whose sums are stored, where two lanes leave a cycle: they go around the
normalisers."""

RESIDUAL_PASS = 16
"""Cycles that a pass takes at least where a tensor is added: those of the first phase have left
before the second one looks for them."""


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
    if wide and array.drain == 2:
        return max(positions + WIDE_GAP, head)
    single = wide or residual or array.drain == 1
    return max(positions if single else positions // 2, head)
