"""The machine without time: it runs a stream word by word, as decision 16 defines it.

It decodes what `celosia_spec.isa` says and shares nothing with what wrote the words; what
elements of maps are, `celosia_spec.floats` defines.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from celosia_sim.golden.requantise import clip, scale_rne
from celosia_sim.stream_memories import Flash, Reader, State
from celosia_spec.errors import SimulationError
from celosia_spec.floats import SIGN, code, exponent_of, finish, halves, to_odd
from celosia_spec.isa.array import ENTRY_WORDS, PIECE, Array
from celosia_spec.isa.controls import (
    BATCH,
    COMMAND,
    RECORDS,
    Op,
    head_words,
    is_command,
)
from celosia_spec.isa.fills import places
from celosia_spec.isa.heads import unpack
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN, OUTPUT_BITS
from celosia_spec.isa.passes import code_weight
from celosia_spec.isa.words import BLOCK, DENSE, TILE_WORDS, WEIGHT, tap_word, tile_words

_OWN = (Op.LAYER, Op.TAPS, Op.TILES)
_QUIET = (*_OWN, Op.JOIN, Op.CLOSE, Op.HALT)
"""Commands that wait until everything is written, the first ones of a cluster by itself. `Op.BAND`
and `Op.WAIT` wait until all steps are issued, and the first of them until all fills are done."""

_BETWEEN = (Op.BAND, Op.FILL, Op.WAIT, Op.NOTHING)
"""Commands that may stand between the parts of a batch."""

_NO_PART = "a batch is open, and no part of it follows; compile again"


_TOGETHER = (Op.BAND, Op.WAIT, Op.CLOSE, Op.JOIN, Op.COPY, Op.HALT)
"""Commands that all clusters come to before one is carried out."""


def run(state: State, entries: np.ndarray, lists: Sequence[np.ndarray],
        flash: Flash | None = None) -> None:
    """Run a stream to its end. SimulationError where a word of it means nothing.

    entries : uint64; with ``flash`` they are read from main memory instead.   lists : of each
    cluster its chunks, (chunks, 2), first entry and entries.

    What clusters do between two commands that they come to together is done cluster by cluster.
    """
    states = [state, *(state.beside() for _ in lists[1:])]
    clusters = [_cluster(own, Reader(entries, chunks, flash, number), fills=not number)
                for number, (own, chunks) in enumerate(zip(states, lists, strict=True))]
    while True:
        (op, fields), *others = [next(cluster) for cluster in clusters]
        if any(other[0] != op for other in others):
            raise SimulationError("clusters wait for each other in different commands; compile "
                                  "again")
        if op == Op.HALT:
            return
        if op in (*_QUIET, Op.BAND, Op.WAIT):
            for own in states:
                own.meanwhile.waits(fills=op == Op.BAND, writes=op in _QUIET)
        if op == Op.COPY:
            if flash is None:
                raise SimulationError("a section is to be copied, and there is no flash")
            flash.copy(fields["unit"])
        elif op in (Op.CLOSE, Op.JOIN):
            first, second = (int(state.exponents[fields.get(name, 0)])
                             for name in ("first", "second"))
            set_exponent(state, max(own.largest for own in states) if op == Op.CLOSE else
                         max(first, second - fields["room"]), fields)
            for own in states:
                own.largest = EXPONENT_MIN


def _cluster(state: State, reader: Reader, *,
             fills: bool) -> Iterator[tuple[int, dict[str, int]]]:
    """Run one cluster's part of a stream; yield every command to which all of them come together,
    and its fields.

    fills : it is the one that has the fills.
    """
    layer: dict[str, int] = {}
    band: dict[str, int] = {}
    batch: Batch | None = None
    while True:
        word = reader.control()
        if not is_command(word):
            batch = _batch(state, reader, BATCH.unpack(word), layer, band, batch)
            continue
        command = COMMAND.unpack(word)
        op = command["op"]
        if op not in list(Op):
            raise SimulationError(f"control word {word:#06x} is no command; compile again")
        record = RECORDS.get(Op(op))
        if batch is not None and op not in _BETWEEN:
            raise SimulationError(_NO_PART)
        words = reader.controls(command["argument"]) if record else []
        fields = record.unpack(words[:len(record.words)]) if record else {}
        if op in _TOGETHER:
            yield op, fields
        if op in _OWN:
            state.meanwhile.waits(fills=False, writes=True)
        if op == Op.LAYER:
            layer = fields
        elif op == Op.BAND:
            band = fields
        elif op in (Op.TAPS, Op.TILES):
            table = state.taps if op == Op.TAPS else state.tiles
            table[fields["place"]:fields["place"] + len(words) - 1] = words[1:]
        elif op == Op.FILL:
            if not fills:
                raise SimulationError("the first cluster's fills are those of all; compile again")
            slot = layer["residual_slot" if fields["residual"] else "in_slot"]
            _fill(state, fields, int(state.exponents[slot]))


def set_exponent(state: State, found: int, fields: dict[str, int]) -> None:
    """Set a slot's exponent within its bounds; what is written from now on is another output."""
    state.exponents[fields["slot"]] = min(max(found, fields["least"]), fields["most"])
    state.largest = EXPONENT_MIN


