"""Layers whose entries do not fit in main memory beside the maps: they are copied from flash, whole
or in parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from celosia.bands.batches import Batches
from celosia.bands.copies import Copies, Needs, Schedule, maps_of, whole_units
from celosia.bands.entries import Stream
from celosia.bands.lives import Life
from celosia.bands.occupancy import Kind, MainMemory, Piece, map_pieces, stream_piece
from celosia.bands.packing import Need, Packing
from celosia.bands.parts import Parted, Parting
from celosia.bands.plan import Layer
from celosia.bands.regions import Owners, map_needs, own_words, owners, regions
from celosia_spec import errors
from celosia_spec.errors import FitError, Scarce
from celosia_spec.isa.array import ENTRY_WORDS, Array, kib
from celosia_spec.isa.image import UNIT_WORDS
from celosia_spec.qgraph import QGraph, QNode

_ADDED = 4
"""Entries that a copied layer adds to the stream at most: its command, and three chunks."""

_COMMAND = 2
"""Those of a layer in parts, its other chunks apart."""

_SMALL = 128
"""Entries of a section at least, where there is room: cycles pass before its first one comes. Of
several clusters each reads of each section, and fewer may be better: up to so many for each."""

_WAITING = 10
"""Layers are parted where without it more than one cycle in so many passes in waiting."""

_SHARES = ((1.0, 1.0), (1.0, 0.5), (1.0, 0.0), (0.5, 1.0), (0.0, 1.0))
"""Of the words that all layers leave, how many may be resident; of what a layer leaves then, how
many it has for its sections."""

DENSEST = 2 * ENTRY_WORDS
"""Weights that an entry holds at most."""


class MemoryShort(FitError):
    """Main memory is too small.   memory : who would lie where if it were larger."""

    def __init__(self, node: str, operator: str, problem: str, remedy: str,
                 source: str | None = None, need: errors.Need | None = None,
                 memory: MainMemory | None = None) -> None:
        super().__init__(node, operator, problem, remedy, source, need)
        self.memory = memory


def copies(graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
           stream: Stream, array: Array) -> Copies:
    """Return where maps lie, and which layers are copied: none where all fits.

    made : the layers' batches.   stream : as it is if none is copied.

    Sums take the words of what is added, where they can. A layer that comes in parts may have to
    fill that several times; where nothing else fits, all have words of their own.

    The last layers are copied, as few of them as let the fewest cycles pass in waiting: maps are
    largest at the begin, and weights at the end. Where that cannot be, layers that do not fit are
    parted. FitError where main memory is too small.
    """
    if (least := least_refusal(graph, array)) is not None and array.flash:
        raise least
    owned = owners(graph)
    try:
        found = _copies(graph, layers, made, stream, array, owned)
    except FitError:
        owned, shared = own_words(graph), owned
        if not array.flash or owned == shared:
            raise
        found = _copies(graph, layers, made, stream, array, owned)
    return replace(found, maps={name: found.maps[owner] for name, owner in owned.items()})


def _copies(graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
            stream: Stream, array: Array, owned: Owners) -> Copies:
    """Return what `copies` does.   owned : whose words each tensor has; maps are those."""
    needs = Needs(map_needs(graph, owned).items())
    found = Packing(needs, stream.words_needed).before(array.main_words)
    if _end(needs, found) <= array.main_words:
        return Copies(maps=maps_of(found))
    if not array.flash:
        raise _refusal(graph, needs, found, array, owned, stream.words_needed)
    return _Memory(graph, layers, made, stream, array, owned).found()


def least_refusal(graph: QGraph, array: Array) -> FitError | None:
    """Return what says that main memory is too small however layers run: for maps, and for weights
    in as few entries as can be, those of one row where they come from flash; None where it may be
    large enough."""
    held = [np.diff(node.matrix.indptr).max(initial=0) if array.flash else
            np.count_nonzero(node.matrix.data) for node in graph.nodes]
    entries = [-(-int(count) // DENSEST) for count in held]
    needs = map_needs(graph, owners(graph)).values()
    used = [sum(need.words for need in needs if need.life.born <= at <= need.life.dies)
            + (entries[at] if array.flash else sum(entries)) for at in range(len(entries))]
    if (words := max(used)) <= array.main_words:
        return None
    weights = stream_piece(0 if array.flash else sum(entries), len(entries), "weights")
    memory = _would_lie(graph, owners(graph), array, weights,
                        dict(enumerate(entries)) if array.flash else {})
    return _too_small(graph.nodes[used.index(words)], "a row's weights" if array.flash else
                      "weights", words, array, memory, least=True)


def _would_lie(graph: QGraph, owned: Owners, array: Array, stream: Piece,
               parts: Mapping[int, int]) -> MainMemory:
    """Return who would lie where in a main memory that has room for it.

    owned : whose words each tensor has.   parts : words of each layer's entries that are there when
    it runs, by its number; none of layers that lie in the stream.
    """
    needs = Needs(map_needs(graph, owned).items())
    needs |= {at: Need(words=words, life=Life(at, at)) for at, words in parts.items() if words}
    found = Packing(needs, stream.words).before(array.main_words)
    places = regions(graph, {name: found[owner] for name, owner in owned.items()})
    layers = tuple(node.name for node in graph.nodes)
    return MainMemory(layers=layers, words=array.main_words, pieces=(
        *([stream] if stream.words else []), *map_pieces(places),
        *(Piece(kind=Kind.SECTION, name=layers[at], first=found[at], words=needs[at].words,
                life=needs[at].life) for at in parts if at in needs)))


def _end(needs: Mapping[str | int, Need], found: Mapping[str | int, int]) -> int:
    return max(found[name] + need.words for name, need in needs.items())


def _refusal(graph: QGraph, needs: Mapping[str | int, Need], found: Mapping[str | int, int],
             array: Array, owned: Owners, first: int) -> FitError:
    """Return what says at which node main memory is too small for maps and the stream.

    first : word from which on maps lie.
    """
    name = max(needs, key=lambda name: found[name] + needs[name].words)
    node = graph.nodes[max(needs[name].life.born, 0)]
    return _too_small(node, "the stream", found[name] + needs[name].words, array,
                      _would_lie(graph, owned, array, stream_piece(first, len(graph.nodes)), {}))


def _too_small(node: QNode, held: str, words: int, array: Array, memory: MainMemory, *,
               least: bool = False) -> "MemoryShort":
    needed, available = map(kib, (words, array.main_words))
    return MemoryShort(node.name, str(node.kind), f"the maps that are alive there and {held} need "
                       f"{'at least ' * least}{words} words of main memory, the array has "
                       f"{array.main_words}", "prune more, or give it smaller maps",
                       need=errors.Need(Scarce.MAIN_MEMORY, needed, available, "KiB", least=least),
                       memory=memory)


class _Memory:
    """Ways to have layers copied, whole or in parts."""

    def __init__(self, graph: QGraph, layers: Sequence[Layer], made: Sequence[Sequence[Batches]],
                 stream: Stream, array: Array, owned: Owners) -> None:
        self.graph, self.layers, self.made, self.array = graph, layers, made, array
        self.owned = owned
        lists = [own for order in stream.orders for own in order.clusters]
        self.stream, self.orders = stream, len(lists)
        self.needs = Needs(map_needs(graph, owned).items())
        self.maps = [sum(need.words for need in self.needs.values()
                         if need.life.born <= at <= need.life.dies) for at in range(len(layers))]
        # The chunks of each layer alone, of all orders.
        ends = np.array([[(-1, 0), *own.ends] for own in lists])[..., 0]
        self.chunks: list[int] = np.maximum(np.diff(ends) - 1, 0).sum(axis=0).tolist()
        self._partings: dict[int, Parting] = {}
        self._unparted = cache(lambda first, rest: self._way(first, {}, rest))

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
        return Schedule(self.needs, self.layers, self.stream.layers, first, self.array, rest,
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
        for leasts, places in ((self._small, 2), ((0,), 2), ((0,), 1)):
            ways = [way for least in leasts for way in self._of_size(least, places)]
            yield from ways
            if ways:
                return

    @property
    def _small(self) -> list[int]:
        return [_SMALL << k for k in range(self.array.clusters.bit_length())]

    def _of_size(self, least: int, places: int) -> list[Copies]:
        """Return ways in which as few layers as can be are copied, with sections of so many entries
        at least."""
        rooms = [whole_units(max(self._parting(at).least, least)) for at in range(len(self.layers))]
        for first in range(len(self.layers), -1, -1):
            if ways := [way for kept, share in _SHARES if (way := self._in_rooms(
                    first, rooms, places, kept, share)) is not None]:
                return ways
        return []

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
            way = self._way(first, parts, rest) if parts else self._unparted(first, rest)
            if way is not None:
                return way
        return None

    def _parts(self, first: int, rooms: Sequence[int], places: int, kept: float, share: float,
               fixed: int) -> dict[int, Parted] | None:
        """Return the layers in parts; None where they do not fit.

        fixed : words that are resident without parts of layers, or not used.
        """
        needs = [0] * first + [min(whole_units(self.stream.layers[at]), places * rooms[at])
                               for at in range(first, len(self.layers))]
        spare = [self._room(at, fixed) - need for at, need in enumerate(needs)]
        if min(spare) < 0:
            return None
        found = self._denser(first)
        held = _down(min(spare) * kept)
        for at in range(first, len(self.layers)):
            room = needs[at] + _down((spare[at] - held) * share)
            parted = None
            if whole_units(self.stream.layers[at]) > room:
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
        return self.array.main_words - whole_units(rest) - self.maps[at]

    def _parting(self, at: int) -> Parting:
        if at not in self._partings:
            name = self.graph.nodes[at].output
            self._partings[at] = Parting(self.graph, self.layers[at], self.made[at], self.array,
                                         self.orders, self.stream.begins[at],
                                         once=self.owned[name] != name)
        return self._partings[at]

    def _short(self) -> FitError:
        """Return what says at which layer main memory is too small."""
        rest = whole_units(self._rest(0, {}))
        words = [rest + self.maps[at] + whole_units(min(self._parting(at).least, entries))
                 for at, entries in enumerate(self.stream.layers)]
        at = words.index(max(words))
        memory = _would_lie(self.graph, self.owned, self.array, stream_piece(rest, len(words)), {
            at: whole_units(min(self._parting(at).least, entries))
            for at, entries in enumerate(self.stream.layers)})
        return _too_small(self.graph.nodes[at], "a part of its entries",
                          max(words[at], self.array.main_words + 1), self.array, memory,
                          least=True)


def _down(words: float) -> int:
    """Return the words of all whole units in so many."""
    return int(words) // UNIT_WORDS * UNIT_WORDS
