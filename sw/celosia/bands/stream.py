"""The stream of a network: control words, weight entries, and the order in which they are read."""

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np

from celosia.bands.batches import Batches, batches
from celosia.bands.copies import Copies, Section
from celosia.bands.counting import RECORD
from celosia.bands.entries import (
    Chunk,
    Entries,
    Lists,
    Order,
    Stream,
    command,
    controls,
    table,
)
from celosia.bands.filling import Place, records
from celosia.bands.layouts import Band, tap_step
from celosia.bands.pages import beside_words
from celosia.bands.plan import Layer
from celosia.bands.regions import Region
from celosia.bands.tiles import TileTable
from celosia_spec.block import floor_log2
from celosia_spec.errors import CompileError
from celosia_spec.floats import to_odd
from celosia_spec.isa.array import PIECE, Array
from celosia_spec.isa.controls import HEAD, Op
from celosia_spec.isa.fills import QUEUED, accesses, cycles
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS
from celosia_spec.isa.words import TILE_WORDS, tap_word
from celosia_spec.qgraph import QGraph, QNode, as_made
from celosia_spec.steps import Ring, first_line, stored_name


def weights(graph: QGraph, layers: Sequence[Layer], array: Array) -> list[list[Batches]]:
    """Return the batches of each layer's parts."""
    return [[batches(graph, layer, part, array) for part in layer.parts] for layer in layers]


def stream(graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
           places: dict[str, Region], slots: dict[str, int], reads: dict[str, int],
           array: Array, flash: Copies, units: Mapping[Section, int], period: int = 1) -> Stream:
    """Return the stream of a network.

    made : the layers' `weights`.   places : region of every tensor.   slots : its exponent's.
    reads : of what each node reads.   flash : whose batches are copied.   units : of flash, of
    what is copied.   period : steps, each with an order of its own. How long it is depends on none
    of places, slots, reads, and units.
    """
    found = Stream(layers=[0] * len(layers), begins=[0] * len(layers))
    weights: dict[QNode, dict[int, Chunk]] = {node: {} for node in graph.nodes}

    def copy(at: int, k: int) -> list[int]:
        return command(Op.COPY, unit=units.get(flash.commands[at, k][0], 0)) if (
            at, k) in flash.commands else []
    for step in range(period):
        found.orders.append(Lists([Order() for _ in range(array.clusters)]))
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
                begins = _layer(
                    found.order, holds, [copy(at, k) for k in range(len(holds))],
                    flash.parts[at].begins[1:] if at in flash.parts else (), graph, layer, made[at],
                    places, slots, reads[layer.node.name], array, step, period,
                    weights[layer.node])
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


