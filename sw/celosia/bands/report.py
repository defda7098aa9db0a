"""What users are told of each layer of a program."""

import math

import numpy as np

from celosia.bands.flash import DENSEST
from celosia.bands.occupancy import MainMemory, map_pieces, section_piece, stream_piece
from celosia.bands.plan import Layer as Plan
from celosia.bands.program import StreamProgram
from celosia.uncollected import uncollected
from celosia_sim.clock.cycles import cycles
from celosia_sim.clock.machine_clock import SPENT, Cycles
from celosia_spec.isa.array import ENTRY_BITS
from celosia_spec.isa.image import UNIT_BYTES
from celosia_spec.program import Layer
from celosia_spec.qgraph import as_made


@uncollected()
def clocked(program: StreamProgram) -> list[Cycles]:
    """Return the exact cycles of each order."""
    words = program.entries.tolist()
    return [cycles(program.array, words, order.list_at, program.sections)
            for order in program.orders]


def main_memory(program: StreamProgram) -> MainMemory:
    """Return who lies where in main memory; the list of chunks is told with the stream."""
    layers = tuple(node.name for node in program.graph.nodes)
    pieces = (stream_piece(len(program.entries), len(layers)), *map_pieces(program.places),
              *(section_piece(layers[at], sections, program.flash.lives[at])
                for at, sections in program.copied_layers.items()))
    return MainMemory(layers=layers, pieces=pieces, words=program.array.main_words,
                      copied=copied(program))


def copied(program: StreamProgram) -> dict[str, int]:
    """Return the bytes of the image in flash that are copied during a run, by the layer; none where
    all is resident."""
    return {program.graph.nodes[at].name: sum(section.units for section in sections) * UNIT_BYTES
            for at, sections in program.copied_layers.items()}


def report(program: StreamProgram, found: Cycles | None = None) -> tuple[Layer, ...]:
    """Return an entry for each layer. Cycles are exact: from when the exponent of the layer before
    is known, or the start, until its own is; the last layer's until the machine is done.

    found : cycles of one order; None is the first one.
    """
    found = clocked(program)[0] if found is None else found
    layers, at = [], 0
    for layer, entries in zip(program.layers, program.sizes, strict=True):
        end = None if layer is program.layers[-1] else at + layer.node.exponents
        layers.append(_layer(program, layer, entries, {
            what: sum(own.get(what, 0) for own in found.spent[at:end]) for what in SPENT}))
        at += layer.node.exponents
    return tuple(layers)


def spent(layer: Layer, lanes: int) -> dict[str, int]:
    """Return on what a layer's cycles were spent, by the keys of `SPENT`; clusters together.

    lanes : of all clusters.
    """
    found = {what: layer.lane_cycles[what] // lanes for what in SPENT if what != "steps"}
    return {"steps": layer.predicted_cycles - sum(found.values())} | found


def _layer(program: StreamProgram, layer: Plan, entries: int, spent: dict[str, int]) -> Layer:
    graph, node, array = program.graph, layer.node, program.array
    lanes = array.lanes         # what is spent is spent in each cluster
    positions = math.prod(as_made(graph.tensors, node).shape[1:]) * layer.phases
    useful = int(np.count_nonzero(node.matrix.data))
    words = sum(int(part.steps.sum()) for part in layer.parts) * layer.groups
    waits = {what: lanes * spent[what] for what in SPENT if what != "steps"}
    return Layer(
        name=node.name, kind=node.kind, rows=node.matrix.shape[0], columns=node.matrix.shape[1],
        positions=positions, weights=node.weights, nonzeros=int(node.matrix.nnz),
        dense_macs=node.weights * positions, macs=useful * positions,
        predicted_cycles=sum(spent.values()) // array.clusters,
        bound_cycles=max(-(-useful * positions // array.lanes_all), -(-useful // DENSEST)),
        groups=layer.groups, weight_words=words, padding=words - int(node.matrix.nnz),
        weight_bytes=entries * ENTRY_BITS // 8,
        lane_cycles={"useful": useful * positions,
                     "idle": lanes * spent["steps"] - useful * positions} | waits,
        raised_rows=node.raised)
