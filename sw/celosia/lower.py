"""Lowering: a quantised graph into the memory images of one array, whatever it is.

For a target's own array it is the last two stages of `celosia.compiler.Compiler`.
"""

from celosia.emit.program import emit
from celosia.program import CoreProgram
from celosia.schedule.schedule import Schedule
from celosia.schedule.scheduling import schedule
from celosia_spec.isa import ArrayConfig
from celosia_spec.qgraph import QGraph


def lower(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> CoreProgram:
    """Lower ``graph`` for ``array``; FitError names the layer that does not fit, or the memory.

    ``Program.graph`` is the graph with the copies that the array needs, one descriptor a node.
    """
    return emit(fitting(graph, array, target), target=target, exponents=exponents)


def fitting(graph: QGraph, array: ArrayConfig, target: str) -> Schedule:
    """Return the schedule; FitError names the layer that does not fit, or the memory."""
    found = schedule(graph, array)
    for refusal in found.refusals(target):
        raise refusal
    return found