def _layer(out: Lists, holds: Sequence[Entries], copies: Sequence[list[int]],
           begins: Sequence[int], graph: QGraph, layer: Layer, made: Sequence[Batches],
           places: dict[str, Region], slots: dict[str, int], read: int, array: Array,
           step: int, period: int, weights: dict[int, Chunk]) -> int:
    """Add a layer's entries for a step to where they are held, and read them; what it has in common
    with other steps is there once. Return how many were added before the first band.

    holds : its sections.   copies : the words that stand behind each.   begins : the numbers of the
    parts with which those behind the first one begin.   weights : the batches of its parts, if they
    are there.
    """
    roles = count()
    sections = iter(zip(holds, copies, strict=True))
    here, behind = next(sections)

    def read_controls(words: list[int], filled: Sequence[dict[str, int]] = (),
                      own: Sequence[list[int]] = ()) -> None:
        """Let clusters read commands: the same, then the first one's fills, then its own."""
        role = layer.node.name, next(roles)
        for cluster, order in enumerate(out.clusters):
            told = [*words, *(_fills(filled) if cluster == 0 else ()),
                    *(own[cluster] if own else ())]
            order.read(here.add(controls(told), role))

    node, place = layer.node, places[layer.node.output]
    result = as_made(graph.tensors, node)
    tiles = TileTable()
    table_of = {}
    for band in sorted(layer.bands, key=lambda band: -band.tiles):      # longer ones hold others
        own = layer.layout.tiles(band.stretch.lines).some(band.tile, band.tiles)
        first, row = tiles.add(own)
        table_of[band] = first, (band.stretch.row + row) % array.bank_rows
    fills = [_records(graph, layer, band, places, array, step) for band in layer.bands]
    turn = first_line(graph.tensors, node.input, step) if layer.layout.around else 0
    taps = _taps(layer, array, turn)
    before = here.size
    begin = (
        table(Op.TILES, tiles.words(array, layer.groups)) + _join(node, slots, read)
        + _fields(graph, layer, places, slots, read, array))
    if period > 1:
        read_controls(taps)
        read_controls(begin)
        read_controls([], fills[0])
    elif array.clusters > 1:
        read_controls(taps + begin)
        read_controls([], fills[0])
    else:
        read_controls(taps + begin, fills[0])
    begun = here.size - before
    width, line = result.shape[2], first_line(graph.tensors, node.output, step)
    paged = beside_words(layer.layout)
    following = iter(zip(layer.bands[1:], fills[1:], strict=True))
    left: list[dict[str, int]] = []
    for number, (part, made_here) in enumerate(zip(layer.parts, made, strict=True)):
        waiting: list[dict[str, int]] = []
        if number in begins:
            waiting = left
            if behind:      # all of the section has been read
                read_controls(behind)
            here, behind = next(sections)
            out.wait()
        for band in part.bands:
            shares = [layer.share(band, cluster) for cluster in range(array.clusters)]
            written = layer.layout.tiles(band.stretch.lines).written
            first, row = table_of[band]
            read_controls(command(Op.WAIT) if waiting else [], waiting, [command(
                Op.BAND, row=row, tile=(first + share.start - band.tile) * TILE_WORDS,
                last_tile=max(len(share), 1) - 1,
                position=(line + band.stretch.line) * width + int(
                    written[:share.start].sum()) << place.wide) for share in shares])
            waiting = []
            if number not in weights:
                weights[number] = here.add(made_here.entries(graph, layer, part, places, array))
            after, left = next(following, (None, []))
            # The next band is filled beside this one's batches, where it has other rows.
            beside = after is not None and after.beside
            passes = (part.passes[layer.batches(part, 0)] * len(shares[0])).tolist()
            if beside and (ahead := _ahead(left, passes, layer.groups, array)):
                read_controls([], left[:ahead])
                left = left[ahead:]
            turns = _turns(left, passes, array) if beside else {}
            at = weights[number][0] + np.cumsum([0, *made_here.sizes])
            for cluster, order in enumerate(out.clusters):
                batches = layer.batches(part, cluster) if shares[cluster] else []
                for number_here, batch in enumerate(batches):
                    order.read((int(at[batch]), made_here.sizes[batch]))
                    if cluster == 0 and (filled := turns.get(number_here, 0)):
                        read_controls([], left[:filled])
                        left = left[filled:]
            if paged and array.clusters > 1:
                turned = here.add(controls(paged), (layer.node.name, -1))
                for order in out.clusters[1:]:
                    for _ in made_here.sizes:
                        order.read(turned)
            if left and not (band is part.bands[-1] and number + 1 in begins):
                read_controls(command(Op.WAIT), left)
    read_controls(_close(graph, node, slots, read))
    return begun


def _ahead(waiting: list[dict[str, int]], passes: list[int], groups: int, array: Array) -> int:
    """Return how many fills stand before a band's first batch, so that they and its batches are
    done first: they begin sooner then, and the batches later."""
    if not passes:
        return 0
    takes = [cycles(record, array) for record in waiting]

    def ends(ahead: int) -> int:
        now = filled = 0
        for number, own in enumerate(takes):
            if number == ahead:
                now += groups * len(HEAD.words)
            now += RECORD
            filled = max(filled, now) + own
        return max(filled, ahead * RECORD + groups * len(HEAD.words) + sum(passes))
    return min(range(min(len(waiting), QUEUED) + 1), key=ends)


def _turns(waiting: list[dict[str, int]], passes: list[int],
           array: Array) -> dict[int, int]:
    """Return how many fills stand behind which batches, whose passes take so many cycles: as early
    as can be, but so that no batch waits behind one for which there is no room yet."""
    found: dict[int, int] = {}
    done: list[int] = []
    now = 0
    for batch, own in enumerate(passes):
        count = 0
        while len(done) < len(waiting) and (batch == len(passes) - 1 or (
                (count + 1) * RECORD <= own
                and (len(done) < QUEUED or done[-QUEUED] <= now))):
            record = waiting[len(done)]
            # Half of the port is somebody else's, about.
            done.append(max([now, *done[-1:]]) + cycles(record, array)
                        + accesses(record, array))
            count += 1
        if count:
            found[batch] = count
        now += own
    return found


