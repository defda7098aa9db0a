"""The walks over output beats, the output stage's arithmetic, and writes into the banks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from celosia_spec.isa import ArrayConfig


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Write-table entry: ``count`` elements go to ``bank`` and the banks behind it, in ``row``."""

    count: int
    bank: int
    row: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What the walks depend on. ``entries[k]`` are those of the k-th placed beat of a batch."""

    array: ArrayConfig
    log2_groups: int
    batches: int
    tiles: int
    phases: int
    positions: int
    row_base: int
    write_base: int
    write_step: int
    direct: bool
    wide: bool
    entries: Sequence[Sequence[Entry]] = field(default=())

    @property
    def fields(self) -> dict[str, int]:
        """The descriptor's fields that the walks read."""
        return {"log2_groups": self.log2_groups, "last_batch": self.batches - 1,
                "last_tile": self.tiles - 1, "last_phase": self.phases - 1,
                "last_position": self.positions - 1, "row_base": self.row_base,
                "write_base": self.write_base, "write_step": self.write_step,
                "direct": self.direct, "wide": self.wide}

    @property
    def groups(self) -> int:
        return 1 << self.log2_groups

    @property
    def size(self) -> int:
        """Positions of a tile."""
        return self.array.lanes // self.groups

    @property
    def group_beats(self) -> int:
        return self.size // self.array.beat

    def beats(self, tile: int, skip: bool) -> list[tuple[int, int]]:
        """Return (group, beat in the group) in the order of the walk. ``skip``: leave out beats
        behind a group's first that hold no output position."""
        left = self.positions - tile * self.size
        return [(group, inside) for group in range(self.groups)
                for inside in range(self.group_beats)
                if not skip or inside == 0 or inside * self.array.beat < left]

    def valid(self, tile: int, inside: int) -> list[bool]:
        """Return which elements of a beat are output positions."""
        first = tile * self.size + inside * self.array.beat
        return [first + e < self.positions for e in range(self.array.beat)]

    @property
    def placed_beats(self) -> int:
        """Placed beats of a batch."""
        return sum(len(self.beats(tile, not self.direct)) for tile in range(self.tiles))


@dataclass(frozen=True, kw_only=True)
class Cycle:
    """One cycle of a walk; ``place`` is None where nothing is placed."""

    batch: int
    tile: int
    phase: int
    group: int
    inside: int
    row: int
    store: int
    valid: Sequence[bool]
    first_phase: bool
    final: bool
    place: Entry | None
    place_last: bool
    element: int
    beat_done: bool
    done: bool = False


def _beat(layer: Layer, at: tuple[int, int, int, int, int], final: bool,
          entries: Sequence[Entry] | None) -> Iterator[Cycle]:
    """Yield the cycles of one beat; ``entries`` is None where it is not placed."""
    batch, tile, phase, group, inside = at
    common = Cycle(
        batch=batch, tile=tile, phase=phase, group=group, inside=inside,
        row=layer.row_base + batch * layer.groups + group,
        store=((batch * layer.tiles + tile) * layer.array.pass_beats
               + group * layer.group_beats + inside),
        valid=layer.valid(tile, inside), first_phase=phase == 0, final=final, place=None,
        place_last=False, element=0, beat_done=True)
    if entries is None:
        yield common
        return
    element = 0
    for number, entry in enumerate(entries):
        last = number == len(entries) - 1
        row = (entry.row + batch * layer.write_step) % (1 << layer.array.bank_row_bits)
        yield replace(common, place=replace(entry, row=row), place_last=last, beat_done=last,
                      element=element)
        element += entry.count


def draining(layer: Layer) -> list[list[Cycle]]:
    """Return the cycles of every pass's walk."""
    passes = []
    for batch in range(layer.batches):
        entries = iter(layer.entries)
        for tile in range(layer.tiles):
            for phase in range(layer.phases):
                final = phase == layer.phases - 1
                placed = layer.direct and final
                passes.append([
                    cycle for group, inside in layer.beats(tile, skip=False)
                    for cycle in _beat(layer, (batch, tile, phase, group, inside), final,
                                       next(entries) if placed else None)])
    passes[-1][-1] = replace(passes[-1][-1], done=True)
    return passes


def normalising(layer: Layer) -> list[Cycle]:
    """Return the cycles of the normalising walk."""
    cycles: list[Cycle] = []
    for batch in range(layer.batches):
        entries = iter(layer.entries)
        for tile in range(layer.tiles):
            for group, inside in layer.beats(tile, skip=True):
                cycles += _beat(layer, (batch, tile, 0, group, inside), True,
                                None if layer.wide else next(entries))
    cycles[-1] = replace(cycles[-1], done=True)
    return cycles


def bank_writes(array: ArrayConfig, entry: Entry, element: int, mantissas: Sequence[int],
                real: Sequence[bool], *, groups: int, carry: int, plane: int,
                deinterleave: bool) -> dict[int, tuple[int, int]]:
    """Return {bank: (row, mantissa)} of one write-table entry.

    groups : of the consumer; every one gets a copy.   carry, plane : bank rows.
    """
    size, beat = array.lanes // groups, array.beat
    order = [*range(0, beat, 2), *range(1, beat, 2)] if deinterleave else list(range(beat))
    writes = {}
    for k in range(entry.count):
        number = (element + k) % beat
        source, bank, row = order[number], entry.bank + k, entry.row
        if bank >= size:
            bank, row = bank - size, row + carry
        if deinterleave and number >= beat // 2:
            row += plane
        if real[source]:
            for group in range(groups):
                writes[group * size + bank] = (row % (1 << array.bank_row_bits),
                                               mantissas[source])
    return writes
