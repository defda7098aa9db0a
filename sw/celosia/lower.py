"""Lowering: a quantised graph into the memory images of one array."""

from celosia.emit.program import Lowered, emit, exceeded
from celosia.program import Program
from celosia.schedule.check import check_graph
from celosia.schedule.copies import expand_copies
from celosia.schedule.row_groups import choose
from celosia_spec.errors import FitError, Need
from celosia_spec.isa import EXPONENT_SLOTS, ArrayConfig
from celosia_spec.qgraph import QGraph


def lower(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Program:
    """Lower ``graph`` for ``array``; FitError names the layer that does not fit, or the memory.

    Every layer is filled into the array the fastest way; where the banks cannot hold the copies of
    its input that this needs, or the memories the weights and tables, the way that gives the least
    time away. ``Program.graph`` is the graph with the copies that the array needs
    (:func:`expand_copies`), one descriptor a node.
    """
    program = plan(graph, array, target=target, exponents=exponents).program
    check_depths(program)
    return program


def plan(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Lowered:
    """Lower as :func:`lower`; where weights or tables fit in no way, as if their memories had no
    end."""
    check_graph(graph, array)
    expanded = expand_copies(graph)
    if len(expanded.tensors) > EXPONENT_SLOTS:
        raise FitError(
            "network", "tensors", f"{len(expanded.tensors)} stored tensors, copies included, the "
            f"machine holds {EXPONENT_SLOTS} exponents", "use fewer layers",
            need=Need("tensors", len(expanded.tensors), EXPONENT_SLOTS, "tensors"))
    fastest = emit(expanded, *choose(expanded, array), array, target, exponents)
    if fastest.program.fits:
        return fastest
    try:
        compact = emit(expanded, *choose(expanded, array, compact=True), array, target, exponents)
    except FitError:
        return fastest
    return compact if compact.program.fits else fastest


def check_depths(program: Program) -> None:
    """FitError where a memory holds less than the program needs of it."""
    for refusal in exceeded(program):
        raise refusal
