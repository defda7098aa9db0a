"""Lowering: a quantised graph into the memory images of one array."""

from celosia.emit.program import emit
from celosia.program import Program
from celosia.schedule.scheduling import schedule
from celosia_spec.isa import ArrayConfig
from celosia_spec.qgraph import QGraph


def lower(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Program:
    """Lower ``graph`` for ``array``; FitError names the layer that does not fit, or the memory.

    ``Program.graph`` is the graph with the copies that the array needs, one descriptor a node.
    """
    found = schedule(graph, array)
    for refusal in found.refusals(target):
        raise refusal
    return emit(found, target=target, exponents=exponents)
