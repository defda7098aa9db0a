"""The exact cycles of a stream."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from celosia_sim.clock.control import Executor, Fetcher
from celosia_sim.clock.events import Command, Entry, events
from celosia_sim.clock.fills import FillEngine
from celosia_sim.clock.flash import FlashReader
from celosia_sim.clock.passes import Output, Sequencer
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import RING_GAP, Array
from celosia_spec.isa.controls import Op
from celosia_spec.isa.image import Section
from celosia_spec.isa.timing import READ

_LONG = 1 << 26     # cycles without an end

SPENT = {
    "steps": "a step was issued", "weights": "its entry was not there yet",
    "rows": "the pass was shorter than its rows take to leave",
    "fill": "what a band reads was not in the banks yet",
    "drain": "results of the layer were not all written yet",
    "flash": "a section of flash was not in main memory yet",
    "control": "control words were fetched or carried out"}
"""What a cycle was spent on, or waiting for."""


@dataclass(frozen=True, kw_only=True)
class Cycles:
    """When things were done.

    cycles : from `start` until the machine is not busy any more.
    closed : when each exponent was set, of outputs and of readings of several tensors.
    spent  : how the sequencer spent the cycles until each of these, and from the last one to the
             end, by the keys of `SPENT`.
    """

    cycles: int
    closed: tuple[int, ...]
    spent: tuple[Mapping[str, int], ...]


def cycles(array: Array, entries: Sequence[int], chunks: Sequence[tuple[int, int]],
           copied: Collection[int] = (), image: Sequence[Section] = ()) -> Cycles:
    """Return the cycles that a stream takes, those of the gateware exactly.

    entries, chunks : as `celosia_sim.stream_machine.run` takes them.   copied : numbers of the
    chunks that wait for a section of flash.   image : all sections. SimulationError where the
    stream does not end.
    """
    return _Clock(array, *events(array, entries, chunks, copied, image), len(chunks), copied).run()


class _Clock:
    """All agents, and the two rings between them.

    Of both rings words and entries are counted from the first one on.
    """

    def __init__(self, array: Array, commands: Sequence[Command], entries: Sequence[Entry],
                 chunks: int, copied: Collection[int]) -> None:
        self.array, self.flash = array, FlashReader(array)
        self.sequencer, self.output = Sequencer(), Output(array, READ)
        self.executor, self.fill = Executor(commands), FillEngine()
        self.fetcher = Fetcher(entries, chunks, copied)
        self.closed: list[int] = []
        self._spent: Counter[str] = Counter()
        self.spent: list[Counter[str]] = []
        self._words = self._at = self._kept = 0
        self._places = [0 for _ in self.output.keeps]       # of heads that are still needed
        self._entries = self._freed = 0
        self._room_words = self._room_entries = False
        self._quiet = True

    def run(self) -> Cycles:
        now = 0
        while self.executor.busy or self.fetcher.busy:
            now = max(now + 1, self._next(now))
            self.flash.pass_over(now)
            self._cycle(now)
            if now > _LONG:
                raise SimulationError(f"the stream has not ended after {_LONG:,} cycles")
        return Cycles(cycles=now, closed=tuple(self.closed), spent=(*self.spent, self._spent))

    def _cycle(self, now: int) -> None:
        sequencer, output, executor = self.sequencer, self.output, self.executor
        fill, fetcher, flash = self.fill, self.fetcher, self.flash
        self._arrive(now)
        # What everybody sees of the others in this cycle.
        sequencer.look()
        idle, draining = sequencer.batch is None, now <= output.busy
        turn, ends, comes = sequencer.turn == now, sequencer.ends, sequencer.comes(now)
        offer, registered = executor.offer, sequencer.taken
        takes = offer is not None and not registered and (idle or (turn and ends))
        placed, room, filling = output.placed(now), fill.queued != 3, not fill.idle
        if comes:
            assert sequencer.batch is not None
            output.announce(now, sequencer.batch, sequencer.number)
        starts = output.starting(now)
        port, copying, copied = output.port(now), flash.busy(now), flash.copied(now)
        read = flash.wants(now) and not port
        port = port or read
        granted = fetcher.request and not port
        wanted = fill.wants(now)
        filled = wanted and (fill.zero or not (port or fetcher.request))
        # Registers.
        if idle:
            why = executor.stops(quiet=self._quiet, filling=filling, copying=copying)
            self._spent["flash" if fetcher.lacks and why == "control" else why] += 1
        elif turn:
            self._spent.update(sequencer.spent(now))
        if executor.closed:
            self.closed.append(now)
            self.spent.append(self._spent)
            self._spent = Counter()
        fetcher.step(now, granted, self._room_words, self._room_entries, sequencer.entries,
                     copied=copied)
        have = self._ring(now, draining=draining)
        loaded = executor.step(quiet=self._quiet, idle=idle, room=room, filling=filling,
                               placed=placed, taken=registered, copying=copying)
        executor.there, executor.have = have
        asked = loaded.sections if loaded and loaded.op == Op.COPY else None
        fill.step(now, filled, loaded if asked is None else None)
        flash.step(now, read, asked)
        self._quiet = idle and not output.pending and not draining
        output.pending = comes or (output.pending and not starts)
        sequencer.taken = takes
        if takes:
            assert offer is not None
            sequencer.take(now, offer)
        elif turn:
            sequencer.end(now)

    def _next(self, now: int) -> int:
        """Return the cycle before which nothing changes; 0 where that may be the next one.

        So it is in the middle of long passes: all others wait for their end.
        """
        sequencer, output, executor = self.sequencer, self.output, self.executor
        batch = sequencer.batch
        if (batch is None or sequencer.turn <= now + 1 or sequencer.taken or now <= output.busy
                or output.starts or output.pending or not self.fill.idle):
            return 0
        there = self._at != self._words
        rooms = self._rooms()
        if (set(self._places) != {self._kept} or self._entries != len(sequencer.entries)
                or rooms != (self._room_words, self._room_entries) or executor.have != there
                or not executor.waits(copying=self.flash.busy(now))
                or not self.fetcher.waits(*rooms)):
            return 0
        times = [sequencer.turn, self.flash.next]
        if sequencer.freed:
            times.append(sequencer.freed[0][0])
        return min(time for time in times if time > now)

    def _rooms(self) -> tuple[bool, bool]:
        """Return whether there is room in both rings for what may be on its way."""
        return (not _full(self._words, self._places[-1], self.array.controls),
                not _full(self._entries, self._freed, self.array.ring))

    def _arrive(self, now: int) -> None:
        """Words and entries that were written before are in the rings, others have left."""
        words, freed = self.fetcher.words, self.sequencer.freed
        while words and words[0] < now:
            words.popleft()
            self._words += 1
        written = self.sequencer.entries
        while self._entries < len(written) and written[self._entries] < now:
            self._entries += 1
        while freed and freed[0][0] <= now:
            self._freed = freed.popleft()[1]

    def _ring(self, now: int, *, draining: bool) -> tuple[bool, bool]:
        """Rooms of both rings, and the words of control; return whether the next one is there, and
        whether it was read."""
        executor, sequencer = self.executor, self.sequencer
        self._room_words, self._room_entries = self._rooms()
        take = executor.takes
        reads = now in self.output.heads
        self.output.heads.discard(now)
        empty = not (self.output.pending or draining)
        given = [self._kept, *self._places]
        for number, keeps in enumerate(self.output.keeps):
            if empty or now in keeps:
                self._places[number] = given[number]
            keeps.discard(now)
        batch = sequencer.batch
        if (batch is None and not sequencer.more) or (
                sequencer.taken and batch is not None and not batch.joins):
            self._kept = self._at
        there = self._at + take != self._words
        self._at += take
        return there, there and not reads


def _full(head: int, tail: int, size: int) -> bool:
    """Return whether a ring's head is in the part before that of its tail."""
    part = RING_GAP // 2
    return (head // part + 1 - tail // part) % (size // part) == 0
