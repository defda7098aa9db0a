"""The cycle model: how long a layer takes, to the cycle, and where the lane-cycles go.

The machine is timed statically: no block ever waits for another, so this is a sum, not a
simulation. Latencies come from :mod:`celosia_spec.isa.timing`, as the gateware's do.
"""

from dataclasses import dataclass

import numpy as np

from celosia_spec.isa import timing
from celosia_spec.isa.array import ArrayConfig
from celosia_spec.isa.timing import Timing


@dataclass(frozen=True, eq=False, kw_only=True)
class Work:
    """What a layer makes the machine do.

    lengths       : int64 (batches,), steps of one pass of each batch.
    tiles, phases : passes of a batch: tiles x pool-window positions.
    pass_cycles   : the least cycles from one pass to the next.
    drain_cycles  : cycles in which the last pass's beats are walked.
    walk_cycles   : cycles of the normalising walk, 0 where results are placed directly.
    clear_rows    : bank rows cleared first.
    prefetched    : descriptor words that were loaded during the walk of the layer before.
    useful_macs   : products of a non-zero weight and a real output position.
    padding_macs  : products of padding words at real output positions.
    """

    lengths: np.ndarray
    tiles: int
    phases: int
    pass_cycles: int
    drain_cycles: int
    walk_cycles: int
    clear_rows: int
    prefetched: int
    useful_macs: int
    padding_macs: int


def walk_wait(walk_cycles: int) -> int:
    """Return the cycles in which the machine only normalises, of a walk of so many."""
    return max(walk_cycles - timing.WALK_AHEAD + timing.REPORT, 1) if walk_cycles else 0


def layer_cycles(work: Work, array: ArrayConfig, *, last: bool) -> int:
    """Return the cycles of a layer, from its first to the next layer's first (or to ``done``)."""
    return sum(_parts(work, array, last).values())


def lane_cycles(work: Work, array: ArrayConfig, *, last: bool) -> dict[str, int]:
    """Return where the lane-cycles of a layer go; sums to lanes x :func:`layer_cycles`.

    useful     : a non-zero weight times a real output position.
    padding    : a padding word in a lane with a real output position.
    idle       : lanes without an output position while a word was issued.
    bubble     : a pass waited for the drain of the one before.
    drain      : the pipeline emptied, the block exponent was found.
    normalise  : the normalising pass.
    load       : descriptor, checks, clearing, first batch length.
    """
    parts = _parts(work, array, last)
    steps = parts.pop("steps") * array.lanes
    result = {"useful": work.useful_macs, "padding": work.padding_macs,
              "idle": steps - work.useful_macs - work.padding_macs}
    result.update({name: cycles * array.lanes for name, cycles in parts.items()})
    return result


def _parts(work: Work, array: ArrayConfig, last: bool) -> dict[str, int]:
    of = Timing.of(array)
    passes = work.tiles * work.phases
    steps = int(work.lengths.sum()) * passes
    waits = np.maximum(work.pass_cycles - work.lengths, 0)
    drain = of.drain + work.drain_cycles + timing.REPORT + of.flush + timing.EXPONENT
    return {
        "steps": steps,
        "bubble": int(waits.sum()) * passes,
        "drain": drain + (of.settle if last else 0),
        "normalise": walk_wait(work.walk_cycles),
        "load": timing.LOAD - work.prefetched + timing.CHECK + work.clear_rows + timing.LENGTH,
    }
