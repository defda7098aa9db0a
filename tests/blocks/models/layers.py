"""Random layers that fit an array's tables, for tests of the walks."""

import random
from dataclasses import replace

from blocks.models.writing import Entry, Layer
from celosia_spec.isa import ArrayConfig, write_word


def random_layer(array: ArrayConfig, rng: random.Random) -> Layer:
    """Return a layer of random geometry and write-table entries; one position where it is wide and
    the array rounds only one element of a beat to 16 bits."""
    log2_groups = rng.randrange(array.groups_max.bit_length())
    size, groups = array.lanes >> log2_groups, 1 << log2_groups
    batches = rng.randrange(1, 4)
    tiles = rng.randrange(1, min(4, array.store_beats // (array.pass_beats * batches)) + 1)
    direct = rng.random() < 0.4
    wide = not direct and rng.random() < 0.3
    positions = (tiles - 1) * size + rng.randrange(1, size + 1)
    if wide and array.wide_elements == 1:
        tiles, positions = 1, 1
    layer = Layer(
        array=array, log2_groups=log2_groups, batches=batches, tiles=tiles,
        phases=rng.choice([1, 1, 2, 4]), positions=positions,
        row_base=rng.randrange(array.table_rows - batches * groups + 1),
        write_base=rng.randrange(16), write_step=rng.randrange(array.bank_rows), direct=direct,
        wide=wide)
    return replace(layer, entries=[_entries(array, rng) for _ in range(layer.placed_beats)])


def _entries(array: ArrayConfig, rng: random.Random) -> list[Entry]:
    """Return the entries of one beat: up to ``beat`` elements in one or more pieces."""
    left = array.beat
    entries: list[Entry] = []
    while left and (not entries or rng.random() < 0.5):
        count = rng.randrange(1, left + 1)
        left -= count
        entries.append(Entry(count=count, bank=rng.randrange(array.lanes),
                             row=rng.randrange(array.bank_rows)))
    return entries


def table_words(layer: Layer) -> list[tuple[int, int]]:
    """Return address and word of every write-table entry of ``layer``."""
    words = [write_word(layer.array).pack(last=number == len(beat) - 1, count=entry.count,
                                          bank=entry.bank, row=entry.row)
             for beat in layer.entries for number, entry in enumerate(beat)]
    assert layer.write_base + len(words) <= layer.array.writes
    return list(enumerate(words, layer.write_base))
