"""A program beside the quantised network that it was compiled from."""

import numpy as np

from celosia import float_values, original
from celosia.accuracy import MOST_INPUTS, decibels_of, values_of
from celosia.calibration import spread
from celosia.graph import Graph
from celosia.original import QuantisedLoss, as_imported, is_quantised
from celosia.program import Program


def quantised_loss(imported: Graph, optimised: Graph, program: Program,
                   samples: np.ndarray) -> QuantisedLoss | None:
    """Return how far a program's outputs for inputs (N, *input_shape) are from the network's; None
    where that has no quantisers on the way, or the program takes steps of time.

    imported, optimised : the network before any pass, and before what is done for accuracy.
    """
    if program.steps is not None or not is_quantised(imported):
        return None
    samples = spread(samples, MOST_INPUTS)

    def returned(values: np.ndarray) -> np.ndarray:
        return as_imported(imported, optimised, values)

    def ratio(made: np.ndarray, wanted: np.ndarray) -> float:
        return min(decibels_of(output.part(made), output.part(wanted))
                   for output in imported.outputs)

    made = returned(values_of(program.graph, samples))
    floats = returned(float_values.outputs(optimised, samples))
    wanted = original.outputs(imported, samples)
    return QuantisedLoss(inputs=len(samples), ratio=ratio(made, wanted),
                         float_ratio=ratio(made, floats), original=ratio(wanted, floats))
