"""What is told of several outputs, or of one that is made of several inputs: which lose much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from celosia import float_values
from celosia.accuracy import decibels_of, values_of
from celosia.calibration import MOST_INPUTS, spread
from celosia.graph import Graph

if TYPE_CHECKING:
    from celosia.program import Program

_TOLD = 5
LEAST = 20.0
"""dB of signal to noise below which an output is told of."""


def output_remarks(graph: Graph, *, calibrated: bool) -> tuple[str, ...]:
    """Return what is told before anything is measured."""
    if calibrated or not graph.returns:
        return ()
    names = [output.name for output in graph.returns]
    more = f" and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return (f"outputs {', '.join(names[:_TOLD])}{more} share one block exponent, and how large "
            f"each is was estimated from the weights: give calibration inputs if one is much "
            f"smaller than another",)


def faint_outputs(graph: Graph, program: Program, samples: np.ndarray) -> tuple[str, ...]:
    """Return a line for each output that has less than `LEAST` of what the float graph computes,
    the worst few of them.

    samples : calibration inputs (N, *input_shape), of which some are looked at.
    """
    if program.steps is not None or not (graph.returns or graph.takes):
        return ()
    samples = spread(samples, MOST_INPUTS)
    raised = np.array(graph.raised.get(graph.output, (0,)))[:, None, None]
    made, wanted = (graph.returned(np.ldexp(values, -raised)) for values in (
        values_of(program.graph, samples), float_values.outputs(graph, samples)))
    ratios = {output.name: decibels_of(output.part(made), output.part(wanted))
              for output in graph.outputs}
    faint = {name: ratio for name, ratio in ratios.items() if ratio < LEAST}
    worst = sorted(faint, key=faint.__getitem__)[:_TOLD]
    return tuple(f"output {name}: {ratio:.1f} dB of signal to noise on the calibration inputs; "
                 f"`celosia compare --against float` tells which layer loses it"
                 for name, ratio in faint.items() if name in worst)
