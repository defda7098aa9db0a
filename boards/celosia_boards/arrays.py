"""The array of a target with other parameters, and the way out where it cannot hold that.

Plain Python: importing it loads neither Amaranth nor a board description.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from celosia_boards.description import Target
from celosia_boards.targets import target, targets
from celosia_spec.errors import CelosiaError
from celosia_spec.isa.array import ENTRY_WORDS, TAP_ROW_BITS, Array
from celosia_spec.isa.numbers import ACCUMULATORS, MANTISSA_BITS

__all__ = ["LANES", "ArrayRefused", "array_for", "require", "widest_accumulators"]

CLUSTER_LANES = 16
"""Lanes of a cluster where there are several."""

LANES = (8, 16, 32, 64, 128)
"""Lanes that an array can have."""


class ArrayRefused(CelosiaError, ValueError):
    """A target cannot hold an array; one line: the target, the reason, a way out."""


def require(of: Target, array: Array) -> Array:
    """Return ``array`` if the target can hold it; ArrayRefused with a way out that it can."""
    if problems := of.check(array):
        ways = " or ".join([*_smaller(of, array), *_elsewhere(of, array)])
        raise ArrayRefused(f"{of.name}: {problems[0]}; "
                           f"use {ways or f'the array of a program compiled for {of.name}'}")
    return array


def array_for(of: Target | str, lanes: int | None = None, acc_bits: int | None = None,
              weight_bits: int | None = None, activation_bits: int | None = None) -> Array:
    """Return the array of a target with these parameters in place of its own.

    lanes : of `LANES`; those of all clusters.

    Memories keep their depths, but more lanes have flatter banks.
    ValueError where no array allows the number, ArrayRefused where the target cannot hold the
    array.
    """
    of = of if isinstance(of, Target) else target(of)
    asked = {"lanes": lanes, "acc_bits": acc_bits, "weight_bits": weight_bits,
             "activation_bits": activation_bits}
    return require(of, _changed(of, of.array, {name: value for name, value in asked.items()
                                           if value is not None}))


def widest_accumulators(of: Target, array: Array) -> int:
    """Return the widest accumulators with which a target can hold an array like this one."""
    held = [bits for bits in ACCUMULATORS if _holds(of, array, {"acc_bits": bits})]
    return max(held, default=ACCUMULATORS[0])


def _changed(of: Target, array: Array, changes: Mapping[str, Any]) -> Array:
    """Return an array of a target with other parameters; ValueError where there is none with them.

    Only 16 lanes can leave one a cycle, more lanes have flatter banks, and clusters are filled by
    two words a cycle, one as the target's own.
    """
    lanes = changes.get("lanes", array.lanes_all)
    if lanes not in LANES:
        *others, last = map(str, LANES)
        raise ValueError(f"lanes must be {', '.join(others)} or {last}, not {lanes!r}")
    own = min(lanes, CLUSTER_LANES)
    return replace(array, **{**changes, "lanes": own}, clusters=lanes // own,
                   fill=2 * ENTRY_WORDS if lanes > own else of.array.fill,
                   drain=array.drain if lanes == array.lanes_all else 2,
                   bank_rows=min(array.bank_rows, 1 << TAP_ROW_BITS[own]))


def _holds(of: Target, array: Array, changes: Mapping[str, Any]) -> bool:
    """Whether the target can hold the array with other parameters."""
    with suppress(ValueError):
        return not of.check(_changed(of, array, changes))
    return False


def _smaller(of: Target, array: Array) -> Iterator[str]:
    """The widest numbers, and the most lanes, that the target holds with all else as asked; both
    together where one alone does not help."""
    least = MANTISSA_BITS[0]
    widths = sorted(itertools.product(range(least, array.weight_bits + 1),
                                      range(least, array.activation_bits + 1)),
                    key=sum, reverse=True)
    lanes = [number for number in reversed(LANES) if number <= array.lanes_all]
    ways = [*_first(of, array, itertools.product(lanes[:1], widths)),
            *_first(of, array, itertools.product(lanes, widths[:1]))]
    yield from ways or _first(of, array, itertools.product(lanes, widths))


def _first(of: Target, array: Array,
           choices: Iterable[tuple[int, tuple[int, int]]]) -> Iterator[str]:
    """The first choice of lanes and widths that the target holds, in words."""
    for lanes, (weight_bits, activation_bits) in choices:
        changes: dict[str, Any] = {"lanes": lanes, "weight_bits": weight_bits,
                                   "activation_bits": activation_bits}
        if _holds(of, array, changes):
            yield " and ".join(f"{name}={value}" for name, value in changes.items()
                               if value != (array.lanes_all if name == "lanes"
                                            else getattr(array, name)))
            return


def _elsewhere(of: Target, array: Array) -> Iterator[str]:
    """The first other target whose own array holds what was asked."""
    for other in targets().values():
        changes: dict[str, Any] = {
            "lanes": max(array.lanes_all, other.array.lanes_all), "acc_bits": array.acc_bits,
            "weight_bits": array.weight_bits, "activation_bits": array.activation_bits}
        if other != of and _holds(other, other.array, changes):
            yield f"target={other.name}"
            return
