"""Memory contents while they grow: one node's descriptor, and its words in the tables."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import assert_never

import numpy as np

from celosia.emit.layer_report import work_of
from celosia.emit.weight_stream import port_rows, stretched
from celosia.emit.write_table import placed
from celosia.schedule.candidates import Candidate
from celosia.schedule.input_map import InputMap
from celosia.schedule.memory_map import Layouts
from celosia_spec.epilogue import Activation, Identity, Kept, Relu
from celosia_spec.isa import (
    BATCH_WAIT_MAX,
    ArrayConfig,
    Flag,
    Opcode,
    Space,
    Word,
    pack_batch,
    pack_row,
)
from celosia_spec.isa.cycles import Work, walk_wait
from celosia_spec.isa.timing import MIN_PASS, Timing
from celosia_spec.qgraph import QGraph, QNode, static_exponent


@dataclass
class Table:
    """A table of words that layers share where they need the same ones."""

    words: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint32))

    def place(self, words: Iterable[int]) -> int:
        """Return where ``words`` stand, one after another, appending them if they do not yet."""
        new = np.fromiter(words, np.uint32)
        known, wanted = self.words.tobytes(), new.tobytes()
        at = known.find(wanted)
        while at % new.itemsize and at >= 0:
            at = known.find(wanted, at + 1)
        if at >= 0:
            return at // new.itemsize
        self.words = np.concatenate([self.words, new])
        return len(self.words) - len(new)


@dataclass
class Images:
    """Contents of every memory of a program, from address 0.

    program : descriptors and batch words, once all are known.   lengths : batch words so far.
    weights : port rows of ``groups_max`` words; ``weight_rows`` of them.   rows : row-table words.
    """

    program: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    weight_rows: int = 0
    rows: list[int] = field(default_factory=list)
    taps: Table = field(default_factory=Table)
    writes: Table = field(default_factory=Table)

    def add_weights(self, words: np.ndarray, row_words: int) -> int:
        """Append a layer's weight words, whole port rows; return the first port row."""
        first = self.weight_rows
        self.weights.append(words)
        self.weight_rows += len(words) // row_words
        return first

    def arrays(self) -> dict[Space, np.ndarray]:
        """Return the images as uint32 vectors."""
        return {Space.PROGRAM: np.array(self.program, np.uint32),
                Space.WEIGHTS: np.concatenate(self.weights).astype(np.uint32),
                Space.ROWS: np.array(self.rows, np.uint32),
                Space.TAPS: self.taps.words, Space.WRITES: self.writes.words}


def describe(graph: QGraph, node: QNode, found: Candidate, reader: InputMap | None, *,
             layouts: Layouts, slots: dict[str, int], images: Images, array: ArrayConfig,
             walk_before: int) -> tuple[list[int], Work, Candidate]:
    """Candidate the tables with one node's share; return its descriptor, its work and its fill as
    it stands in memory.

    reader      : how the banks hold the node's output, None where no node reads it from there.
    walk_before : cycles of the normalising walk of the layer before.
    """
    result, banks = graph.tensors[node.output], layouts.banks
    placing = placed(found, reader, banks.base.get(node.output), array)
    shortest = max(MIN_PASS, array.pass_beats, placing.longest if found.direct else 0)
    # A pass can wait so long for the drain of the one before; what is missing becomes steps.
    stream = stretched(found.stream, found.groups, shortest - BATCH_WAIT_MAX)
    found = replace(found, stream=stream)
    clear = reader is not None and node.output in banks.shared and reader.has_zeros(result)
    work = work_of(found, pass_cycles=shortest,
                   walk_cycles=0 if found.direct else placing.walk,
                   drain_cycles=placing.last if found.direct else array.pass_beats,
                   clear_rows=reader.rows_needed if clear and reader else 0,
                   prefetched=min(walk_wait(walk_before), Timing.of(array).prefetch))
    tables = found.source.taps()
    words = dict.fromkeys(Word, 0)
    words |= {
        Word.FLAGS: _flags(graph, node, found, reader, layouts),
        Word.INPUT_SLOT: slots[node.input] | slots[node.output] << 8,
        Word.LAST_BATCH: found.batches - 1, Word.LAST_TILE: found.source.tiles - 1,
        Word.LAST_PHASE: found.window.phases - 1, Word.LAST_POSITION: found.window.positions - 1,
        Word.LINE: found.window.shape[1] if found.source.jump else found.window.positions,
        Word.TAP_BASE: images.taps.place(tables.ravel()), Word.TAP_STEP: tables.shape[1],
        Word.WEIGHT_BASE: images.add_weights(port_rows(stream, found.groups, array),
                                             array.groups_max),
        Word.LENGTH_BASE: len(images.lengths), Word.ROW_BASE: len(images.rows),
        Word.IN_BASE: banks.base[node.input], Word.IN_CHANNELS: found.source.order.channels,
        Word.WRITE_BASE: images.writes.place(placing.words), Word.WRITE_STEP: placing.step,
        Word.EXPONENT: _exponents(graph, node),
        Word.CLEAR_BASE: banks.base[node.output] if clear else 0, Word.CLEAR_ROWS: work.clear_rows,
        **_residual_words(node, layouts, slots), **_reader_words(found, reader),
    }
    images.lengths += [pack_batch(steps, max(0, shortest - steps))
                       for steps in stream.lengths.tolist()]
    images.rows += row_words(node, found)
    return [int(words[word]) for word in Word], work, found


def _flags(graph: QGraph, node: QNode, found: Candidate, reader: InputMap | None,
           layouts: Layouts) -> int:
    flags = Opcode.LINEAR | _activation(node.epilogue.activation)
    for condition, flag in (
            (static_exponent(graph.tensors, node.output) is not None, Flag.STATIC),
            (isinstance(graph.tensors[node.output].exponent, Kept), Flag.KEEP),
            (node.epilogue.add is not None, Flag.RESIDUAL_READ),
            (node.output in layouts.residuals.base, Flag.RESIDUAL_WRITE),
            (node.output == graph.output, Flag.WIDE), (found.direct, Flag.DIRECT),
            (found.source.jump, Flag.JUMP),
            (reader is not None and reader.plane_distance > 0, Flag.DEINTERLEAVE)):
        if condition:
            flags |= int(flag)
    return flags


def _activation(activation: Activation) -> int:
    """Return the flags of an activation function."""
    match activation:
        case Identity():
            return 0
        case Relu():
            return Flag.RELU
        case _:
            assert_never(activation)


def _exponents(graph: QGraph, node: QNode) -> int:
    value = static_exponent(graph.tensors, node.output) or 0
    return value & 0xFF | (graph.tensors[node.output].exponent.least & 0xFF) << 8


def _residual_words(node: QNode, layouts: Layouts, slots: dict[str, int]) -> dict[Word, int]:
    base = layouts.residuals.base
    words = {Word.RESIDUAL_WRITE: base.get(node.output, 0)}
    if (add := node.epilogue.add) is not None:
        words |= {Word.RESIDUAL_SLOT: slots[add], Word.RESIDUAL_READ: base[add]}
    return words


def _reader_words(found: Candidate, reader: InputMap | None) -> dict[Word, int]:
    """What the machine must know of the output's map."""
    groups = found.groups.bit_length() - 1
    if reader is None:
        return {Word.GROUPS: groups}
    return {Word.GROUPS: groups | reader.groups.bit_length() - 1 << 4,
            Word.WRITE_CARRY: reader.order.channels,
            Word.PLANE_ROWS: reader.plane_distance // reader.size * reader.order.channels}


def row_words(node: QNode, found: Candidate) -> list[int]:
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
