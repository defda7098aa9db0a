"""What the machine will do with a program, in words: read back out of the memory images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from celosia.disassembly import LayerWords, layer_words
from celosia_spec.isa import DESCRIPTOR, DESCRIPTOR_WORDS, Space, memory_of
from celosia_spec.program import Place, Program


@dataclass(frozen=True, kw_only=True)
class Region:
    """Some addresses of a memory.

    memory      : its name.   holds : what stands there.   first, last : addresses, both of it.
    depth       : addresses that a program may use.
    """

    memory: str
    holds: str
    first: int
    last: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """One field of a descriptor: index of its word, lowest bit there, value, and what it says."""

    word: int
    low: int
    bits: int
    name: str
    value: int
    about: str


@dataclass(frozen=True, kw_only=True)
class LayerExplained:
    """A layer as the machine meets it.

    groups, lanes     : row groups, and lanes of each.
    batches, tiles, windows, passes : of the layer; a pass is one of each.
    steps, waits      : of a pass of each batch, cycles.
    issued, waited    : of all passes.
    weights, padding  : weight words that hold a weight, and those that hold none; copies once.
    descriptor        : every field.   does : the same in sentences.
    regions           : where its words stand.
    """

    name: str
    kind: str
    groups: int
    lanes: int
    batches: int
    tiles: int
    windows: int
    passes: int
    steps: tuple[int, ...]
    waits: tuple[int, ...]
    issued: int
    waited: int
    weights: int
    padding: int
    descriptor: tuple[Line, ...]
    does: tuple[str, ...]
    regions: tuple[Region, ...]


def explain(program: Program) -> list[LayerExplained]:
    """Return what each descriptor of a program makes the machine do."""
    return [_layer(program, number, words) for number, words in enumerate(layer_words(program))]


def memory_map(program: Program, layers: list[LayerExplained]) -> list[Region]:
    """Return where everything stands, memory by memory: words of the layers, then tensors."""
    found = [region for layer in layers for region in layer.regions]
    for name, place in program.places.items():
        if place.addresses.size:
            found.append(_region(program, place.space, f"{name}, {_made(program, place)}",
                                 place.addresses))
    found.append(_region(program, Space.EXPONENTS, "block exponents of all tensors",
                         np.array(list(program.slots.values()))))
    return sorted(found, key=lambda region: (Space[region.memory.upper()], region.first))


def _made(program: Program, place: Place) -> str:
    return "the input" if place.written < 0 else f"of {program.graph.nodes[place.written].name}"


def _region(program: Program, space: Space, holds: str, addresses: np.ndarray) -> Region:
    memory = memory_of(space)
    return Region(memory=memory.name, holds=holds, first=int(addresses.min()),
                  last=int(addresses.max()), depth=memory.depth(program.array))


def _layer(program: Program, number: int, words: LayerWords) -> LayerExplained:
    fields, node = words.fields, program.graph.nodes[number]
    held = int(np.count_nonzero(words.mantissas))
    lines = tuple(
        Line(word=word, low=low, bits=field.bits, name=field.name, value=fields[field.name],
             about=field.about)
        for field in DESCRIPTOR.fields for word, low in [DESCRIPTOR.places[field.name]])
    return LayerExplained(
        name=node.name, kind=node.kind, groups=words.groups, lanes=words.size,
        batches=words.batches, tiles=words.tiles, windows=words.windows, passes=words.passes,
        steps=tuple(words.steps.tolist()), waits=tuple(words.waits.tolist()),
        issued=words.issued, waited=words.waited, weights=held,
        padding=words.mantissas.size - held, descriptor=lines,
        does=tuple(_sentences(program, words)),
        regions=tuple(_regions(program, number, node.name, words)))


def _regions(program: Program, number: int, name: str, words: LayerWords) -> Iterator[Region]:
    """Where a layer's words stand."""
    fields, begin = words.fields, number * DESCRIPTOR_WORDS
    places = [
        (Space.PROGRAM, "descriptor", begin + np.arange(DESCRIPTOR_WORDS)),
        (Space.PROGRAM, "batch words", fields["length_base"] + np.arange(words.batches)),
        (Space.WEIGHTS, "weights", fields["weight_base"] * program.array.groups_max
         + np.arange(words.words)),
        (Space.ROWS, "rows", fields["row_base"] + np.arange(words.batches * words.groups)),
        (Space.TAPS, "taps", words.entries),
        (Space.WRITES, "writes", fields["write_base"] + np.arange(words.writes))]
    for space, what, addresses in places:
        if addresses.size:
            yield _region(program, space, f"{name}: {what}", addresses)


def _sentences(program: Program, words: LayerWords) -> Iterator[str]:
    """A layer's descriptor in sentences."""
    fields, tensor = words.fields, {slot: name for name, slot in program.slots.items()}
    yield (f"{_count(words.groups, 'row group')} of {words.size} lanes: "
           f"{_count(words.batches, 'batch', 'batches')} of a row a group, "
           f"{_count(words.tiles, 'tile')} of {words.size} positions for the {words.positions} of "
           f"each row, {_count(words.windows, 'pool window')}: {words.passes:,} passes.")
    yield (f"A pass takes {_range(words.steps)} steps, {words.issued:,} in all; passes wait "
           f"{words.waited:,} cycles, so that sums never leave too early.")
    yield (f"It reads {tensor[fields['input_slot']]} in the banks from row {fields['in_base']}, "
           f"{_count(fields['in_channels'], 'row')} a position group, lines of "
           f"{_count(fields['line'], 'position')}.")
    if fields["clear_rows"]:
        yield (f"Bank rows from {fields['clear_base']} on are cleared before, "
               f"{fields['clear_rows']} of them.")
    if fields["residual_read"]:
        yield (f"It adds {tensor[fields['residual_slot']]}, from beat {fields['residual_from']} of "
               f"the residual store.")
    what = "; ".join(field.about for field in DESCRIPTOR.fields
                     if field.name not in _SAID and field.bits == 1 and fields[field.name])
    if what:
        yield f"{what[0].upper()}{what[1:]}."
    output = tensor[fields["output_slot"]]
    if fields["keep"]:
        rule = "that of its input"
    elif fields["static"]:
        rule = f"fixed at {fields['exponent']}"
    else:
        rule = f"that of its largest magnitude, at least {fields['least_exponent']}"
    yield f"The block exponent of {output} is {rule}."
    if fields["residual_write"]:
        yield (f"{output} goes to the residual store too, from beat "
               f"{fields['residual_to']} on.")
    if not fields["wide"]:
        how = "as they drain" if fields["direct"] else "in a normalising walk"
        yield (f"Results are written to the banks {how}, for a reader of "
               f"{_count(1 << fields['log2_out_groups'], 'row group')}.")


_SAID = {"keep", "static", "residual_read", "residual_write", "direct", "jump", "deinterleave"}
"""Fields of one bit that have a sentence of their own, or say nothing that sentences tell."""


def _count(number: int, one: str, more: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def _range(numbers: np.ndarray) -> str:
    least, most = int(numbers.min()), int(numbers.max())
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"
