"""Layers whose entries do not fit in main memory beside the maps: they are copied from flash, whole
or in parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np

from celosia.bands.batches import Batches
from celosia.bands.entries import Stream
from celosia.bands.lives import Life
from celosia.bands.packing import Need, Packing
from celosia.bands.parts import Parted, Parting
from celosia.bands.plan import Layer
from celosia.bands.regions import map_needs
from celosia_spec import errors
from celosia_spec.errors import FitError
from celosia_spec.isa.array import ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.isa.controls import COPIES
from celosia_spec.isa.image import UNIT_WORDS, copy_cycles
from celosia_spec.qgraph import QGraph, QNode

_ADDED = 4
"""Entries that a copied layer adds to the stream at most: its command, and three chunks."""

_COMMAND = 2
"""Those of a layer in parts, its other chunks apart."""

_SMALL = 128
"""Entries of a section at least, where there is room: cycles pass before its first one comes."""

_WAITING = 10
"""Layers are parted where without it more than one cycle in so many passes in waiting."""

_SHARES = ((1.0, 1.0), (1.0, 0.5), (1.0, 0.0), (0.5, 1.0), (0.0, 1.0))
"""Of the words that all layers leave, how many may be resident; of what a layer leaves then, how
many it has for its sections."""

MAIN_MEMORY = "main memory"
"""What refusals call it."""

Section = tuple[int, int]
"""A layer and which of its sections: they are in flash, and are copied, in this order."""

DENSEST = 2 * ENTRY_WORDS
"""Weights that an entry holds at most."""


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


def copies(graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
           stream: Stream, array: Array) -> Copies:
    """Return where maps lie, and which layers are copied: none where all fits.

    made : the layers' batches.   stream : as it is if none is copied.

    The last layers are copied, as few of them as let the fewest cycles pass in waiting: maps are
    largest at the begin, and weights at the end. Where that cannot be, layers that do not fit are
    parted. FitError where main memory is too small.
    """
    needs = Needs(map_needs(graph).items())
    found = Packing(needs, stream.words_needed).before(array.main_words)
    if _end(needs, found) <= array.main_words:
        return Copies(maps=_maps(found))
    if not array.flash:
        raise _refusal(graph, needs, found, array)
    if (least := least_refusal(graph, array)) is not None:
        raise least
    return _Memory(graph, layers, made, stream, array).found()


def least_refusal(graph: QGraph, array: Array) -> FitError | None:
    """Return what says that main memory is too small however layers run: for maps, and for weights
    in as few entries as can be, those of one row where they come from flash; None where it may be
    large enough."""
    held = [np.diff(node.matrix.indptr).max(initial=0) if array.flash else
            np.count_nonzero(node.matrix.data) for node in graph.nodes]
    entries = [-(-int(count) // DENSEST) for count in held]
    needs = map_needs(graph).values()
    used = [sum(need.words for need in needs if need.life.born <= at <= need.life.dies)
            + (entries[at] if array.flash else sum(entries)) for at in range(len(entries))]
    words = max(used)
    node = graph.nodes[used.index(words)]
    return None if words <= array.main_words else _too_small(
        node, "a row's weights" if array.flash else "weights", words, array, least=True)


Needs = dict[str | int, Need]
"""What maps and the entries of layers need, by names and numbers."""


def _maps(found: Mapping[str | int, int]) -> dict[str, int]:
    return {name: word for name, word in found.items() if isinstance(name, str)}


def _need(entries: int, life: Life) -> Need:
    return Need(words=_up(entries), life=life, multiple=UNIT_WORDS)


def _end(needs: Mapping[str | int, Need], found: Mapping[str | int, int]) -> int:
    return max(found[name] + need.words for name, need in needs.items())


def _refusal(graph: QGraph, needs: Mapping[str | int, Need], found: Mapping[str | int, int],
             array: Array) -> FitError:
    """Return what says at which node main memory is too small for maps and the stream."""
    name = max(needs, key=lambda name: found[name] + needs[name].words)
    node = graph.nodes[max(needs[name].life.born, 0)]
    return _too_small(node, "the stream", found[name] + needs[name].words, array)


def _too_small(node: QNode, held: str, words: int, array: Array, *,
               least: bool = False) -> FitError:
    needed, available = (count * ENTRY_BITS / 8192 for count in (words, array.main_words))
    return FitError(node.name, str(node.kind), f"the maps that are alive there and {held} need "
                    f"{'at least ' * least}{words} words of main memory, the array has "
                    f"{array.main_words}", "prune more, or give it smaller maps",
                    need=errors.Need(MAIN_MEMORY, needed, available, "KiB", least=least))


class _Memory:
    """Ways to have layers copied, whole or in parts."""

    def __init__(self, graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
                 stream: Stream, array: Array) -> None:
        self.graph, self.layers, self.made, self.array = graph, layers, made, array
        lists = [own for order in stream.orders for own in order.clusters]
        self.stream, self.orders = stream, len(lists)
        self.needs = Needs(map_needs(graph).items())
        self.maps = [sum(need.words for need in self.needs.values()
                         if need.life.born <= at <= need.life.dies) for at in range(len(layers))]
        # The chunks of each layer alone, of all orders.
        ends = np.array([[(-1, 0), *own.ends] for own in lists])[..., 0]
        self.chunks = np.maximum(np.diff(ends) - 1, 0).sum(axis=0).tolist()
        self._partings: dict[int, Parting] = {}

    def found(self) -> Copies:
        """Return the way that is counted to take the fewest cycles."""
        best = None
        for first in range(len(self.layers) - 1, -1, -1):
            most = None if best is None else best.waits
            best = self._way(first, {}, self._rest(first, {}), most) or best
            if best is not None and not best.waits:
                break
        if best is None or best.waits * _WAITING > sum(layer.cycles for layer in self.layers):
            ways = [way for way in (best, *self._parted()) if way is not None]
            if not ways:
                raise self._short()
            best = min(ways, key=lambda way: way.cycles(self.layers))
        return best

    def _way(self, first: int, parts: dict[int, Parted], rest: int,
             most: int | None = None) -> Copies | None:
        """Return what is copied when if the layers from the first one on are; None where it does
        not fit, or at least ``most`` cycles pass in waiting."""
        return _Schedule(self.needs, self.layers, self.stream.layers, first, self.array, rest,
                         parts, most).run()

    def _rest(self, first: int, parts: Mapping[int, Parted]) -> int:
        """Return the words of what is resident, if the layers from the first one on are copied."""
        entries = self.stream.layers
        return (self.stream.words_needed - sum(entries[first:])
                + self.orders * _ADDED * (len(entries) - first)
                + sum(parted.held + self.orders // self.array.clusters * parted.chunks
                      - self.chunks[at]
                      - (self.orders * (_ADDED - _COMMAND) if at >= first else entries[at])
                      for at, parted in parts.items()))

    def _denser(self, first: int) -> dict[int, Parted]:
        """Return the layers before the first one that have fewer entries with a step for every
        column."""
        found = {}
        for at in range(first):
            parted = self._parting(at).parted(0, 1, self.array.main_words)
            if parted is not None and parted.held < self.stream.layers[at]:
                found[at] = parted
        return found

    def _parted(self) -> Iterator[Copies]:
        """Yield ways in which layers are parted, and as much as can be is resident."""
        for least, places in ((_SMALL, 2), (0, 2), (0, 1)):
            rooms = [_up(max(self._parting(at).least, least)) for at in range(len(self.layers))]
            for first in range(len(self.layers), -1, -1):
                ways = [way for kept, share in _SHARES if (way := self._in_rooms(
                    first, rooms, places, kept, share)) is not None]
                yield from ways
                if ways:
                    return

    def _in_rooms(self, first: int, rooms: Sequence[int], places: int, kept: float,
                  share: float) -> Copies | None:
        """Return a way in which the layers from the first one on are copied, what of that one is
        resident excepted.

        rooms : the smallest place of each layer.   kept, share : see `_SHARES`.
        """
        # Where maps leave room in pieces, less is used.
        for left in range(0, self.array.main_words // 4, self.array.main_words // 32):
            parts: dict[int, Parted] | None = self._denser(first)
            words = -1
            while parts is not None and (rest := self._rest(first, parts)) > words:
                fixed = rest - (parts[first].held if first in parts else 0)
                parts, words = self._parts(first, rooms, places, kept, share, left + fixed), rest
            if parts is None:
                return None
            if (way := self._way(first, parts, rest)) is not None:
                return way
        return None

    def _parts(self, first: int, rooms: Sequence[int], places: int, kept: float, share: float,
               fixed: int) -> dict[int, Parted] | None:
        """Return the layers in parts; None where they do not fit.

        fixed : words that are resident without parts of layers, or not used.
        """
        needs = [0] * first + [min(_up(self.stream.layers[at]), places * rooms[at])
                               for at in range(first, len(self.layers))]
        spare = [self._room(at, fixed) - need for at, need in enumerate(needs)]
        if min(spare) < 0:
            return None
        found = self._denser(first)
        held = _down(min(spare) * kept)
        for at in range(first, len(self.layers)):
            room = needs[at] + _down((spare[at] - held) * share)
            parted = None
            if _up(self.stream.layers[at]) > room:
                place = _down(room / places)
                parted = self._parting(at).parted(place, places, held if at == first else 0)
                if parted is None and (parted := self._parting(at).parted(place, places)) is None:
                    return None
                found[at] = parted
            if at == first and (parted is None or not parted.held):
                held = 0
        return found

    def _room(self, at: int, rest: int) -> int:
        """Return the words beside a layer's maps and what is resident."""
        return self.array.main_words - _up(rest) - self.maps[at]

    def _parting(self, at: int) -> Parting:
        if at not in self._partings:
            self._partings[at] = Parting(self.graph, self.layers[at], self.made[at], self.array,
                                         self.orders, self.stream.begins[at])
        return self._partings[at]

    def _short(self) -> FitError:
        """Return what says at which layer main memory is too small."""
        rest = _up(self._rest(0, {}))
        words = [rest + self.maps[at] + _up(min(self._parting(at).least, entries))
                 for at, entries in enumerate(self.stream.layers)]
        at = words.index(max(words))
        return _too_small(self.graph.nodes[at], "a part of its entries",
                          max(words[at], self.array.main_words + 1), self.array, least=True)


def _up(words: int) -> int:
    """Return the words of the units that hold so many."""
    return -(-words // UNIT_WORDS) * UNIT_WORDS


def _down(words: float) -> int:
    """Return the words of all whole units in so many."""
    return int(words) // UNIT_WORDS * UNIT_WORDS


class _Schedule:
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
        return Copies(maps=_maps(found), words=words, parts=self.parts, runs=runs,
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
        ahead = [of for of, k in self.ready if of >= at and k == 0]
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