def _join(node: QNode, slots: dict[str, int], read: int) -> list[int]:
    """Return what sets the exponent of a reading."""
    first, *others = ((slots[name], 0) for name in node.inputs)
    if node.room is not None:
        others.append((slots[node.epilogue.add or ""], node.room))
    words, held = [], first[0]
    for other, room in others:
        words += command(Op.JOIN, slot=read, first=held, second=other, room=room, least=node.least,
                         most=EXPONENT_MAX)
        held = read
    return words


def _close(graph: QGraph, node: QNode, slots: dict[str, int], read: int) -> list[int]:
    """Return what gives the output its exponent."""
    rule, slot = graph.tensors[node.output].exponent, slots[node.output]
    if rule.keeps is not None:
        return command(Op.JOIN, slot=slot, first=read, second=read, least=EXPONENT_MIN,
                       most=EXPONENT_MAX)
    if rule.fixed is not None:
        return command(Op.CLOSE, slot=slot, least=rule.fixed, most=rule.fixed)
    return command(Op.CLOSE, slot=slot, least=rule.least, most=EXPONENT_MAX)


def _taps(layer: Layer, array: Array, turn: int) -> list[int]:
    phases = layer.layout.phases(turn)
    return [word for k, taps in enumerate(phases) for word in table(Op.TAPS, [
        tap_word(array).pack(piece=row % array.bank_rows // PIECE, rotation=bank, mask=mask)
        for row, bank, mask in taps], k * tap_step(phases))]


def _fields(graph: QGraph, layer: Layer, places: dict[str, Region], slots: dict[str, int],
            read: int, array: Array) -> list[int]:
    node = layer.node
    source, result = graph.tensors[node.input], graph.tensors[node.output]
    add, pool = node.epilogue.add, node.epilogue.pool
    activation = node.epilogue.activation
    high = activation.bounds[1]
    clamped = activation.clamps
    values = {
        "log2_groups": layer.log2_groups, "signed_in": source.signed,
        "signed_out": result.signed, "relu": activation.bounds[0] == 0,
        "wide": places[node.output].wide, "clamp": clamped, "in_slot": read,
        "rows": layer.layout.depth % array.bank_rows,
        "tap_step": tap_step(layer.layout.phases()) % array.taps,
    }
    if pool is not None:
        values["last_phase"] = pool.window[0] * pool.window[1] - 1
    if clamped:         # what is beyond the bound is not written: no exponent is above the bound's
        exponent = int(floor_log2(np.array(high)))
        unit = exponent - (SIGNIFICAND_BITS - 2)
        values["bound"] = int(to_odd(np.array([int(high * 2.0 ** -unit)]), unit,
                                     signed=result.signed)[0])
    if add is not None:
        values |= {"residual": 1, "residual_slot": slots[add],
                   "residual_signed": graph.tensors[add].signed, "last_phase": 1}
    return command(Op.LAYER, **{name: int(value) for name, value in values.items()})


def _records(graph: QGraph, layer: Layer, band: Band, places: dict[str, Region], array: Array,
             step: int) -> list[dict[str, int]]:
    node = layer.node
    return records(graph, node, layer.layout, band, {
        name: _place(graph, places, layer, name, step)
        for name in (*node.inputs, node.epilogue.add) if name is not None}, array,
        log2_groups=layer.log2_groups)


def _place(graph: QGraph, places: dict[str, Region], layer: Layer, name: str, step: int) -> Place:
    """Return where what a node reads lies in a step."""
    held = stored_name(graph.tensors, name)
    region, tensor = places[held], graph.tensors[held]
    if layer.layout.around and name != layer.node.epilogue.add:
        return Place(region.word, region.stride)
    return Place(region.word, region.stride, first_line(graph.tensors, name, step),
                 tensor.lines if isinstance(tensor, Ring) else 0)


def _fills(made: Sequence[dict[str, int]]) -> list[int]:
    return [word for record in made for word in command(Op.FILL, **record)]
