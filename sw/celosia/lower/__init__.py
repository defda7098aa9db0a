"""Lowering: a quantised graph into the memory images of one array."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from celosia.errors import CelosiaError, CompileError
from celosia.lower.allocate import Layout, Span, allocate
from celosia.lower.expand import expand_copies
from celosia.lower.fill import Fill, choose, placed, work_of
from celosia.program import Layer, Place, Program
from celosia.qgraph import QGraph, QNode
from celosia_hw.isa import (
    DESCRIPTOR_WORDS,
    EXPONENT_SLOTS,
    PREFETCH_WORDS,
    ArrayConfig,
    Flag,
    Opcode,
    Space,
    Word,
    pack_row,
)
from celosia_hw.timing import MIN_PASS
from celosia_sim.cycles import Work, lane_cycles, layer_cycles, walk_wait

__all__ = ["lower"]


def lower(graph: QGraph, array: ArrayConfig, *, target: str, exponents: str) -> Program:
    """Lower ``graph`` for ``array``; CompileError names the layer that does not fit.

    The fastest way to fill the array is taken for every layer; where the banks cannot hold the
    copies it needs, the next best.
    """
    if graph.acc_bits > array.acc_bits:
        raise CompileError("network", "accumulator",
                           f"needs {graph.acc_bits}-bit accumulators, the array has "
                           f"{array.acc_bits}", "choose a target with wider accumulators")
    for name in ("weight_bits", "activation_bits"):
        if getattr(graph, name) > getattr(array, name):
            raise CompileError("network", name, f"{getattr(graph, name)} bits, the array "
                               f"multiplies {getattr(array, name)}", "use fewer bits")
    expanded = expand_copies(graph)
    for fills in choose(expanded, array):
        layout = _allocate(expanded, fills, array) if fills else None
        if layout is not None:
            return _emit(graph, expanded, fills, layout, array, target, exponents)
    raise _too_large(expanded, array)


@dataclass
class _Images:
    """Memory contents while they grow."""

    program: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    weight_rows: int = 0
    rows: list[int] = field(default_factory=list)
    taps: list[int] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)

    def shared(self, table: list[int], words: Iterable[int]) -> int:
        """Return where ``words`` stand in ``table``, appending them if they do not."""
        words = [int(word) for word in words]
        for at in range(len(table) - len(words) + 1):
            if table[at:at + len(words)] == words:
                return at
        table.extend(words)
        return len(table) - len(words)


def _reader(graph: QGraph) -> dict[str, QNode]:
    return {node.input: node for node in graph.nodes}


def _residual_ends(graph: QGraph) -> dict[str, int]:
    """Last reader's index of every residual operand."""
    return {node.residual: k for k, node in enumerate(graph.nodes) if node.residual}


def _beats(found: Fill, array: ArrayConfig) -> int:
    return found.batches * found.source.tiles * array.pass_beats


def _allocate(graph: QGraph, fills: dict[str, Fill], array: ArrayConfig,
              ) -> tuple[Layout, Layout] | None:
    """Places in the banks and in the residual store, or None where they do not fit."""
    maker = {node.output: k for k, node in enumerate(graph.nodes)}
    spans, residuals = [], []
    for k, node in enumerate(graph.nodes):
        spans.append(Span(node.input, fills[node.name].source.rows_needed,
                          maker.get(node.input, -1), k))
    for tensor, last in _residual_ends(graph).items():
        found = fills[graph.nodes[maker[tensor]].name]
        residuals.append(Span(tensor, _beats(found, array), maker[tensor], last))
    banks = allocate(spans, array.bank_rows)
    store = allocate(residuals, array.residual_beats)
    if banks is None or store is None:
        return None
    # The host writes an input map's elements only: its halo must stay zero.
    source = fills[graph.nodes[0].name].source
    if graph.input in banks.shared and source.has_zeros(graph.tensors[graph.input]):
        return None
    return banks, store


