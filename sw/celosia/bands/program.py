"""A network as the machine runs it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from celosia.bands.batches import Batches
from celosia.bands.copies import Copies
from celosia.bands.entries import Lists, Stream
from celosia.bands.flash import copies, least_refusal
from celosia.bands.laid import Laid
from celosia.bands.plan import Layer, Plan, shortages
from celosia.bands.regions import Region, regions
from celosia.bands.slots import slots
from celosia.bands.stream import stream, weights
from celosia.uncollected import uncollected
from celosia_spec.epilogue import Pool
from celosia_spec.errors import CompileError, FitError, Need, Scarce
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import COPY, PHASES_MAX
from celosia_spec.isa.image import UNIT_BYTES, UNIT_WORDS, Section
from celosia_spec.isa.image import places as image_places
from celosia_spec.isa.words import WEIGHT
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.steps import Steps

_UNITS = COPY["unit"].most
"""Units of flash before the last section that a command reaches."""


_FEWER = 25
"""See `_fewest`: to find when layers are copied takes longer than all else."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """What a cluster reads.

    chunks : int64 (chunks, 2), first entry and entries.   copied : numbers of the chunks that wait
    for a section of flash.   ends : of each layer, the chunk in which its last entry is read, and
    that entry.
    """

    chunks: np.ndarray
    copied: tuple[int, ...]
    ends: tuple[tuple[int, int], ...]

    @property
    def waiting(self) -> np.ndarray:
        """Whether each chunk waits for a section of flash, bool."""
        return np.isin(np.arange(len(self.chunks)), self.copied)


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadingOrder:
    """An order in which entries are read.

    list_at : word in which its list of chunks begins, and how many words it has.
    clusters : what each cluster reads.
    """

    list_at: int
    size: int
    clusters: tuple[Reading, ...]

    @property
    def lists(self) -> list[np.ndarray]:
        """The chunks of each cluster."""
        return [own.chunks for own in self.clusters]

    @property
    def waiting(self) -> list[np.ndarray]:
        """Whether each of them waits for a section of flash."""
        return [own.waiting for own in self.clusters]



@dataclass(frozen=True, kw_only=True, eq=False)
class StreamProgram:
    """What main memory holds, and where maps lie in it.

    source  : the quantised network that it was made of.   graph : as the machine runs it.
    array   : what it is for.
    pool    : of the network's output, if it has one: of stored sums the host takes the largest.
    entries : uint64, the stream, from word 0 on, and behind it the lists of its chunks.
    orders  : in which order entries are read; of a network in steps one for each of a period.
    sections : the image of the flash: the entries, resident, and those that are copied.
    flash   : which they are, and when.
    places  : region of every tensor.   slots : its exponent's.
    reads   : slot of the exponent at which each node reads.   layers : how each node runs.
    sizes   : entries of each layer, its control words with them, those of all orders.
    steps   : of a network that runs in steps, else None.
    """

    source: QGraph
    graph: QGraph
    array: Array
    pool: Pool | None
    entries: np.ndarray
    orders: tuple[ReadingOrder, ...]
    sections: tuple[Section, ...]
    flash: Copies
    places: dict[str, Region]
    slots: dict[str, int]
    reads: dict[str, int]
    layers: tuple[Layer, ...]
    sizes: tuple[int, ...]
    steps: Steps | None

    @property
    def copied_layers(self) -> dict[int, list[Section]]:
        """The sections of each layer that is copied from flash, by its number."""
        found: dict[int, list[Section]] = {}
        numbers = [number for at in sorted(self.flash.words) for number in self.flash.sections(at)]
        for (at, _), section in zip(numbers, self.sections[1:], strict=True):
            found.setdefault(at, []).append(section)
        return found

    @property
    def order(self) -> ReadingOrder:
        """The first order."""
        return self.orders[0]

    @property
    def list_at(self) -> int:
        """Where its list of chunks begins."""
        return self.order.list_at

    @property
    def chunks(self) -> np.ndarray:
        """What the first cluster reads in it."""
        return self.order.clusters[0].chunks

    @property
    def copied(self) -> tuple[int, ...]:
        """Of these chunks those that wait for a section of flash."""
        return self.order.clusters[0].copied


@uncollected()
def stream_program(source: QGraph, array: Array, steps: Steps | None = None) -> StreamProgram:
    """Return the program of a quantised graph, or of its ``steps``; FitError where the array has no
    room for it, CompileError where its arithmetic is another."""
    graph = source if steps is None else steps.graph
    for refusal in _wrong(graph, array):
        raise refusal
    period = 1 if steps is None else steps.period
    graph, pool = _without_last_pool(graph)
    held, reads = slots(graph)
    nowhere = Laid(graph=graph, array=array, slots=held, reads=reads,
                   places=regions(graph, dict.fromkeys(graph.tensors, 0)))

    def made_of(layers: list[Layer]) -> _Made:
        made = weights(graph, layers, array)
        found = stream(nowhere, layers, made, Copies(maps={}), {}, period)
        flash = copies(graph, layers, made, found, array)
        return _Made(layers, made, found, flash)
    way = _fewest(made_of, graph, array)
    layers, made, found, flash = way.layers, way.made, way.stream, way.flash
    for at, parted in flash.parts.items():
        layers[at], made[at] = parted.layer, parted.made
    if flash.runs or flash.parts:
        found = stream(nowhere, layers, made, flash, {}, period)
    image = _image(found, flash)
    units = dict(zip(sorted(found.sections), image_places(image)[1:], strict=True))
    if units and (last := max(units.values())) > _UNITS:
        needed, reached = (count * UNIT_BYTES / 1024 for count in (last, _UNITS))
        raise FitError("network", "flash", f"its weights begin as far as {needed:,.1f} KiB into "
                       f"flash, and commands reach {reached:,.1f}", "prune more",
                       need=Need(Scarce.FLASH, needed, reached, "KiB"))
    places = regions(graph, flash.maps)
    found = stream(replace(nowhere, places=places), layers, made, flash, units, period)
    assert found.words_needed <= min(place.word for place in places.values())
    assert all(own.size <= parted.room for at, parted in flash.parts.items()
               for own in (found.sections[number] for number in flash.sections(at)))
    return StreamProgram(source=source, graph=graph, array=array, pool=pool, layers=tuple(layers),
                         places=places, slots=held, reads=reads, entries=found.words(),
                         orders=tuple(_order(order, at) for at, order in zip(
                             found.lists(), found.orders, strict=True)),
                         sections=_image(found, flash), flash=flash, sizes=tuple(found.layers),
                         steps=steps)


def _order(order: Lists, at: int) -> ReadingOrder:
    return ReadingOrder(list_at=at, size=order.size, clusters=tuple(
        Reading(chunks=np.array(own.chunks, np.int64), copied=tuple(own.copied),
                ends=tuple(own.ends)) for own in order.clusters))


@dataclass(frozen=True)
class _Made:
    """How layers run, their batches, the stream if nothing is copied, and what is copied."""

    layers: list[Layer]
    made: list[list[Batches]]
    stream: Stream
    flash: Copies


def _fewest(made_of: Callable[[list[Layer]], _Made], graph: QGraph, array: Array) -> _Made:
    """Return the way that is counted to take the fewest cycles: where layers are copied, perhaps
    one that has fewer entries; where they are copied whole, if it has so by one in `_FEWER`."""
    plan, refused, few = Plan(graph, array), None, None
    found = []
    try:
        found.append(first := made_of(plan.layers()))
        if not first.flash.parts:
            few = plan.layers(copied=True) if first.flash.runs else []
            if _FEWER * _entries(few) > (_FEWER - 1) * _entries(first.layers) or not few:
                return first
    except FitError as refusal:
        if not array.flash or least_refusal(graph, array) is not None:
            raise
        refused = refusal
    try:
        found.append(made_of(few or plan.layers(copied=True)))
    except FitError:
        if refused is not None:
            raise refused from None
    return min(found, key=lambda way: way.flash.cycles(way.layers))


def _entries(layers: Sequence[Layer]) -> int:
    return sum(layer.entries for layer in layers)


def refusals(graph: QGraph, array: Array) -> Iterator[CompileError]:
    """Yield all for which `stream_program` refuses a graph before it has a stream, where it stops
    at the first; and main memory, if there is too little of it however layers run."""
    yield from _wrong(graph, array)
    graph, _ = _without_last_pool(graph)
    yield from shortages(graph, array)
    try:
        slots(graph)
    except FitError as refusal:
        yield refusal
    if (least := least_refusal(graph, array)) is not None:
        yield least


def _image(found: Stream, flash: Copies) -> tuple[Section, ...]:
    """Return the sections of flash: what is resident, then the layers that are copied."""
    more = {number for way in flash.commands.values() for number in way[:-1]}
    parts = [(0, found.words(), True, False)] + [
        (own.first // UNIT_WORDS, own.all(), False, number in more)
        for number, own in sorted(found.sections.items())]
    return tuple(Section(first=first, resident=resident, more=follows, words=np.concatenate(
        [words, np.zeros(-len(words) % UNIT_WORDS, np.uint64)]))
        for first, words, resident, follows in parts)


def _without_last_pool(graph: QGraph) -> tuple[QGraph, Pool | None]:
    """Return the graph without pooling at its output, and that pooling: sums are stored, and the
    machine pools elements only."""
    *others, node = graph.nodes
    pool = node.epilogue.pool
    if pool is None:
        return graph, None
    tensor = graph.tensors[node.output]
    height, width = node.geometry.positions(graph.tensors[node.input].shape[1:])
    whole = replace(tensor, shape=(tensor.shape[0], height, width))
    node = replace(node, epilogue=replace(node.epilogue, pool=None))
    return replace(graph, tensors=graph.tensors | {whole.name: whole},
                   nodes=(*others, node)), pool


def _largest(node: QNode, array: Array) -> int:
    """Return how far from 0 the sum of a row's codes may lie; they have no sign."""
    weights = node.matrix.astype(np.int64)
    most = max(part.sum(axis=1).max(initial=0) for part in (
        weights.maximum(0), (-weights).maximum(0)))
    return int(most) * ((1 << array.activation_bits) - 1)


