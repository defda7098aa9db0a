"""Layers that are copied from flash, and when: as early as main memory has room for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

from celosia.bands.lives import Life
from celosia.bands.packing import Need, Packing
from celosia.bands.parts import Parted
from celosia.bands.plan import Layer
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import COPIES
from celosia_spec.isa.image import UNIT_WORDS, copy_cycles

Section = tuple[int, int]
"""A layer and which of its sections: they are in flash, and are copied, in this order."""

Needs = dict[str | int, Need]
"""What maps and the entries of layers need, by names and numbers."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Layers whose entries are copied from flash; layers by their numbers.

    maps  : first word of every tensor.   words : where the entries of each layer that is copied
    begin.   parts : of layers that run in parts, also of such that are not copied.
    runs  : layers that are copied one behind the other, by the layer at whose begin; behind one in
    parts, when its last section has been copied.
    waits : cycles that layers wait for their entries, counted.
    """

    maps: dict[str, int]
    words: dict[int, int] = field(default_factory=dict)
    parts: dict[int, Parted] = field(default_factory=dict)
    runs: dict[int, list[int]] = field(default_factory=dict)
    waits: int = 0

    @property
    def lives(self) -> dict[int, Life]:
        """When the entries of each layer that is copied are in main memory, or come there."""
        return {layer: Life(at, layer) for at, run in self.runs.items() for layer in run}

    def cycles(self, layers: Sequence[Layer]) -> int:
        """Return the cycles that all layers are counted to take, those in which they wait with
        them."""
        return self.waits + sum(self.parts[at].layer.cycles if at in self.parts else layer.cycles
                                for at, layer in enumerate(layers))

    def sections(self, layer: int) -> list[Section]:
        """Return the sections of a layer that is copied."""
        return _sections(layer, self.parts)

    def heads(self, layer: int) -> list[Section]:
        """Return those that are copied before the first one is read."""
        return _heads(layer, self.parts)

    def first(self, section: Section) -> int:
        """Return the word of main memory in which a section begins."""
        layer, k = section
        parted = self.parts.get(layer)
        return self.words[layer] + (
            0 if parted is None else (k - parted.resident) % parted.places * parted.room)

    @cached_property
    def commands(self) -> dict[Section, list[Section]]:
        """The sections that a command copies: one behind a section, or at the begin of a layer,
        which stands for section -1."""
        return {(at, k - 1): way for at in self.runs.keys() | self.parts
                for k, way in enumerate(_ways(at, self.runs.get(at, []), self.parts)) if way}


def _sections(layer: int, parts: Mapping[int, Parted]) -> list[Section]:
    return [(layer, k) for k in (parts[layer].copied if layer in parts else (0,))]


def _heads(layer: int, parts: Mapping[int, Parted]) -> list[Section]:
    return _sections(layer, parts)[:parts[layer].places if layer in parts else 1]


def _ways(at: int, run: Sequence[int], parts: Mapping[int, Parted]) -> list[list[Section]]:
    """Return what is copied at the begin of a layer, and behind each of its sections."""
    heads = _heads(at, parts)
    found = [heads if at in run else []]
    if at in parts and len(parts[at].copied) > len(heads):
        found += [[]] * parts[at].resident
        found += [[section] for section in _sections(at, parts)[len(heads):]]
    found[-1] = found[-1] + [head for of in run if of != at for head in _heads(of, parts)]
    return found


class Schedule:
    """When sections are copied: as early as main memory has room for them, in the order in which
    they are used, and without a layer that waits because the reader is still busy."""

    def __init__(self, needs: Needs, layers: Sequence[Layer], entries: Sequence[int],
                 first: int, array: Array, rest: int, parts: Mapping[int, Parted],
                 most: int | None) -> None:
        self.array, self.layers, self.parts, self.most = array, layers, dict(parts), most
        self.entries = [len(_heads(at, parts)) * parts[at].room if at in parts else count
                        for at, count in enumerate(entries)]
        self.left = [at for at in range(first, len(layers)) if self.entries[at]]
        self.packing: Packing[str | int] = Packing(
            {**needs, **{at: _need(self.entries[at], Life(at, at)) for at in self.left}}, rest)
        self.begins = [0, *accumulate(layer.cycles for layer in layers)]
        self.ahead = copy_cycles(array, 0)
        self.free = self.waits = 0
        self.ready: dict[Section, int] = {}

    def run(self) -> Copies | None:
        """Return what is copied when; None where it does not fit, or takes too long."""
        if self._found() is None:
            return None
        now = 0
        runs: dict[int, list[int]] = {}
        for at, layer in enumerate(self.layers):
            run = []
            if self.most is not None and self._least_waits(now) >= self.most:
                return None
            if self.free <= now or at in self.left or at in self.parts:
                run = self._next(at)
            if run:
                runs[at] = run
            begin, *behind = _ways(at, run, self.parts)
            now = self._copy(begin, now)
            shares: Sequence[float] = (1.0,)
            if at in self.parts:
                layer, shares = self.parts[at].layer, self.parts[at].shares
            for k, share in enumerate(shares):
                late = max(0, self.ready.get((at, k), 0) - now)
                self.waits, now = self.waits + late, now + late + int(layer.cycles * share)
                if k < len(behind):
                    now = self._copy(behind[k], now)
        found = self._found()
        assert found is not None and not self.left
        words = {name: word for name, word in found.items() if isinstance(name, int)}
        return Copies(maps=maps_of(found), words=words, parts=self.parts, runs=runs,
                      waits=self.waits)

    def _least_waits(self, now: int) -> int:
        """Return how many cycles pass in waiting at least: a layer that is left, and in no parts,
        begins when the reader has copied it and all before it."""
        ready, found = max(now, self.free), 0
        for at in self.left:
            ready += copy_cycles(self.array, -(-self.entries[at] // UNIT_WORDS)) - self.ahead
            found = max(found, ready - self.begins[at])
        return found

    def _copy(self, sections: Sequence[Section], now: int) -> int:
        """Copy sections when the reader is free; return when that is, if any are copied."""
        if not sections:
            return now
        start, units = max(now, self.free), 0
        for layer, k in sections:
            entries = (self.parts[layer].entries[k] if layer in self.parts
                       else self.entries[layer])
            units += -(-entries // UNIT_WORDS)
            self.ready[layer, k] = start + copy_cycles(self.array, units)
            units += 1
        self.waits, self.free = self.waits + start - now, self.ready[sections[-1]]
        return start

    def _next(self, at: int) -> list[int]:
        """Return the layers that can be copied as one begins. Nothing is copied between the
        sections of a layer in parts."""
        ahead = list(dict.fromkeys(of for of, _ in self.ready if of >= at))
        run: list[int] = []
        while self.left and not any(of in self.parts for of in [*ahead, *run] if of > at):
            following = self.left[0]
            held = sum(len(_heads(of, self.parts)) for of in [*ahead, *run, following])
            if held > COPIES:
                break
            self.packing.move(following, Life(at, following))
            if self._found() is None:
                self.packing.move(following, Life(following, following))
                break
            run.append(self.left.pop(0))
        return run

    def _found(self) -> dict[str | int, int] | None:
        """Return where everything lies, if it fits."""
        return self.packing.within(self.array.main_words)


def maps_of(found: Mapping[str | int, int]) -> dict[str, int]:
    """Return the first words of maps, of what was found for all needs."""
    return {name: word for name, word in found.items() if isinstance(name, str)}


def whole_units(words: int) -> int:
    """Return the words of the units that hold so many."""
    return -(-words // UNIT_WORDS) * UNIT_WORDS


def _need(entries: int, life: Life) -> Need:
    return Need(words=whole_units(entries), life=life, multiple=UNIT_WORDS)
