"""What the commands of a layer say: its fields, its taps, its fills, and exponents around it."""

import numpy as np

from celosia.bands.entries import command, table
from celosia.bands.filling import Place, records
from celosia.bands.laid import Laid
from celosia.bands.layouts import Band, tap_step
from celosia.bands.plan import Layer
from celosia_spec.block import floor_log2
from celosia_spec.floats import to_odd
from celosia_spec.isa.array import PIECE, Array
from celosia_spec.isa.controls import Op
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN, SIGNIFICAND_BITS
from celosia_spec.isa.words import tap_word
from celosia_spec.steps import Ring, first_line, stored_name


def taps(layer: Layer, array: Array, turn: int) -> list[int]:
    """Return what writes a layer's taps, where its input begins with line ``turn``."""
    phases = layer.layout.phases(turn)
    return [word for k, own in enumerate(phases) for word in table(Op.TAPS, [
        tap_word(array).pack(piece=row % array.bank_rows // PIECE, rotation=bank, mask=mask)
        for row, bank, mask in own], k * tap_step(phases))]


def join(network: Laid, layer: Layer) -> list[int]:
    """Return what sets the exponent at which a layer reads."""
    node, slots, read = layer.node, network.slots, network.reads[layer.node.name]
    first, *others = ((slots[name], 0) for name in node.inputs)
    if node.room is not None:
        others.append((slots[node.epilogue.add or ""], node.room))
    words, held = [], first[0]
    for other, room in others:
        words += command(Op.JOIN, slot=read, first=held, second=other, room=room, least=node.least,
                         most=EXPONENT_MAX)
        held = read
    return words


def fields(network: Laid, layer: Layer) -> list[int]:
    """Return what tells the machine of a layer."""
    node, tensors, array = layer.node, network.graph.tensors, network.array
    source, result = tensors[node.input], tensors[node.output]
    add, pool = node.epilogue.add, node.epilogue.pool
    activation = node.epilogue.activation
    high = activation.bounds[1]
    clamped = activation.clamps
    values = {
        "log2_groups": layer.log2_groups, "signed_in": source.signed,
        "signed_out": result.signed, "relu": activation.bounds[0] == 0,
        "wide": network.places[node.output].wide, "clamp": clamped,
        "in_slot": network.reads[node.name],
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
        values |= {"residual": 1, "residual_slot": network.slots[add],
                   "residual_signed": tensors[add].signed, "last_phase": 1}
    return command(Op.LAYER, **{name: int(value) for name, value in values.items()})


def fills(network: Laid, layer: Layer, band: Band, step: int) -> list[dict[str, int]]:
    """Return the records that fill a band in a step."""
    node = layer.node
    return records(network.graph, node, layer.layout, band, {
        name: _place(network, layer, name, step)
        for name in (*node.inputs, node.epilogue.add) if name is not None}, network.array,
        log2_groups=layer.log2_groups)


def _place(network: Laid, layer: Layer, name: str, step: int) -> Place:
    """Return where what a node reads lies in a step."""
    tensors = network.graph.tensors
    held = stored_name(tensors, name)
    region, tensor = network.places[held], tensors[held]
    if layer.layout.around and name != layer.node.epilogue.add:
        return Place(region.word, region.stride)
    return Place(region.word, region.stride, first_line(tensors, name, step),
                 tensor.lines if isinstance(tensor, Ring) else 0)


def close(network: Laid, layer: Layer) -> list[int]:
    """Return what gives a layer's output its exponent."""
    node, read = layer.node, network.reads[layer.node.name]
    rule, slot = network.graph.tensors[node.output].exponent, network.slots[node.output]
    if rule.keeps is not None:
        return command(Op.JOIN, slot=slot, first=read, second=read, least=EXPONENT_MIN,
                       most=EXPONENT_MAX)
    if rule.fixed is not None:
        return command(Op.CLOSE, slot=slot, least=rule.fixed, most=rule.fixed)
    return command(Op.CLOSE, slot=slot, least=rule.least, most=EXPONENT_MAX)