def _too_large(graph: QGraph, array: ArrayConfig) -> CompileError:
    biggest = max(graph.nodes, key=lambda n: int(np.prod(graph.tensors[n.input].shape)))
    shape = "x".join(map(str, graph.tensors[biggest.input].shape))
    if any(node.residual for node in graph.nodes) and not array.residual_beats:
        first = next(node for node in graph.nodes if node.residual)
        return CompileError(first.name, "add", "this array has no residual store",
                            "choose an ECP5 target")
    return CompileError(
        biggest.name, biggest.kind,
        f"its input of {shape} and the maps beside it do not fit {array.lanes} banks of "
        f"{array.bank_rows} mantissas", "choose a target with larger banks, or shrink the maps")


def _emit(graph: QGraph, expanded: QGraph, fills: dict[str, Fill],
          layouts: tuple[Layout, Layout], array: ArrayConfig, target: str,
          exponents: str) -> Program:
    images = _Images()
    banks, residuals = layouts
    slots = {name: k for k, name in enumerate(expanded.tensors)}
    if len(slots) > EXPONENT_SLOTS:
        raise CompileError("network", "tensors", f"{len(slots)} stored tensors, the machine holds "
                           f"{EXPONENT_SLOTS} exponents", "compile the network in parts")
    readers, ends = _reader(expanded), _residual_ends(expanded)
    places, works, descriptors = {}, [], []
    for k, node in enumerate(expanded.nodes):
        reader = readers.get(node.output)
        stored = fills[reader.name].source if reader else None
        words, work = _descriptor(expanded, node, fills[node.name], stored, banks, residuals,
                                  ends, slots, images, array,
                                  works[-1].walk_cycles if works else 0)
        descriptors.append(words)
        works.append(work)
    at = len(descriptors) * DESCRIPTOR_WORDS
    for words in descriptors:
        words[Word.LENGTH_BASE] += at
        images.program += words
    images.program += images.lengths
    for k, node in enumerate(expanded.nodes):
        places[node.input] = Place(space=Space.BANKS, written=k - 1 if k == 0 else _made(
            expanded, node.input), addresses=fills[node.name].source.addresses(
                expanded.tensors[node.input], banks.base[node.input]))
    places[expanded.output] = _output_place(expanded, fills, array)
    layers = tuple(
        _layer(node, fills[node.name], work, array, last=k == len(works) - 1)
        for k, (node, work) in enumerate(zip(expanded.nodes, works)))
    program = Program(
        target=target, array=array, exponents=exponents, graph=graph,
        images={Space.PROGRAM: np.array(images.program, np.uint32),
                Space.WEIGHTS: np.concatenate(images.weights).astype(np.uint32),
                Space.ROWS: np.array(images.rows, np.uint32),
                Space.TAPS: np.array(images.taps, np.uint32),
                Space.WRITES: np.array(images.writes, np.uint32)},
        descriptors=len(works), slots=slots, places=places, layers=layers)
    _check_depths(program)
    return program


def _made(graph: QGraph, tensor: str) -> int:
    return next((k for k, node in enumerate(graph.nodes) if node.output == tensor), -1)


