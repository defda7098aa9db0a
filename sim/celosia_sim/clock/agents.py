"""Those who wait for each other: sequencer, output path, executor, fill engine, fetcher.

Each has what its registers hold in the current cycle, and is told what happens in it. What the
gateware does is written here once more, apart from it.
"""

from collections import deque
from collections.abc import Sequence

from celosia_sim.clock.drains import Drains, Writing
from celosia_sim.clock.events import Batch, Command, Entry
from celosia_spec.stream.array import ENTRY_WORDS, Array
from celosia_spec.stream.controls import Op
from celosia_spec.stream.passes import RESIDUAL_AHEAD
from celosia_spec.stream.timing import MANTISSA

NEVER = 1 << 62
"""A cycle that does not come."""

_QUIET = (Op.LAYER, Op.TAPS, Op.TILES, Op.JOIN, Op.CLOSE, Op.HALT)
_AHEAD = RESIDUAL_AHEAD + 2
_INSIDE = MANTISSA + 1      # a step until its entry is no longer needed


class Sequencer:
    """Steps of batches.

    entries : for each entry that was written, when.   batch : what runs, if something does.
    turn    : when its pass ends, once that is known.   began : when its first step is issued.
    announce : when a pass with a residual operand is announced.
    freed   : (cycle, entries) from when on the first entries are no longer needed.
    """

    def __init__(self) -> None:
        self.entries: list[int] = []
        self.batch: Batch | None = None
        self.turn = self.began = self.announce = NEVER
        self.number = 0
        self.freed: deque[tuple[int, int]] = deque()
        self.taken = False          # registered: a batch was taken over in the cycle before
        self._from = self._ready = 0
        self._last, self._dense = -NEVER, False

    @property
    def ends(self) -> bool:
        """The pass is its batch's last."""
        return self.batch is not None and self.number == self.batch.passes - 1

    def look(self) -> None:
        """Find when the first pass ends, and begins, as soon as its entries are there."""
        batch = self.batch
        if batch is None or self.turn != NEVER:
            return
        entries = self.entries
        if len(entries) > batch.first and self.began == NEVER and batch.steps > 1:
            self.began = max(self._ready, entries[batch.first] + 2)
        if len(entries) < batch.first + batch.entries:
            return
        before, entry, left = self._ready - 1, batch.first, batch.steps - 1
        while left:
            steps = min(batch.entry_steps, left)
            before = max(before + 1, entries[entry] + 2) + steps - 1
            left -= steps
            entry += steps == batch.entry_steps
        there = max(before + 1, entries[entry] + 2)
        self.turn = max(there, self._from + batch.layer.least)
        if batch.layer.residual and not batch.open:
            self.announce = max(there, self._from + batch.layer.least - RESIDUAL_AHEAD)
            self.turn = max(self.turn, self.announce + RESIDUAL_AHEAD)
        if batch.steps == 1:
            self.began = self.turn

    def comes(self, now: int) -> bool:
        """Return whether a pass is on its way to the output path from this cycle on."""
        batch = self.batch
        if batch is None or batch.open:
            return False
        return now == (self.announce if batch.layer.residual else self.turn)

    def end(self, now: int) -> None:
        """A pass ends."""
        batch = self.batch
        assert batch is not None
        if self.ends:
            self._leave(now, batch)
            return
        self.number += 1
        self.turn = now + max(batch.layer.least, batch.steps)
        if batch.layer.residual and not batch.open:
            self.announce = max(now + 2 + max(0, batch.steps - _AHEAD),
                                now + batch.layer.least - RESIDUAL_AHEAD)
            self.turn = max(self.turn, self.announce + RESIDUAL_AHEAD)

    def take(self, now: int, batch: Batch) -> None:
        """Take a batch over; the one before may end in the same cycle."""
        if self.batch is not None:
            self._leave(now, self.batch)
        self.batch, self.number = batch, 0
        self._from, self._ready = now, now + 1
        if self._dense and not batch.dense and now <= self._last + _INSIDE:
            self._ready = max(self._last + _INSIDE + 1, now + 2)
        self._dense = batch.dense
        self.turn = self.began = self.announce = NEVER

    def _leave(self, now: int, batch: Batch) -> None:
        self.freed.append((now + _INSIDE, batch.first + batch.entries))
        self.batch, self.turn, self._last = None, NEVER, now