def _wrong(graph: QGraph, array: Array) -> Iterator[CompileError]:
    """Yield where the arithmetic of a graph is not the array's; a FitError where other arrays have
    what this one has not."""
    added = next((node for node in graph.nodes if node.epilogue.add), None)
    clamped = next((node for node in graph.nodes if node.epilogue.activation.clamps), None)
    for wrong, problem, way_out in (
            (graph.weight_bits > WEIGHT["mantissa"].bits,
             f"weights of {graph.weight_bits} bits, the stream has {WEIGHT['mantissa'].bits}",
             f"quantise with weight_bits={WEIGHT['mantissa'].bits}"),
            (graph.weight_bits > array.weight_bits,
             f"weights of {graph.weight_bits} bits, the array has {array.weight_bits}",
             f"quantise with weight_bits={array.weight_bits}"),
            (graph.activation_bits != array.activation_bits,
             f"activations of {graph.activation_bits} bits, the array has "
             f"{array.activation_bits}", f"quantise with activation_bits={array.activation_bits}"),
            (graph.acc_bits > array.acc_bits or (added and graph.acc_bits != array.acc_bits),
             f"{graph.acc_bits}-bit accumulators, the array has {array.acc_bits}",
             f"quantise with acc_bits={array.acc_bits}")):
        if wrong:
            yield CompileError("network", "array", problem, way_out)
    if clamped and not array.clamp:
        low, high = clamped.epilogue.activation.bounds
        yield FitError(clamped.name, "clamp", f"a clamp to {low:g} ... {high:g} follows it, and "
                       "the array has ReLU only", "use ReLU there")
    if added and not array.residual:
        size = math.prod(graph.tensors[added.epilogue.add or ""].shape)
        yield FitError(added.name, "add", "it adds tensors, and the array has no residual operand",
                       "leave the addition out",
                       need=Need(Scarce.ADDED, size, 0, "values"))
    for node in graph.nodes:
        if graph.tensors[node.input].signed and (
                most := _largest(node, array)) >> array.sum_bits - 1:
            yield FitError(node.name, str(node.kind), "its input has signs, and the sums of a row "
                           f"may reach {most} in the lanes, which have {array.sum_bits} bits",
                           "quantise it again")
        if (pool := node.epilogue.pool) is not None and math.prod(pool.window) > PHASES_MAX:
            yield CompileError(node.name, str(node.kind), f"it pools windows of "
                               f"{math.prod(pool.window)} positions, the machine {PHASES_MAX} at "
                               f"most",
                               "pool in two layers, one behind the other")