def _fill(state: State, record: dict[str, int], exponent: int) -> None:
    """Put lines and channels of a map into the banks, element by element in one go."""
    array, made = state.array, places(record, state.array)
    if record["zero"]:
        mantissas = np.zeros(made.element.shape, np.int64)
    else:
        mantissas, clipped = finish(
            state.main[made.element], exponent, array.activation_bits,
            signed=bool(record["signed"]))
        state.saturated |= bool(clipped.any())
    for first in range(0, array.lanes, array.positions(record["log2_groups"])):
        state.meanwhile.fill(first + made.bank, made.row,
                             None if record["zero"] else made.element)
        state.banks[first + made.bank, made.row] = code(
            mantissas, array.activation_bits, signed=bool(record["signed"]))


@dataclass(kw_only=True)
class Batch:
    """A batch, as far as its parts have come.

    heads : of its rows.   dense : its entries are dense8.   tiles : their fields.
    position : of the band, when it began.
    columns : int64 (groups,), the index that each row has come to.
    sums    : int64 (tiles, groups, phases, P').
    codes   : of what is added, int64 (tiles, groups, P').
    """

    heads: list[dict[str, int]]
    dense: int
    tiles: list[dict[str, int]]
    position: int
    columns: np.ndarray
    sums: np.ndarray
    codes: np.ndarray


def _batch(state: State, reader: Reader, fields: dict[str, int], layer: dict[str, int],
           band: dict[str, int], batch: Batch | None) -> Batch | None:
    """Run a batch, or the next part of one; return it if another part follows."""
    groups = 1 << layer["log2_groups"]
    if (batch is not None) != fields["joins"] or (
            batch is not None and fields["dense"] != batch.dense):
        raise SimulationError(_NO_PART)
    if batch is None:
        batch = _begun(state, reader, fields["dense"], layer, band)
    if (fields["joins"] or fields["open"]) and (
            len(batch.tiles) > 1 or layer["last_phase"] > layer["residual"]):
        raise SimulationError("a batch in parts has several passes; compile again")
    steps = _steps(reader, fields, groups)
    steps[1] = np.cumsum(steps[1], axis=0) + batch.columns
    batch.columns = steps[1, -1]
    for number, tile in enumerate(batch.tiles):
        for group in range(groups):
            for phase in range(layer["residual"], layer["last_phase"] + 1):
                batch.sums[number, group, phase - layer["residual"]] += _sums(
                    state, steps[..., group], group, tile, layer, phase)
    if fields["open"]:
        return batch
    size, position = state.array.lanes // groups, batch.position
    for tile, sums, codes in zip(batch.tiles, batch.sums, batch.codes, strict=True):
        for group, head in enumerate(batch.heads):
            own = tile["written"] >> group * size & (1 << size) - 1
            _store(state, head, _wrapped(state.array, sums[group]) + head["excess"],
                   codes[group], own, position, layer)
        position += (tile["written"] & (1 << size) - 1).bit_count() << layer["wide"]
    return None


def _begun(state: State, reader: Reader, dense: int, layer: dict[str, int],
           band: dict[str, int]) -> Batch:
    """Return a batch of which nothing but heads, and what is added, has been read."""
    groups, signed = 1 << layer["log2_groups"], bool(layer["signed_in"])
    heads = [unpack(state.array, reader.controls(head_words(state.array, signed_in=signed)),
                    signed_in=signed) for _ in range(groups)]
    tiles = []
    for tile in range(band["last_tile"] + 1):
        words_of = state.tiles[band["tile"] + tile * TILE_WORDS:][:TILE_WORDS]
        tiles.append({name: int(value) for word, bits in
                      zip(tile_words(state.array), words_of, strict=True)
                      for name, value in word.unpack(bits).items()})
        tiles[-1]["row"] = tiles[-1]["piece"] * PIECE + band["row"]
    added = _sparse(reader, layer["residual"], groups)
    size, phases = state.array.lanes // groups, layer["last_phase"] + 1 - layer["residual"]
    return Batch(
        heads=heads, dense=dense, tiles=tiles, position=band["position"],
        columns=np.zeros(groups, np.int64),
        sums=np.zeros((len(tiles), groups, phases, size), np.int64),
        codes=np.array([[_sums(state, added[..., group], group, tile, layer, 0)
                         for group in range(groups)] for tile in tiles]))