def _descriptor(graph: QGraph, node: QNode, found: Fill, reader, banks: Layout, residuals: Layout,
                ends: dict[str, int], slots: dict[str, int], images: _Images, array: ArrayConfig,
                walk_before: int) -> tuple[list[int], Work]:
    """Fill the tables with one node's share; return its descriptor and its work."""
    result = graph.tensors[node.output]
    static = result.static_exponent is not None
    final = node.output == graph.output
    direct = not final and (static or node.keep)
    if final and found.window.positions > 1 and array.wide_elements < array.beat:
        raise CompileError(node.name, node.kind, "its output is the network's and a map of "
                           f"{found.window.positions} positions; this array rounds only vectors "
                           "to 16 bits", "choose an ECP5 target, or end the network in a vector")
    beats = _beats(found, array)
    if not direct and beats > array.store_beats:
        raise CompileError(node.name, node.kind, f"its output needs {beats} beats of the "
                           f"accumulator store, the array has {array.store_beats}",
                           "use static exponents, or a target with a larger store")
    if (node.residual or node.output in residuals.base) and beats > array.store_beats:
        raise CompileError(node.name, "add", f"a residual operand of {beats} beats exceeds the "
                           f"store's address range of {array.store_beats}",
                           "choose a target with a larger store")
    if final and node.output in banks.base:
        raise CompileError(node.name, node.kind, "the network's output is read by another layer",
                           "end the network behind its last layer")
    base = banks.base.get(node.output, 0)
    writes, drain, walk, step = placed(found, reader, base, array, direct=direct,
                                       shape=result.shape)
    shortest = max(MIN_PASS, array.pass_beats, drain if direct else 0)
    clear = (reader is not None and node.output in banks.shared
             and reader.has_zeros(result))
    work = work_of(found, pass_cycles=shortest, walk_cycles=0 if direct else walk,
                   drain_cycles=drain if direct else array.pass_beats,
                   clear_rows=reader.rows_needed if clear else 0,
                   prefetched=min(walk_wait(walk_before), PREFETCH_WORDS))
    flags = Opcode.LINEAR
    for condition, flag in (
            (node.relu, Flag.RELU), (static, Flag.STATIC), (node.keep, Flag.KEEP),
            (node.residual, Flag.RESIDUAL_READ), (node.output in ends, Flag.RESIDUAL_WRITE),
            (final, Flag.WIDE), (direct, Flag.DIRECT), (found.source.jump, Flag.JUMP),
            (reader is not None and reader.plane_distance > 0, Flag.DEINTERLEAVE)):
        if condition:
            flags |= flag
    out_groups = reader.groups if reader is not None else 1
    tables = found.source.taps()
    tap_base = images.shared(images.taps, tables.ravel())
    words = dict.fromkeys(Word, 0)
    words |= {
        Word.FLAGS: flags,
        Word.GROUPS: found.groups.bit_length() - 1 | out_groups.bit_length() - 1 << 4,
        Word.INPUT_SLOT: slots[node.input] | slots[node.output] << 8,
        Word.RESIDUAL_SLOT: slots[node.residual] if node.residual else 0,
        Word.LAST_BATCH: found.batches - 1, Word.LAST_TILE: found.source.tiles - 1,
        Word.LAST_PHASE: found.window.phases - 1, Word.POSITIONS: found.window.positions,
        Word.LINE: found.window.shape[1] if found.source.jump else found.window.positions,
        Word.TAP_BASE: tap_base, Word.TAP_STEP: tables.shape[1],
        Word.WEIGHT_BASE: images.weight_rows, Word.LENGTH_BASE: len(images.lengths),
        Word.ROW_BASE: len(images.rows),
        Word.IN_BASE: banks.base[node.input], Word.IN_CHANNELS: found.source.order.channels,
        Word.PASS_CYCLES: shortest, Word.WRITE_BASE: images.shared(images.writes, writes),
        Word.WRITE_STEP: step,
        Word.WRITE_CARRY: reader.order.channels if reader is not None else 0,
        Word.EXPONENT: ((result.static_exponent or 0) & 0xFF) | (result.exponent_min & 0xFF) << 8,
        Word.CLEAR_BASE: base if clear else 0, Word.CLEAR_ROWS: work.clear_rows,
        Word.PLANE_ROWS: 0 if reader is None else
            reader.plane_distance // reader.size * reader.order.channels,
        Word.RESIDUAL_READ: residuals.base.get(node.residual, 0),
        Word.RESIDUAL_WRITE: residuals.base.get(node.output, 0),
    }
    _check_counts(node, words, found, array)
    images.lengths += found.stream.lengths.tolist()
    padded = np.zeros(-(-len(found.stream.words) // array.groups_max) * array.groups_max, np.int64)
    padded[:len(found.stream.words)] = found.stream.words
    images.weights.append(padded)
    images.weight_rows += len(padded) // array.groups_max
    images.rows += _row_words(node, found)
    return [int(words[word]) for word in Word], work


def _check_counts(node: QNode, words: dict, found: Fill, array: ArrayConfig) -> None:
    limit = 1 << array.count_bits
    longest = int(found.stream.lengths.max())
    for what, value in (("row batches", words[Word.LAST_BATCH]), ("tiles", words[Word.LAST_TILE]),
                        ("output positions", words[Word.POSITIONS]),
                        ("non-zeros in a row", longest)):
        if value >= limit - 1:
            raise CompileError(node.name, node.kind, f"{value} {what}, this array counts to "
                               f"{limit - 2}", "choose a larger target")
    if words[Word.PASS_CYCLES] > 255:
        raise CompileError(node.name, node.kind, f"a tile's results take {words[Word.PASS_CYCLES]} "
                           "cycles to place, the machine takes 255", "use dynamic exponents")
    if found.window.phases > 256:
        raise CompileError(node.name, node.kind, f"a pooling window of {found.window.phases} "
                           "positions, the machine takes 256", "pool in two steps")


def _row_words(node: QNode, found: Fill) -> list[int]:
    """Row-table words in batch order. Bias mantissas are brought to full width: same value."""
    words = []
    for row in found.order:
        if row < 0:
            words.append(pack_row(0, 0, 0))
            continue
        bias, sb, sw = int(node.bias[row]), int(node.sb[row]), int(node.sw[row])
        if bias:
            shift = 15 - abs(bias).bit_length()
            bias, sb = bias << shift, sb - shift
        else:
            sb = sw
        words.append(pack_row(bias, sw, sb - sw))
    return words


def _output_place(graph: QGraph, fills: dict[str, Fill], array: ArrayConfig) -> Place:
    """The output in the store: one element after another in the order of the walk."""
    maker = next(k for k, node in enumerate(graph.nodes) if node.output == graph.output)
    found = fills[graph.nodes[maker].name]
    channels, height, width = graph.tensors[graph.output].shape
    groups, size, positions = found.groups, found.source.size, height * width
    # Beats that the normalising walk visits: those with a position, tile by tile, group by group.
    left = np.minimum(positions - np.arange(found.source.tiles) * size, size)
    per_tile = -(-left // array.beat)
    tile_start = np.concatenate([[0], np.cumsum(per_tile)]) * groups
    place = np.empty(channels, np.int64)
    place[found.order[found.order >= 0]] = np.flatnonzero(found.order >= 0)
    n = np.arange(positions)
    tile, inside = n // size, n % size
    group = (place % groups)[:, None]
    beat = ((place // groups)[:, None] * tile_start[-1] + tile_start[tile]
            + group * per_tile[tile] + inside // array.beat)
    address = beat * array.beat + inside % array.beat
    return Place(space=Space.STORE, written=maker,
                 addresses=address.reshape(1, channels, height, width))


def _layer(node: QNode, found: Fill, work: Work, array: ArrayConfig, *, last: bool) -> Layer:
    positions = found.window.positions * found.window.phases
    useful = int(np.count_nonzero(node.matrix.data))
    words = int(work.lengths.sum()) * found.groups
    bound = max(-(-useful * positions // array.lanes), -(-useful // array.groups_max))
    return Layer(
        name=node.name, kind=node.kind, rows=node.matrix.shape[0], columns=node.matrix.shape[1],
        positions=positions, weights=node.weights, nonzeros=int(node.matrix.nnz),
        dense_macs=node.weights * positions, macs=useful * positions,
        predicted_cycles=layer_cycles(work, array, last=last), bound_cycles=bound,
        groups=found.groups, weight_words=words, padding=found.stream.padding,
        weight_bytes=(words * array.weight_word_bits + 7) // 8 + 4 * len(found.order)
        + 2 * len(work.lengths),
        lane_cycles=lane_cycles(work, array, last=last))


def _check_depths(program: Program) -> None:
    array = program.array
    depths = {Space.PROGRAM: array.program_words - EXPONENT_SLOTS,
              Space.WEIGHTS: array.weight_rows * array.groups_max, Space.ROWS: array.table_rows,
              Space.TAPS: array.taps, Space.WRITES: array.writes}
    for space, depth in depths.items():
        used = len(program.images[space])
        if used > depth:
            raise CelosiaError(
                f"{program.target}: the program needs {used} words of {space.name.lower()} memory, "
                f"the array has {depth}; prune further, or choose a larger target")