class Output:
    """Passes on their way to main memory.

    starts : (cycle, batch, pass, place of its heads) of those that come.   heads : cycles in which
    it reads words of the controls' ring.   busy : last cycle of the last pass.   pending : one is
    on its way, and has not begun.
    """

    def __init__(self, array: Array, delay: int) -> None:
        self.drains, self._delay = Drains(array), delay
        self.starts: deque[tuple[int, Batch, int, int]] = deque()
        self.heads: set[int] = set()
        self._writes: set[int] = set()
        self._reads: set[int] = set()
        self._rows: deque[tuple[int, Writing]] = deque()
        self.busy = 0
        self.pending = False
        self._unplaced: deque[int] = deque()

    def announce(self, now: int, batch: Batch, number: int, heads: int) -> None:
        """A pass comes."""
        self.starts.append((now + self._delay + self.drains.lag, batch, number, heads))

    def starting(self, now: int) -> int | None:
        """Begin a pass if it is its turn; return the place of its heads."""
        if not self.starts or self.starts[0][0] != now:
            return None
        _, batch, number, heads = self.starts.popleft()
        drain = self.drains.of(batch, number)
        self.heads.update([now + cycle for cycle in drain.heads])
        self._writes.update([now + cycle for cycle in drain.writes])
        self._reads.update([now + cycle for cycle in drain.reads])
        self._rows.extend((now + row.begins, Writing(self.drains.array, row))
                          for row in drain.rows)
        self.busy = max(self.busy, now + drain.busy)
        self._unplaced.append(now + drain.placed)
        return heads

    def port(self, now: int) -> bool:
        """Return whether main memory's port is taken."""
        found, reads = now in self._writes, now in self._reads
        self._writes.discard(now)
        self._reads.discard(now)
        if self._rows and self._rows[0][0] <= now:
            writing = self._rows[0][1]
            found |= writing.step(free=not reads)
            if writing.over:
                self._rows.popleft()
        return found or reads

    def placed(self, now: int) -> bool:
        """Return whether all that began have their bands' positions."""
        while self._unplaced and self._unplaced[0] < now:
            self._unplaced.popleft()
        return not self._unplaced and not self.pending


class FillEngine:
    """Records of fills.

    queued : records that are not done.
    """

    def __init__(self) -> None:
        self.queued = 0
        self._records: deque[Command] = deque()
        self._lines: list[int] = []         # accesses of the lines to come, backwards
        self._channels: deque[list[int]] = deque()
        self._left = self._runs = self._goes = self._next = 0
        self._ended, self._done, self._working = NEVER, NEVER, False

    @property
    def idle(self) -> bool:
        return not self.queued

    def wants(self, now: int) -> bool:
        """Return whether a word is wanted, or four zeros are written."""
        return self._working and self._left > 0 and now >= self._runs

    @property
    def zero(self) -> bool:
        return self._records[0].zero

    def step(self, now: int, granted: bool, loaded: Command | None) -> None:
        """Let a cycle pass, with an access or not; a record may be there from the next one on."""
        if not self._working:
            if self.queued and now >= self._next:
                self._begin(now)
        else:
            if granted:
                self._left -= 1
                if not self._left:
                    self._ended = now
            if now == max(self._ended + 1, self._goes):
                self._turn(now)
            if now == self._done:
                self._records.popleft()
                self.queued -= 1
                self._working, self._done, self._next = False, NEVER, now + 1
        if loaded is not None:
            self._records.append(loaded)
            self.queued += 1

    def _begin(self, now: int) -> None:
        record = self._records[0]
        assert record.lines is not None
        self._working = True
        self._channels = deque(record.lines)
        self._lines = self._channels.popleft()[::-1]
        self._line(now, 6, 4)

    def _turn(self, now: int) -> None:
        """A line ends."""
        if self._lines:
            self._line(now, 3, 4)
        elif self._channels:
            self._lines = self._channels.popleft()[::-1]
            self._line(now, 4, 4)
        else:
            self._ended, self._done = NEVER, now + 3

    def _line(self, now: int, prepared: int, rest: int) -> None:
        """Begin a line: its address is there after so many cycles, all else ``rest`` later."""
        self._left, self._ended = self._lines.pop(), NEVER
        self._goes = now + prepared + rest
        self._runs = self._goes if self._records[0].apart else now + prepared + 1


