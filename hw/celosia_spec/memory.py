"""How much of an array's memories a program uses."""

import numpy as np

from celosia_spec.isa import EXPONENT_SLOTS, ArrayConfig, Space
from celosia_spec.program import Program


def capacity(array: ArrayConfig) -> dict[Space, int]:
    """Return the size of every memory that a program fills, in the units of ``Space``."""
    return {
        Space.PROGRAM: array.program_words - EXPONENT_SLOTS,    # which lie at its end
        Space.WEIGHTS: array.weight_rows * array.groups_max,
        Space.ROWS: array.table_rows,
        Space.TAPS: array.taps,
        Space.WRITES: array.writes,
        Space.BANKS: array.bank_rows * array.lanes,
        Space.STORE: array.store_beats * array.beat,
        Space.EXPONENTS: EXPONENT_SLOTS,
        Space.RESIDUAL: array.residual_beats * array.beat,
    }


def usage(program: Program) -> dict[Space, int]:
    """Return what of each of these the program needs: highest address used, plus one."""
    used = {space: image.size for space, image in program.images.items()}
    for space in (Space.BANKS, Space.STORE, Space.RESIDUAL):
        ends = [int(np.max(place.addresses)) + 1 for place in program.places.values()
                if place.space == space and place.addresses.size]
        used[space] = max(ends, default=0)
    used[Space.EXPONENTS] = 1 + max(program.slots.values(), default=-1)
    return used


def report(program: Program) -> dict[str, dict[str, int]]:
    """Return ``{memory: {"used", "available"}}``, memories by their lower-case names."""
    used = usage(program)
    return {space.name.lower(): {"used": used.get(space, 0), "available": available}
            for space, available in capacity(program.array).items()}


def fits(program: Program) -> bool:
    return all(entry["used"] <= entry["available"] for entry in report(program).values())
