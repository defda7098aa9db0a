"""Control words: the fetcher, which brings them and the entries, and the executor.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque
from collections.abc import Sequence

from celosia_sim.clock.events import NEVER, Batch, Chunk, Command, Entry
from celosia_spec.isa.array import ENTRY_WORDS
from celosia_spec.isa.controls import Op

_TOGETHER = (Op.BAND, Op.WAIT, Op.COPY, Op.JOIN, Op.CLOSE)
_QUIET = (Op.LAYER, Op.TAPS, Op.TILES, Op.JOIN, Op.CLOSE, Op.HALT)


class Fetcher:
    """Entries from main memory to the rings.

    request : an access is wanted.   busy : the list has not ended.
    odd : whether the word that it wants, or will want next, has an odd number.
    words, entries : cycles in which control words and entries are written, still to come.
    """

    def __init__(self, entries: Sequence[Entry], places: Sequence[int],
                 chunks: Sequence[Chunk]) -> None:
        self._places, self._list = places, deque(chunks)
        self._waits, self._count = False, 0
        self.request, self.busy = False, True
        self.words: deque[int] = deque()
        self._entries, self._at = entries, 0
        self._swap, self._load, self._leave = 1, NEVER, NEVER
        self._switch, self._part, self._ahead, self._owed = NEVER, False, NEVER, NEVER
        self._running = self._listing = self._ended = self._weights = self._tight = False
        self._pace = 0

    @property
    def odd(self) -> bool:
        at = self._list[0].at if self._listing else self._places[self._at]
        return at % 2 == 1

    @property
    def lacks(self) -> bool:
        """Whether a chunk waits for a section of flash that is not there."""
        return self._waits and not self._count

    def waits(self, room_words: bool, room_entries: bool) -> bool:
        """Return whether nothing changes before there is room."""
        if not self.busy:
            return True
        if self._waits:
            return not (self._count or self.words or self._pace)
        room = room_words and (room_entries or not (self._weights or self._tight))
        return (self._running and not (self._ended or room or self.request or self.words
                                       or self._pace))

    def in_weights(self, now: int, room_words: bool) -> bool:
        """Return whether it goes from one entry of weights to the next."""
        return (self._running and self._weights and self.request and room_words
                and not (self._ended or self._tight or self._pace)
                and now not in (self._ahead, self._owed, self._switch))

    def streams(self, now: int, room_words: bool, most: int) -> int:
        """Return in how many cycles it brings nothing but entries of weights, one in each in which
        it has the port; 0 where it does something else, too.

        most : entries that there is room for.
        """
        if not self.in_weights(now, room_words):
            return 0
        count = 0
        while count < most and not (self._entries[self._at + count].closes
                                    or self._entries[self._at + count].ends):
            count += 1
        return count

    def bring(self, cycles: Sequence[int], written: list[int]) -> None:
        """Bring entries of weights, one in each of these cycles, with others behind them."""
        self._at += len(cycles)
        written += [cycle + 1 for cycle in cycles]

    def pass_over(self, start: int, until: int, taken: Sequence[int], written: list[int]) -> None:
        """Bring entries in the cycles from one until another that are not taken."""
        if taken:
            lost = frozenset(taken)
            found = [now + 1 for now in range(start, until) if now not in lost]
        else:
            found = list(range(start + 1, until + 1))
        self._at += len(found)
        written += found

    def step(self, now: int, granted: bool, room_words: bool, room_entries: bool,
             written: list[int], *, copied: bool = False) -> None:
        """Let a cycle pass; append the cycle in which an entry of weights is written.

        copied : a section of flash is in main memory.
        """
        used = self._waits and self._count > 0
        self._count += copied - used
        switch = self._switch == now
        part = switch and self._part
        wants = self._weights or switch
        room = room_words and ((room_entries and not part) if wants else
                               not granted and not self._pace and not self._tight)
        weights, ends = wants, False
        if granted and self._running:
            entry = self._entries[self._at]
            self._at += 1
            ends = entry.ends
            if entry.weights:
                written.append(now + 1)
                if not wants:
                    self._ahead = now + 1
                elif part:
                    self._owed = now + 1
                else:
                    weights = not entry.closes
            else:
                self.words.extend(now + 2 + k for k in range(entry.words))
                if entry.closes:
                    self._switch, self._part = now + 1 + entry.words, entry.part
            if ends:
                self._leave = now + 2 + (0 if entry.weights else ENTRY_WORDS)
        ahead = switch and self._ahead == now
        single = self._entries[self._at - 1].closes
        if ahead and part:
            self._owed = now + 1
        elif (ahead or self._owed == now) and single:
            weights = False
        swap = self._swap == now
        self._tight = not room_entries and (self._tight or (switch and (granted or ahead)))
        self.request = swap or (self.request and not granted) or (
            self._running and room and not self._ended and not ends)
        words = granted and self._running and not wants
        self._pace = 2 if words else 0 if switch else max(self._pace - 1, 0)
        if granted and self._listing:
            self._listing, self._load = False, now + 1
        self._listing |= swap
        self._ended |= ends
        if self._load == now:
            self._waits = self._list.popleft().waits
            self._running, self._ended = not self._waits, False
        if used:
            self._running, self._waits = True, False
        if self._leave == now:
            self._running = False
            self.busy = len(self._list) > 0
            if self.busy:
                self._swap = now + 1
        self._weights = weights


class Executor:
    """Control words, executed in their order.

    there : the next word is there.   have : and it was read.
    offer : the batch that it has, if it has one.
    """

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = iter(commands)
        self._command = Command(op=Op.NOTHING, words=0)
        self.have = self.there = False
        self.busy, self.closed = True, False
        self._fetch = True
        self._act = self._fields = self._hold = False
        self._left = self._here = self._step = 0
        self._written = False

    @property
    def holds(self) -> bool:
        """Whether a word waits, for a place or for what closes a layer."""
        return self._hold

    @property
    def lacks(self) -> bool:
        """Whether it waits for a word of control."""
        return self._fetch or self._fields

    @property
    def offer(self) -> Batch | None:
        return self._command.batch if self._act else None

    def waits(self, *, quiet: bool, idle: bool, room: bool, filling: bool, copying: bool,
              together: bool) -> bool:
        """Return whether nothing changes before words come, or what it is told of the others."""
        if self._fetch or self._fields:
            return not (self.there or (self._fields and self._hold))
        if self._command.batch is not None:
            return self._act and not idle
        return self._act and not self._carries_out(quiet=quiet, idle=idle, room=room,
                                                   filling=filling, copying=copying,
                                                   together=together)

    def stops(self, *, quiet: bool, filling: bool, copying: bool) -> str:
        """Return why there is no batch, a key of `SPENT`."""
        op = self._command.op if self._act else None
        if op == Op.BAND and filling:
            return "fill"
        if op == Op.COPY and copying:
            return "flash"
        return "drain" if op in _QUIET and not quiet else "control"

    @property
    def takes(self) -> bool:
        """Whether a word is taken."""
        if self._fetch:
            return self.have
        return self._fields and not self._hold and (
            self.there if self._command.batch else self.have)

    def comes(self, *, quiet: bool, idle: bool) -> bool:
        """Return whether it waits for other clusters, and for nothing of its own."""
        op = self._command.op
        return self._act and op in _TOGETHER and (
            op == Op.COPY or (quiet if op in _QUIET else idle))

    def step(self, *, quiet: bool, idle: bool, room: bool, filling: bool, placed: bool,
             taken: bool, copying: bool, together: bool) -> Command | None:
        """Let a cycle pass; return a fill, or a copy, whose last word was loaded.

        taken : registered, a batch was taken over.   copying : the flash reader is not free.
        together : all clusters have come.
        """
        command, op = self._command, self._command.op
        if self._act and op is None and not (taken or self._hold or self._step or self.closed
                                             or self._written):
            return None         # a batch that nobody takes over
        fetched = self._fetch and self.have
        word = self._fields and self.takes
        sets = self._fields and self._hold and self.have and op != Op.BAND
        ready = self._act and self._carries_out(quiet=quiet, idle=idle, room=room, filling=filling,
                                                copying=copying, together=together)
        ends = word and self._left == 1
        batch = command.batch if self._act and taken else None
        heads = batch.heads if batch is not None else 0
        nothing = op in (Op.WAIT, Op.NOTHING)
        fetch = ((self._fetch and not self.have) or (ready and nothing) or ends
                 or (batch is not None and batch.joins))
        self._act = fetched or (self._act and not ready and not taken)
        self._fields = ((ready and not nothing and op != Op.HALT) or heads > 0
                        or (self._fields and not ends))
        self._hold = ((word and self._here == 2 and op in (Op.BAND, Op.JOIN))
                      or (self._hold and not (placed if op == Op.BAND else self.closed)))
        self.busy = self.busy and not (ready and op == Op.HALT)
        self._here += word
        self._left = heads or self._left - word
        if fetched:
            self._begin()
        self._fetch = fetch
        step = self._step
        self._step = (step + (sets and not self._written and not self.closed)) % 4
        self.closed, self._written = self._written, step == 3
        return command if word and op in (Op.FILL, Op.COPY) and ends else None

    def _begin(self) -> None:
        """A command comes."""
        self._command = command = next(self._commands)
        self._left, self._here = command.words, int(command.op == Op.JOIN)
        self._hold |= command.op == Op.CLOSE

    def _carries_out(self, *, quiet: bool, idle: bool, room: bool, filling: bool, copying: bool,
                     together: bool) -> bool:
        """Return whether nothing that its command waits for is missing."""
        op = self._command.op
        if op in _TOGETHER and not together:
            return False
        if op == Op.COPY:
            return not copying
        if op in _QUIET:
            return quiet
        if op == Op.FILL:
            return room
        if op == Op.BAND:
            return idle and not filling
        return op == Op.NOTHING or (op == Op.WAIT and idle)
