"""A cluster: its agents, and the two rings between them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from celosia_sim.clock.control import Executor, Fetcher
from celosia_sim.clock.events import NEVER, Batch, Chunk, Command, Entry
from celosia_sim.clock.passes import Output, Sequencer
from celosia_sim.clock.queue import WriteQueue
from celosia_spec.isa.array import RING_GAP, Array
from celosia_spec.isa.timing import READ

_PART = RING_GAP // 2       # words or entries of a ring, by which it is told to be full


@dataclass(slots=True)
class Shared:
    """What clusters see of what they share.

    room : for a fill's record.   filling : fills are not done.   copying : the flash reader is not
    free.   copied : a section of flash is in main memory.   together : registered, all clusters had
    come to a command that they carry out together.
    """

    room: bool
    filling: bool
    copying: bool
    copied: bool
    together: bool


class Cluster:
    """All agents of a cluster, and the two rings between them.

    Of both rings words and entries are counted from the first one on.

    spent : on what cycles were spent, by the keys of `SPENT`.
    steady, calm : of several clusters, cycles until which it goes on as it does, or waits: until
             `calm` its fetcher, too, which waits or brings entries of weights. Only the fetcher
             and the writes of steady ones are followed; the rest is to `catch_up`.
    moves : of a steady one, the cycle in which its queue of writes moves next, at the earliest.
    """

    def __init__(self, array: Array, commands: Sequence[Command], entries: Sequence[Entry],
                 places: Sequence[int], chunks: Sequence[Chunk]) -> None:
        self._parts = array.controls // _PART, array.ring // _PART
        self.sequencer, self.output = Sequencer(), Output(array, READ)
        self.executor = Executor(commands)
        self.fetcher = Fetcher(entries, places, chunks)
        self.spent: Counter[str] = Counter()
        self.queue = WriteQueue() if array.clusters > 1 else None
        self._words = self._at = self._kept = 0
        self._places = [0] * self.output.keeps       # of heads that are still needed
        self._entries = self._freed = 0
        self._room_words = self._room_entries = False
        self._quiet = True
        self.steady = self.calm = self.moves = self._since = 1
        # What everybody sees in a cycle.
        self._idle = self._draining = self._turn = self._passed = False
        self._starts = self._placed = False
        self._writes: bool | None = None
        self._offer: Batch | None = None

    @property
    def busy(self) -> bool:
        """Whether it has something to do."""
        return self.executor.busy or self.fetcher.busy

    @property
    def wants_write(self) -> bool:
        """Whether it wants the port for a write that waits."""
        return self.queue is not None and self.queue.level > 0

    @property
    def writes_odd(self) -> bool:
        """Whether the write that waits first has a word with an odd number."""
        return self.queue is not None and self.queue.waiting[0]

    def look(self, now: int) -> None:
        """Find what is to be seen in a cycle."""
        sequencer, output = self.sequencer, self.output
        self._arrive(now)
        sequencer.look()
        if self.queue is not None and sequencer.turn == now and not self.queue.lets:
            sequencer.turn += 1
        self._idle = sequencer.batch is None
        self._draining = now <= output.busy or self.wants_write
        self._turn, self._offer = sequencer.turn == now, self.executor.offer
        self._passed = self._turn and sequencer.comes(now)
        self._placed = output.placed(now)
        if self._passed and sequencer.told <= sequencer.number:
            self._tell()
        self._starts = output.starting(now)

    def writes(self, now: int) -> bool:
        """Return whether it takes the port for a write."""
        if self.queue is None:
            return self.output.port(now)
        self._writes = self.output.queued(now)
        return self.wants_write

    def spend(self, now: int, seen: Shared) -> None:
        """Count on what the cycle is spent."""
        self.wait(seen, 1)
        if self._turn:
            self._spend(now)
        self._since = now + 1

    def _spend(self, now: int) -> None:
        """Count on what the cycles of a pass were spent that ends."""
        for what, cycles in self.sequencer.spent(now).items():
            self.spent[what] += cycles

    def wait(self, seen: Shared, cycles: int) -> None:
        """Let cycles pass on which nothing is spent, or which have no batch."""
        if self.sequencer.batch is None:
            why = self.executor.stops(quiet=self._quiet, filling=seen.filling,
                                      copying=seen.copying)
            self.spent["flash" if self.fetcher.lacks and why == "control" else why] += cycles

    def step(self, now: int, seen: Shared, *, granted: bool, written: bool) -> Command | None:
        """Let a cycle pass; return a fill, or a copy, whose last word was loaded.

        granted : the fetcher has the port.   written : a write that waits has it.
        """
        sequencer, output, executor = self.sequencer, self.output, self.executor
        offer, registered = self._offer, sequencer.taken
        takes = offer is not None and not registered and (
            self._idle or (self._turn and sequencer.ends))
        self.fetcher.step(now, granted, self._room_words, self._room_entries, sequencer.entries,
                          copied=seen.copied)
        have = self._ring(now, draining=self._draining)
        loaded = executor.step(
            quiet=self._quiet, idle=self._idle, room=seen.room, filling=seen.filling,
            placed=self._placed, taken=registered, copying=seen.copying,
            together=self.queue is None or seen.together)
        executor.there, executor.have = have
        self._quiet = self._idle and not output.pending and not self._draining
        output.pending = self._passed or (output.pending and not self._starts)
        sequencer.taken = takes
        if takes:
            assert offer is not None
            sequencer.take(now, offer)
        elif self._turn:
            sequencer.end(now)
        if self.queue is not None:
            self.queue.step(written=self._writes, granted=written)
            self.moves = now
        return loaded

    def settle(self, now: int, seen: Shared) -> None:
        """Find until when it is steady, and calm, unless others change."""
        if self.steady <= now:
            self.catch_up(now, seen)
            self.steady = self.until(now, seen)
            self._find_moves(now)
        elif not self.brings_evenly(now):
            return
        self.calm = min(self.steady, self.even(now)) if self.steady > now else now

    def catch_up(self, now: int, seen: Shared) -> None:
        """Let the cycles before one pass, as far as they did not: it was steady in them."""
        if self._since < now:
            self.wait(seen, now - self._since)
            self._since = now
        self.pass_over(now)

    def wake(self, now: int, seen: Shared) -> None:
        """Let the cycles before one pass in which it was steady: others change in it."""
        self.catch_up(now, seen)
        self.steady = self.calm = now

    def bring_weights(self, cycles: Sequence[int]) -> None:
        """Let the fetcher bring an entry of weights in each of these cycles, as `even` says."""
        self.fetcher.bring(cycles, self.sequencer.entries)

    def share(self, now: int, *, granted: bool) -> None:
        """Let its writes wait for the port; granted : one of them has it."""
        assert self.queue is not None
        self.queue.step(written=self.output.queued(now), granted=granted)
        self._find_moves(now)

    def _find_moves(self, now: int) -> None:
        """Find when the queue of writes moves next."""
        assert self.queue is not None
        writes = self.output.writes
        self.moves = now if not self.queue.rests else writes[0] if writes else NEVER

    @property
    def waits_for_others(self) -> bool:
        """Whether it will be seen to wait for the others."""
        return self.executor.comes(quiet=self._quiet, idle=self.sequencer.batch is None)

    def until(self, now: int, seen: Shared) -> int:
        """Return a cycle, this one or a later one: until it all but the fetcher go on, or wait for
        what they see to change."""
        sequencer = self.sequencer
        if sequencer.taken or not self._settled(now, seen):
            return now
        sequencer.look()
        until = min(self._seen_next(), self._fed)
        if not self._steady:
            until = min(until, self.output.next(now))
        return max(now, until)

    def even(self, now: int) -> int:
        """Return a cycle until which the fetcher waits, or brings one entry of weights after the
        other, one in two cycles where several clusters share the port."""
        sequencer, fetcher = self.sequencer, self.fetcher
        until = fetcher.words[0] + 1 if fetcher.words else NEVER
        if fetcher.waits(self._room_words, self._room_entries):
            return now if self._entries != len(sequencer.entries) or fetcher.request else until
        if not sequencer.seen:
            return now
        count = fetcher.streams(now, self._room_words, self._space())
        return min(until, now + (count if self.queue is None else 2 * count))

    def brings_evenly(self, now: int) -> bool:
        """Return whether the fetcher may go on as `even` says for more than a cycle."""
        fetcher = self.fetcher
        return not fetcher.words and (fetcher.in_weights(now, self._room_words)
                                      or fetcher.waits(self._room_words, self._room_entries))

    def bring(self, now: int, seen: Shared, *, granted: bool) -> int:
        """Let a cycle pass in which only the fetcher goes on; return until when that is so.

        granted : it has the port.
        """
        sequencer = self.sequencer
        turn = sequencer.turn
        self._arrive(now)
        if turn == now:
            self._pass_ends()
        self.wait(seen, now + 1 - self._since if self.queue else 1)
        self._since = now + 1
        self.fetcher.step(now, granted, self._room_words, self._room_entries, sequencer.entries)
        self._room_words, self._room_entries = self._rooms()
        sequencer.look()
        until = self._fed
        if sequencer.turn != turn:
            until = min(until, self._seen_next())
            if self.queue is not None and self.moves > now:     # passes may have been told of
                self._find_moves(now)
        self.steady = min(self.steady, until)
        return until

    def pass_over(self, until: int) -> list[int]:
        """Let the cycles before one pass, in which passes may end that another one of the batch
        follows; return those in which the port was taken."""
        while self.sequencer.turn < until:
            self._pass_ends()
        return self.output.pass_over(until)

    def _pass_ends(self) -> None:
        """End a pass that another one of its batch follows."""
        sequencer, output = self.sequencer, self.output
        now = sequencer.turn
        if sequencer.comes(now):
            output.pending, output.came = True, now
        self._spend(now)
        sequencer.end(now)

    def _seen_next(self) -> int:
        """Return a cycle before which nobody sees a change of the sequencer: passes end in it that
        others of their batch follow, of which the output path is told before."""
        sequencer, queue, writes = self.sequencer, self.queue, self.output.writes
        if not (self._steady and sequencer.known):
            return sequencer.next
        while sequencer.untold and (queue is None or queue.lets_all(len(writes))):
            self._tell()
        return sequencer.seen_next

    def _tell(self) -> None:
        """Tell the output path of the next pass of the batch."""
        batch, told = self.sequencer.batch, self.sequencer.tell()
        if told is not None and batch is not None:
            turn, number = told
            self.output.announce(turn, batch, number)

    @property
    def _fed(self) -> int:
        """When a word comes that the executor waits for."""
        words = self.fetcher.words
        return words[0] + 1 if words and self.executor.lacks else NEVER

    @property
    def _steady(self) -> bool:
        """Whether nobody sees passes come, begin and end in the output path: another one is to come
        of the batch, its heads are kept already, and no band waits for its position."""
        return self.sequencer.batch is not None and self._same and not self.executor.holds

    @property
    def _same(self) -> bool:
        """Whether the heads that are kept next are kept already on the whole way."""
        return self._places[0] == self._kept == self._places[-1]

    def _settled(self, now: int, seen: Shared) -> bool:
        """Return whether all that is registered of others is as they are, and the executor
        waits."""
        sequencer, output = self.sequencer, self.output
        idle = sequencer.batch is None
        if not self.executor.waits(
                quiet=self._quiet, idle=idle, room=seen.room, filling=seen.filling,
                copying=seen.copying, together=self.queue is None or seen.together):
            return False
        draining = now <= output.busy
        if self.wants_write and not draining and not self._steady:
            return False
        empty = not (output.pending or draining)
        if self._quiet != (idle and empty):
            return False
        if empty and not self._same:
            return False
        if idle and not sequencer.more and self._kept != self._at:
            return False
        return self._rooms() == (self._room_words, self._room_entries)

    def _space(self) -> int:
        """Return how many entries the fetcher may bring, and there is room for more still."""
        here = self._entries // _PART
        parts = (self._freed // _PART - here - 1) % self._parts[1]
        return (here + parts) * _PART - len(self.sequencer.entries) - 2

    def _rooms(self) -> tuple[bool, bool]:
        """Return whether there is room in both rings for what may be on its way: their heads are
        not in the parts before those of their tails."""
        return (self._words // _PART + 1 - self._places[-1] // _PART) % self._parts[0] != 0, (
            self._entries // _PART + 1 - self._freed // _PART) % self._parts[1] != 0

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
        reads = self.output.reads(now)
        empty = not (self.output.pending or draining)
        if not self._same:
            given = self._kept
            for number, due in enumerate(self.output.keeping(now)):
                place = self._places[number]
                if empty or due:
                    self._places[number] = given
                given = place
        batch = sequencer.batch
        if (batch is None and not sequencer.more) or (
                sequencer.taken and batch is not None and not batch.joins):
            self._kept = self._at
        there = self._at + take != self._words
        self._at += take
        return there, there and not reads
