"""Layers whose entries do not fit in main memory beside the maps: they are copied from flash."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from celosia.bands.lives import Life
from celosia.bands.plan import Layer
from celosia.bands.regions import Need, map_needs, place
from celosia_spec import errors
from celosia_spec.errors import FitError
from celosia_spec.qgraph import QGraph, QNode
from celosia_spec.stream.array import ENTRY_BITS, ENTRY_WORDS, Array
from celosia_spec.stream.controls import COPIES
from celosia_spec.stream.image import UNIT_WORDS, copy_cycles

_ADDED = 4
"""Entries that a copied layer adds to the stream at most: its command, and three chunks."""

MAIN_MEMORY = "main memory"
"""What refusals call it."""


DENSEST = 2 * ENTRY_WORDS
"""Weights that an entry holds at most."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Layers whose entries are copied from flash; layers by their numbers.

    maps  : first word of every tensor.   words : of the entries of each layer that is copied.
    runs  : layers that are copied one behind the other, by the layer at whose begin.
    waits : cycles that layers wait for their entries, counted.
    """

    maps: dict[str, int]
    words: dict[int, int] = field(default_factory=dict)
    runs: dict[int, list[int]] = field(default_factory=dict)
    waits: int = 0

    @property
    def lives(self) -> dict[int, Life]:
        """When the entries of each layer that is copied are in main memory, or come there."""
        return {layer: Life(at, layer) for at, run in self.runs.items() for layer in run}


def copies(graph: QGraph, layers: Sequence[Layer], entries: Sequence[int], array: Array,
           size: int, orders: int = 1) -> Copies:
    """Return where maps lie, and which layers are copied: none where all fits.

    entries : of each layer.   size : of the stream, with its lists of chunks, if none is copied.
    orders  : in which it is read.

    The last layers are copied, as few of them as let the fewest cycles pass in waiting: maps are
    largest at the begin, and weights at the end. FitError where main memory is too small.
    """
    needs = Needs(map_needs(graph).items())
    found = place(needs, size, array.main_words)
    if _end(needs, found) <= array.main_words:
        return Copies(maps=_maps(found))
    if not array.flash:
        raise _refusal(graph, needs, found, array)
    best = None
    for first in range(len(layers) - 1, -1, -1):
        rest = size - sum(entries[first:]) + _ADDED * orders * (len(layers) - first)
        way = _Schedule(needs, layers, entries, first, array, rest).run()
        if way is not None and (best is None or way.waits < best.waits):
            best = way
        if best is not None and not best.waits:
            break
    if best is None:
        lone = needs | {at: _need(count, Life(at, at)) for at, count in enumerate(entries)}
        raise _refusal(graph, lone, place(lone, rest, array.main_words), array)
    return best


def least_refusal(graph: QGraph, array: Array) -> FitError | None:
    """Return what says that main memory is too small however layers run: for maps, and for weights
    in as few entries as can be, those of one layer where others come from flash; None where it may
    be large enough."""
    entries = [-(-int(np.count_nonzero(node.matrix.data)) // DENSEST) for node in graph.nodes]
    needs = map_needs(graph).values()
    used = [sum(need.words for need in needs if need.life.born <= at <= need.life.dies)
            + (entries[at] if array.flash else sum(entries)) for at in range(len(entries))]
    words = max(used)
    node = graph.nodes[used.index(words)]
    return None if words <= array.main_words else _too_small(
        node, "its weights" if array.flash else "weights", words, array, least=True)


Needs = dict[str | int, Need]
"""What maps and the entries of layers need, by names and numbers."""


def _maps(found: Mapping[str | int, int]) -> dict[str, int]:
    return {name: word for name, word in found.items() if isinstance(name, str)}


def _need(entries: int, life: Life) -> Need:
    return Need(words=-(-entries // UNIT_WORDS) * UNIT_WORDS, life=life, multiple=UNIT_WORDS)


def _end(needs: Mapping[str | int, Need], found: Mapping[str | int, int]) -> int:
    return max(found[name] + need.words for name, need in needs.items())


def _refusal(graph: QGraph, needs: Mapping[str | int, Need], found: Mapping[str | int, int],
             array: Array) -> FitError:
    """Return what says at which node main memory is too small."""
    name = max(needs, key=lambda name: found[name] + needs[name].words)
    node = graph.nodes[max(needs[name].life.born, 0)]
    held = "the stream" if isinstance(name, str) else "its entries"
    return _too_small(node, held, found[name] + needs[name].words, array)


def _too_small(node: QNode, held: str, words: int, array: Array, *,
               least: bool = False) -> FitError:
    needed, available = (count * ENTRY_BITS / 8192 for count in (words, array.main_words))
    return FitError(node.name, str(node.kind), f"the maps that are alive there and {held} need "
                    f"{'at least ' * least}{words} words of main memory, the array has "
                    f"{array.main_words}", "prune more, or give it smaller maps",
                    need=errors.Need(MAIN_MEMORY, needed, available, "KiB", least=least))


class _Schedule:
    """When sections are copied: as early as main memory has room for them, in the order in which
    they are used, and without a layer that waits because the reader is still busy."""

    def __init__(self, needs: Needs, layers: Sequence[Layer], entries: Sequence[int],
                 first: int, array: Array, rest: int) -> None:
        self.array, self.layers, self.rest = array, layers, rest
        self.left = [at for at in range(first, len(layers)) if entries[at]]
        self.needs: Needs = {**needs, **{at: _need(entries[at], Life(at, at)) for at in self.left}}

    def run(self) -> Copies | None:
        """Return what is copied when; None where it does not fit."""
        if self._found() is None:
            return None
        now = free = waits = 0
        runs: dict[int, list[int]] = {}
        ready: dict[int, int] = {}
        for at, layer in enumerate(self.layers):
            run = []
            if free <= now or at in self.left:
                run = self._next(at, sum(of >= at for of in ready))
            if run:
                runs[at], start, units = run, max(now, free), 0
                for of in run:
                    units += self.needs[of].words // UNIT_WORDS
                    ready[of] = start + copy_cycles(self.array, units)
                    units += 1
                waits, now, free = waits + start - now, start, ready[run[-1]]
            late = max(0, ready.get(at, 0) - now)
            waits, now = waits + late, now + late + layer.cycles
        found = self._found()
        assert found is not None and not self.left
        words = {name: word for name, word in found.items() if isinstance(name, int)}
        return Copies(maps=_maps(found), words=words, runs=runs, waits=waits)

    def _next(self, at: int, ahead: int) -> list[int]:
        """Return the sections that can be copied as a layer begins, where so many are ahead."""
        run: list[int] = []
        while self.left and ahead + len(run) < COPIES:
            need = self.needs[self.left[0]]
            self.needs[self.left[0]] = replace(need, life=Life(at, self.left[0]))
            if self._found() is None:
                self.needs[self.left[0]] = need
                break
            run.append(self.left.pop(0))
        return run

    def _found(self) -> dict[str | int, int] | None:
        """Return where everything lies, if it fits."""
        found = place(self.needs, self.rest, self.array.main_words)
        return found if _end(self.needs, found) <= self.array.main_words else None
