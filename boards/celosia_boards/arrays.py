"""Which arrays a target can hold: one answer, before any work, for whoever asks.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from celosia_boards.targets import Target, target, targets
from celosia_hw.blocks import (
    MULTIPLIER_BITS,
    MULTIPLIER_LANES,
    SPRAM_BITS,
    SPRAM_ROWS,
    memory_blocks,
)
from celosia_spec.isa import ACCUMULATORS, DELTA_BITS, ArrayConfig

__all__ = ["ArrayRefused", "MemoryUse", "array_for", "check_array", "memories", "require",
           "widest_accumulators"]


class ArrayRefused(ValueError):
    """A target cannot hold an array; one line: the target, the reason, a way out."""


@dataclass(frozen=True)
class MemoryUse:
    """``count`` block memories of ``depth`` words of ``width`` bits, and what they hold."""

    holds: str
    count: int
    depth: int
    width: int


def memories(of: Target, array: ArrayConfig) -> list[MemoryUse]:
    """Return the memories that an array has in the block memories of a target."""
    beat_bits = array.beat * array.acc_bits
    uses = [MemoryUse("row table", 1, array.table_rows, 32),
            MemoryUse("tap tables", array.groups_max, array.taps, array.tap_word_bits),
            MemoryUse("write table", 1, array.writes, array.write_word_bits),
            MemoryUse("program", 1, array.program_words, 16),
            MemoryUse("accumulator store", 1, array.store_beats, beat_bits),
            MemoryUse("banks", array.lanes, array.bank_rows, array.activation_bits)]
    if array.residual_beats:
        uses.append(MemoryUse("residual store", 1, array.residual_beats,
                              array.beat * array.activation_bits))
    if of.weight_memory == "bram":
        uses.append(MemoryUse("weights", array.groups_max, array.weight_rows,
                              array.weight_word_bits))
    return uses


def check_array(of: Target, array: ArrayConfig) -> list[str]:
    """Return why ``of`` cannot hold ``array``, a reason each; nothing where it can.

    Multipliers: how many, and how wide. SPRAM: blocks, depth, and the width of a weight word.
    Block memories: how many. Look-up tables are not counted here: only placement knows them.
    """
    reasons = []
    widest = MULTIPLIER_BITS[of.mac]
    for name in ("weight_bits", "activation_bits"):
        bits = getattr(array, name)
        if bits > widest:
            reasons.append(f"{name} can be at most {widest} in its multipliers, not {bits}")
    if of.mac in MULTIPLIER_LANES:
        needed = -(-array.lanes // MULTIPLIER_LANES[of.mac])
        if needed > of.resources.dsps:
            reasons.append(f"{array.lanes} lanes need {needed} of its {of.resources.dsps} "
                           f"multiplier blocks")
    if of.weight_memory == "spram":
        if array.groups_max > of.resources.sprams:
            reasons.append(f"{array.lanes} lanes need {array.groups_max} of its "
                           f"{of.resources.sprams} SPRAM blocks")
        if array.weight_rows > SPRAM_ROWS:
            reasons.append(f"its SPRAM has {SPRAM_ROWS} rows of weights, not {array.weight_rows}")
        if array.weight_word_bits > SPRAM_BITS and array.weight_bits <= widest:
            reasons.append(f"weight_bits can be at most {SPRAM_BITS - DELTA_BITS} in its SPRAM, "
                           f"not {array.weight_bits}")
    used = sum(use.count * memory_blocks(of.family, use.depth, use.width)
               for use in memories(of, array))
    if used > of.resources.brams:
        reasons.append(f"{array.lanes} lanes with {array.weight_bits}-bit weights, "
                       f"{array.activation_bits}-bit activations and {array.acc_bits}-bit "
                       f"accumulators need {used} of its {of.resources.brams} block RAMs")
    return reasons


def require(of: Target, array: ArrayConfig) -> ArrayConfig:
    """Return ``array`` if the target can hold it; ArrayRefused with a way out that it can."""
    reasons = check_array(of, array)
    if reasons:
        ways = " or ".join([*_smaller(of, array), *_elsewhere(of, array)])
        raise ArrayRefused(f"{of.name}: {reasons[0]}; "
                           f"use {ways or f'the array of a program compiled for {of.name}'}")
    return array


def array_for(of: Target | str, lanes: int | None = None, acc_bits: int | None = None,
              weight_bits: int | None = None, activation_bits: int | None = None) -> ArrayConfig:
    """Return the array of a target with these parameters in place of its own.

    ``lanes`` keeps the quad, and so changes the words of a weight row; the memories keep their
    depths. ValueError where no array allows the number, ArrayRefused where the target cannot hold
    the array.
    """
    of = target(of) if isinstance(of, str) else of
    asked = {"lanes": lanes, "acc_bits": acc_bits, "weight_bits": weight_bits,
             "activation_bits": activation_bits}
    changes: dict[str, Any] = {}
    for name, value in asked.items():
        if value is not None:
            try:
                changes[name] = operator.index(value)
            except TypeError:
                raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    return require(of, replace(of.array, **changes))


def widest_accumulators(of: Target, array: ArrayConfig) -> int:
    """Return the widest accumulators with which a target can hold an array like this one."""
    held = [bits for bits in ACCUMULATORS if not check_array(of, replace(array, acc_bits=bits))]
    return max(held, default=ACCUMULATORS[0])


def _smaller(of: Target, array: ArrayConfig) -> Iterator[str]:
    """The widest numbers, and the most lanes, that the target holds with all else as asked; both
    together where one alone does not help."""
    widths = sorted(itertools.product(range(4, array.weight_bits + 1),
                                      range(4, array.activation_bits + 1)), key=sum, reverse=True)
    lanes = [array.lanes >> k for k in range(array.lanes.bit_length())
             if array.lanes >> k >= max(4, array.quad)]
    ways = [*_first(of, array, itertools.product(lanes[:1], widths)),
            *_first(of, array, itertools.product(lanes, widths[:1]))]
    yield from ways or _first(of, array, itertools.product(lanes, widths))


def _first(of: Target, array: ArrayConfig,
           choices: Iterable[tuple[int, tuple[int, int]]]) -> Iterator[str]:
    """The first choice of lanes and widths that the target holds, in words."""
    for lanes, (weight_bits, activation_bits) in choices:
        changes: dict[str, Any] = {"lanes": lanes, "weight_bits": weight_bits,
                                   "activation_bits": activation_bits}
        if not check_array(of, replace(array, **changes)):
            yield " and ".join(f"{name}={value}" for name, value in changes.items()
                               if value != getattr(array, name))
            return


def _elsewhere(of: Target, array: ArrayConfig) -> Iterator[str]:
    """The first other target whose own array holds what was asked."""
    for other in targets().values():
        changes: dict[str, Any] = {
            "lanes": max(array.lanes, other.array.lanes), "acc_bits": array.acc_bits,
            "weight_bits": array.weight_bits, "activation_bits": array.activation_bits}
        if other != of and not check_array(other, replace(other.array, **changes)):
            yield f"target={other.name}"
            return
