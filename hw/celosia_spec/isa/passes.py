"""How fast passes can follow each other at the output."""

from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import HEAD, excess_record

WIDE_GAP = 4
"""Cycles behind a row whose sums are stored, where two lanes leave a cycle: they go around the
normalisers."""

EXCESS_READ = 5
"""Cycle of a row in which the last word behind its head is asked for."""

WIDE_TURN = 8
"""Cycles more of a pass where a tensor is added, and sums are stored, and one lane leaves a cycle:
sums of the second phase overtake elements, which those of the first one become."""

RESIDUAL_PASS = 16
"""Cycles that a pass takes at least where a tensor is added: those of the first phase have left
before the second one looks for them."""


def pass_cycles(array: Array, *, log2_groups: int, signed_in: bool, wide: bool = False,
                residual: bool = False) -> int:
    """Return the cycles that a pass takes at least."""
    rows = row_cycles(array, log2_groups=log2_groups, signed_in=signed_in, wide=wide,
                      residual=residual) << log2_groups
    if not residual:
        return rows
    return max(rows, RESIDUAL_PASS) + (WIDE_TURN if wide and array.drain == 1 else 0)


def row_cycles(array: Array, *, log2_groups: int, signed_in: bool, wide: bool = False,
               residual: bool = False) -> int:
    """Return the cycles from one row of a pass to the next where sums leave: what reading its head
    takes, and its sums. A pass takes as many for each of its rows, at least.

    `Array.drain` lanes leave a cycle; one where sums are stored, or a residual operand is added.
    Where one always leaves, a row's bias and its residual operands are aligned one by one.
    """
    positions, head = array.positions(log2_groups), head_reads(array, signed_in=signed_in)[-1] + 1
    if array.drain == 1:                # 4, 8 or 16, and one
        return max(positions, 8 if signed_in else head) + residual
    if wide:
        return max(positions + WIDE_GAP, head)
    return max(positions if residual else positions // 2, head)


def head_reads(array: Array, *, signed_in: bool) -> tuple[int, ...]:
    """Return the cycles of a row in which the words of its head are asked for: what is added to
    sums of inputs with signs comes as late as it is used."""
    late = len(excess_record(array).words) if signed_in else 0
    return (*range(len(HEAD.words)), *range(EXCESS_READ + 1 - late, EXCESS_READ + 1))


def code_weight(*, signed_out: bool) -> int:
    """Return the mantissa of the step that reads a residual operand: codes go through the
    normaliser, which halves elements with signs."""
    return 1 + signed_out
