"""The stream of a network: control words, weight entries, and the order in which they are read."""

from collections.abc import Mapping, Sequence

from celosia.bands.batches import Batches, batches
from celosia.bands.copies import Copies, Section
from celosia.bands.entries import Chunk, Entries, Lists, Order, Stream, command, controls
from celosia.bands.laid import Laid
from celosia.bands.layer_stream import LayerStream, Sections
from celosia.bands.plan import Layer
from celosia_spec.errors import CompileError
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import Op
from celosia_spec.qgraph import QGraph, QNode


def weights(graph: QGraph, layers: Sequence[Layer], array: Array) -> list[list[Batches]]:
    """Return the batches of each layer's parts."""
    return [[batches(graph, layer, part, array) for part in layer.parts] for layer in layers]


def stream(network: Laid, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
           flash: Copies, units: Mapping[Section, int], period: int = 1) -> Stream:
    """Return the stream of a network.

    made : the layers' `weights`.   flash : whose batches are copied.   units : of flash, of what is
    copied.   period : steps, each with an order of its own. How long it is depends neither on where
    the network lies nor on units.
    """
    found = Stream(layers=[0] * len(layers), begins=[0] * len(layers))
    weights: dict[QNode, dict[int, Chunk]] = {node: {} for node in network.graph.nodes}

    def copy(at: int, k: int) -> list[int]:
        return command(Op.COPY, unit=units.get(flash.commands[at, k][0], 0)) if (
            at, k) in flash.commands else []
    for step in range(period):
        found.orders.append(Lists([Order() for _ in range(network.array.clusters)]))
        for at, layer in enumerate(layers):
            if begin := copy(at, -1):
                found.order.read(found.add(controls(begin), at))
            holds: list[Entries] = [found]
            if at in flash.words:
                copied = [found.section(own, flash.first(own)) for own in flash.sections(at)]
                holds = [*holds[:flash.parts[at].resident if at in flash.parts else 0], *copied]
                if holds[0] is copied[0]:
                    found.order.wait()
            before = sum(held.size for held in holds)
            try:
                begins = LayerStream(
                    network=network, layer=layer, made=made[at], out=found.order,
                    sections=Sections(
                        holds=holds, copies=[copy(at, k) for k in range(len(holds))],
                        begins=flash.parts[at].begins[1:] if at in flash.parts else ()),
                    weights=weights[layer.node], step=step, period=period).add()
            except ValueError as error:         # a number that its field does not hold
                raise CompileError(
                    layer.node.name, str(layer.node.kind), str(error),
                    "give it smaller maps, or weights and biases nearer to 1") from None
            found.begins[at] += begins
            found.layers[at] += sum(held.size for held in holds) - before
            found.order.ended()
    halt = found.add(controls(command(Op.HALT)))
    for order in found.orders:
        order.read(halt)
    return found