def _steps(reader: Reader, batch: dict[str, int], groups: int) -> np.ndarray:
    """Return mantissas and column steps of a batch's entries, int64 (2, steps, groups)."""
    count = batch["steps"]
    if not batch["dense"]:
        return _sparse(reader, count, groups)
    pairs = DENSE.unpack(reader.weights(-(-count // 2) * groups).reshape(-1, groups))
    mantissas = np.stack([pairs["low"], pairs["high"]], axis=1).reshape(-1, groups)[:count]
    steps = np.ones_like(mantissas)
    steps[0] = batch["joins"]                   # the first column is column 0
    return np.array([mantissas, steps])


def _sparse(reader: Reader, count: int, groups: int) -> np.ndarray:
    """Return mantissas and column steps of so many steps, int64 (2, steps, groups)."""
    words = WEIGHT.unpack(reader.weights(count * groups)) if count else {}
    return np.array([words.get(name, []) for name in ("mantissa", "step")], np.int64).reshape(
        2, count, groups)


def _sums(state: State, steps: np.ndarray, group: int, tile: dict[str, int],
          layer: dict[str, int], phase: int) -> np.ndarray:
    """Return what steps of a pass (mantissas, column indices) add to the sums of a group's lanes,
    int64 (P',)."""
    array, (mantissas, columns) = state.array, steps
    size = array.lanes >> layer["log2_groups"]
    tap = tap_word(array).unpack(state.taps[
        (columns // BLOCK + phase * layer["tap_step"]) % array.taps])
    lanes = np.arange(size)
    at = tap["rotation"][:, None] + lanes
    rows = ((tile["row"] + tap["piece"] * PIECE + columns % BLOCK)[:, None]
            + at // size * layer["rows"])
    banks, rows = np.broadcast_arrays(group * size + at % size, rows % array.bank_rows)
    codes = state.banks[banks, rows]
    hidden = _hidden(tile, group * size, size)[tap["mask"]]
    counts = ~hidden & (mantissas != 0)[:, None] & (tile["written"] >> group * size + lanes & 1 > 0)
    state.meanwhile.sums(banks[counts], rows[counts])
    nothing = 1 << array.activation_bits - 1 if layer["signed_in"] else 0
    found: np.ndarray = (mantissas[:, None] * np.where(hidden, nothing, codes)).sum(axis=0)
    return found


def _wrapped(array: Array, sums: np.ndarray) -> np.ndarray:
    """Return sums as the accumulators have them."""
    half = 1 << array.sum_bits - 1
    found: np.ndarray = (sums + half) % (2 * half) - half
    return found


def _hidden(tile: dict[str, int], first: int, size: int) -> np.ndarray:
    """Return which lanes of a group read nothing, bool (masks, P')."""
    starts = np.array([*(tile["starts"] >> lane & 1 for lane in range(first, first + size)),
                       tile["behind"]], bool)
    begins, ends = starts[:-1], starts[1:]
    return np.array([np.zeros(size, bool), begins, ends, begins | ends])


def _store(state: State, head: dict[str, int], sums: np.ndarray, codes: np.ndarray, written: int,
           position: int, layer: dict[str, int]) -> None:
    """Write a row's results of one tile: of the sums of each phase, int64 (phases, P'), and the
    codes of what is added."""
    array = state.array
    lanes = np.flatnonzero([written >> lane & 1 for lane in range(len(codes))])
    if not head["real"] or not lanes.size:
        return
    bits = array.activation_bits
    fraction = bits - 2 if layer["signed_in"] else bits - 1
    unit = head["sw"] + int(state.exponents[layer["in_slot"]]) - fraction
    bias = scale_rne(np.array([head["bias"]]), head["sb"] + head["sw"] - unit, OUTPUT_BITS)
    at = (head["word"] * ENTRY_WORDS + head["element"]
          + position + (np.arange(len(lanes)) << layer["wide"]))
    state.meanwhile.store(at)
    values = [phase[lanes] + bias for phase in sums]
    if layer["residual"]:
        signed = layer["residual_signed"]
        weight = code_weight(signed_out=bool(layer["signed_out"]))
        mantissas = codes[lanes] // weight - (signed << bits - 1)
        shift = int(state.exponents[layer["residual_slot"]]) - (bits - 1 - signed) - unit
        values = [value + clip(scale_rne(mantissas, shift, bits), (1 << array.acc_bits - 3) - 1)[0]
                  for value in values]
    result = np.max(values, axis=0)
    if layer["relu"]:
        result = np.maximum(result, 0)
    if layer["wide"]:
        state.meanwhile.store(at + 1)
        state.main[at], state.main[at + 1] = halves(result)
        return
    elements = to_odd(result, unit, signed=bool(layer["signed_out"]))
    if layer["clamp"]:
        elements = _clamped(elements, layer)
    state.main[at] = elements
    state.largest = max(state.largest, int(exponent_of(elements).max()))
    assert state.largest <= EXPONENT_MAX


def _clamped(elements: np.ndarray, layer: dict[str, int]) -> np.ndarray:
    """Return elements within a bound and its opposite; their bits have the numbers' order."""
    sign = SIGN if layer["signed_out"] else 0
    magnitude = np.minimum(elements & ~sign, layer["bound"])
    limited: np.ndarray = magnitude | elements & sign
    return limited