class Fetcher:
    """Entries from main memory to the rings.

    request : an access is wanted.   busy : the list has not ended.
    words, entries : cycles in which control words and entries are written, still to come.
    """

    def __init__(self, entries: Sequence[Entry], chunks: int) -> None:
        self.request, self.busy = False, True
        self.words: deque[int] = deque()
        self._entries, self._at, self._chunks = entries, 0, chunks
        self._swap, self._load, self._leave = 1, NEVER, NEVER
        self._switch, self._part, self._ahead, self._owed = NEVER, False, NEVER, NEVER
        self._running = self._listing = self._ended = self._weights = self._tight = False
        self._pace = 0

    def waits(self, room_words: bool, room_entries: bool) -> bool:
        """Return whether nothing changes before there is room."""
        if not self.busy:
            return True
        room = room_words and (room_entries or not (self._weights or self._tight))
        return (self._running and not (self._ended or room or self.request or self.words
                                       or self._pace))

    def step(self, now: int, granted: bool, room_words: bool, room_entries: bool,
             written: list[int]) -> None:
        """Let a cycle pass; append the cycle in which an entry of weights is written."""
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
        self._pace = 2 if granted else max(self._pace - 1, 0)
        if granted and self._listing:
            self._listing, self._load = False, now + 1
        self._listing |= swap
        self._ended |= ends
        if self._load == now:
            self._running, self._ended = True, False
        if self._leave == now:
            self._running = False
            self._chunks -= 1
            self.busy = self._chunks > 0
            if self.busy:
                self._swap = now + 1
        self._weights = weights


class Executor:
    """Control words, executed in their order.

    have : the next word is there.   offer : the batch that it has, if it has one.
    jump : words of heads are passed over.
    """

    def __init__(self, commands: Sequence[Command]) -> None:
        self._commands = iter(commands)
        self._command = Command(op=Op.WAIT, words=0)
        self.have, self.busy, self.closed = False, True, False
        self._fetch = True
        self._act = self._fields = self._jump = self._waiting = self._hold = False
        self._left = self._here = self._step = 0
        self._written = False
        self.began = False          # registered: a batch's first step was issued

    @property
    def offer(self) -> Batch | None:
        return self._command.batch if self._act else None

    @property
    def waits(self) -> bool:
        """Whether nothing changes before the batch that runs begins, or ends, or words come."""
        if self._fetch or self._fields:
            return not self.have
        command = self._command
        return self._jump or (self._act and command.op != Op.FILL
                              and (command.op != Op.WAIT or command.words > 0))

    @property
    def takes(self) -> bool:
        """Whether a word is taken."""
        return self.have and (self._fetch or (self._fields and not self._hold))

    @property
    def jumps(self) -> int | None:
        """Words of heads that are passed over now."""
        if not (self._jump and self.began):
            return None
        assert self._command.batch is not None
        return self._command.batch.heads

    def step(self, *, quiet: bool, idle: bool, room: bool, filling: bool, placed: bool,
             taken: bool) -> Command | None:
        """Let a cycle pass; return a fill whose last word was loaded.

        taken : registered, a batch was taken over.
        """
        command, op = self._command, self._command.op
        fetched = self._fetch and self.have
        word = self._fields and self.have and not self._hold
        sets = self._fields and self._hold and self.have and op != Op.BAND
        ready = self._act and self._ready(quiet=quiet, idle=idle, room=room, filling=filling)
        counts = word or self._waiting
        ends = counts and self._left == 1
        jumps = self._jump and self.began
        batch = command.batch if self._act and taken else None
        nothing = op == Op.WAIT and not command.words
        fetch = ((self._fetch and not self.have) or (ready and nothing) or jumps or ends
                 or (batch is not None and batch.joins))
        self._jump = (batch is not None and not batch.joins) or (self._jump and not self.began)
        self._act = fetched or (self._act and not ready and not taken)
        self._fields = (ready and op not in (Op.WAIT, Op.HALT)) or (self._fields and not ends)
        self._waiting = (ready and op == Op.WAIT and not nothing) or (self._waiting and not ends)
        self._hold = ((word and self._here == 2 and op in (Op.BAND, Op.JOIN))
                      or (self._hold and not (placed if op == Op.BAND else self.closed)))
        self.busy = self.busy and not (ready and op == Op.HALT)
        self._here += word
        self._left -= counts
        if fetched:
            self._begin()
        self._fetch = fetch
        step = self._step
        self._step = (step + (sets and not self._written and not self.closed)) % 4
        self.closed, self._written = self._written, step == 3
        return command if word and op == Op.FILL and ends else None

    def _begin(self) -> None:
        """A command comes."""
        self._command = command = next(self._commands)
        self._left, self._here = command.words, int(command.op == Op.JOIN)
        self._hold |= command.op == Op.CLOSE

    def _ready(self, *, quiet: bool, idle: bool, room: bool, filling: bool) -> bool:
        op = self._command.op
        if op in _QUIET:
            return quiet
        if op == Op.FILL:
            return room
        if op == Op.BAND:
            return idle and not filling
        return op == Op.WAIT and (idle or not self._command.words)
