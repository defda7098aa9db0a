"""A machine on a board: its memories loaded, its jobs done, over a line that need not be perfect.

What the driver promises: a result that it returns was computed by the program that was loaded, from
the input that was given. How it knows:

- after each run the machine's own count of cycles is read last; it is that of the run, which a
  machine that was reset, or that never got START, does not have;
- program memory is read back after loading, and was written first: a reset on the way shows;
- the first damage makes it careful: inputs are read back before a run, results are read twice;
- where a line damages anything, results count only when the machine then still computes the known
  answers of its `Probe` (a damaged write may have passed its CRC); else all is loaded again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from celosia_boards.host.exchange import Busy, Damage, Exchange, HostError
from celosia_boards.host.job import Job, Record
from celosia_boards.host.link import Line
from celosia_boards.host.requests import Access, Requests
from celosia_hw import host_protocol as protocol
from celosia_hw.host_protocol import Command, Kind, Reply
from celosia_hw.isa import ArrayConfig, Error, Register, Space

__all__ = ["COUNTER_BITS", "Driver", "Probe", "Status"]

COUNTER_BITS = 24
"""Width of the machine's counter of cycles."""

_STEP = 128
"""Requests of a load between two reads, which make those before them certain."""
_PAUSE_S = 0.02
"""Longest run that is waited for by padding on the line; longer ones are asked after."""
_ATTEMPTS = 8
_PATIENCE_S, _PATIENCE = 2.0, 30
"""How long a run may take: so many seconds, and so many times what its cycles take."""
_REGISTERS = Space.REGISTERS << protocol.ADDRESS_BITS
_MARK = Requests.one(Command.READ + 2, _REGISTERS)
_STATUS = Requests.one(Command.STATUS)
_READ_EVENTS = Requests.one(Command.READ + 2, _REGISTERS | Register.EVENTS)


@dataclass(frozen=True, kw_only=True)
class Status:
    """The machine's state: running or not, its sticky flags, and the descriptor that runs, ran last
    or raised the error."""

    busy: bool
    saturated: bool
    error: Error | int
    descriptor: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Known answers.

    job    : images whose results are known, one run each.   cycles : what that takes, about.
    right  : tells whether the record of all of them, or of the first, is as it must be.
    """

    job: Job
    right: Callable[[Record], bool]
    cycles: int


@dataclass(frozen=True, eq=False, kw_only=True)
class _Run:
    """One run of a job: what starts it, what is read after it, and how long it takes."""

    reload: bool
    start: Requests
    access: Access
    reads: Requests
    cycles: int
    pause: int


class Lost(Exception):
    """The memories do not hold what was loaded."""


class Undone(HostError):
    """An image was not done, however often it was tried."""


@dataclass(eq=False)
class Driver:
    """The machine at the other end of ``line``.

    line     : what bytes go over.
    array    : parameters of the machine's array; its hash must be the machine's.
    clock_hz : its clock, or a lower one: for how long a run is waited for.
    notice   : called with a line for the user where something went wrong and was mended.
    """

    line: Line
    array: ArrayConfig
    clock_hz: float
    notice: Callable[[str], None] = lambda words: None
    reloads: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.line)
        self._setup: np.ndarray | None = None
        self._probe: Probe | None = None
        self._patient, self._careful = False, 0

    def greet(self) -> int:
        """Find the machine and return its array's hash; `Exchange.greet` says how it fails."""
        found = self.exchange.greet()
        self.exchange.array_hash = found
        return found

    def status(self) -> Status:
        """Ask for the machine's state; a run goes on."""
        reply = self._insist(_STATUS)
        if reply.kind is Kind.RUNNING:
            return Status(busy=True, saturated=reply.saturated, error=Error.NONE, descriptor=0)
        word = self.exchange.perform(_MARK)[0].elements(4)[Register.STATUS]
        code = word >> 8 & 0xFF
        return Status(busy=bool(word & 1), saturated=bool(word >> 1 & 1),
                      error=Error(code) if code in set(Error) else code,
                      descriptor=word >> 16 & 0xFF)

    def abort(self) -> None:
        """Stop the machine at once; its memories stay as they are."""
        self.exchange.greet()

    def write(self, at: np.ndarray, values: np.ndarray,
              progress: Callable[[int, int], None] | None = None) -> None:
        """Write words; at : uint32 (words, 2), space and address.   values : uint32 (words,).

        Blocks of eight aligned bytes that hold any of them are written whole, zeros beside them.
        """
        self._carry_out(Access.of(at, self.array).writes(values), progress)

    def read(self, at: np.ndarray) -> np.ndarray:
        """Return words, uint32 (words,), without sign; only PROGRAM, BANKS, STORE, EXPONENTS,
        RESIDUAL and REGISTERS can be read."""
        access = Access.of(at, self.array)
        return access.values(_data(self._carry_out(access.reads())))

    def load(self, setup: np.ndarray, probe: Probe,
             progress: Callable[[int, int], None] | None = None) -> None:
        """Write the memories and make sure that the machine computes with them.

        setup : uint32 (words, 3), space, address and value; PROGRAM first.
        HostError where it does not come to the known answers.
        """
        self._setup, self._probe = setup, probe
        for _ in range(_ATTEMPTS):
            before = self.exchange.tally.damages
            self.write(setup[:, :2], setup[:, 2], progress)
            if self._intact() and self._right(whole=self.exchange.tally.damages != before):
                return
        raise HostError(f"{self.line.name}: the board does not compute what it must, each of "
                        f"{_ATTEMPTS} times that it was loaded; build and flash it again, at a "
                        f"lower clock if it missed its own (--clock)")

    def frames(self, at: np.ndarray) -> int:
        """Return how many frames, of eight bytes each, words take; at : uint32 (words, 2)."""
        return len(Access.of(at, self.array))

    def execute(self, job: Job, cycles: np.ndarray,
                progress: Callable[[int, int], None] | None = None, *,
                exact: bool = True) -> Record:
        """Do a job's images on what was loaded; its setup is not looked at.

        cycles : int64 (runs,), what each run takes, about.
        exact  : whether the first run, which starts with the input, takes exactly that, by the
                 machine's count; without it the count tells nothing of whether it has run.

        The record's ``layer_cycles`` are zeros: the machine does not tell. HostError where the
        machine reports an error.
        """
        record, start = Record.empty(job), 0
        work = _Work(job, self._runs(job, cycles), Access.of(job.input_at, self.array), record,
                     exact)
        while start < job.images:
            before, end = self.exchange.tally.damages, start
            try:
                end = self._images(work, start, progress)
                if self.exchange.tally.damages == before or self._right(whole=True):
                    start = end
                    continue
            except Lost:
                pass
            self._reload(start)
        return record

    def repeat(self, last: int, cycles: int, seconds: float) -> tuple[int, float]:
        """Run descriptors 0 to ``last`` again and again, on whatever the memories hold by then.

        cycles : what a run takes.   seconds : for how long.

        Returns how many runs there were, and in how many seconds. HostError where a run reports an
        error, or the line damages anything.
        """
        pause = int(1.1 * cycles / self.clock_hz * self.line.baud / 10) + 2
        start = Requests.one(Command.START, last << 8, pause=pause)
        begun, runs = self.line.now(), 0

        def starts() -> Iterator[Requests]:
            while self.line.now() < begun + seconds:
                yield start

        try:
            for reply in self.exchange.stream(starts()):
                if reply.failed:
                    raise Damage
                runs += 1
        except (Busy, Damage):
            self.exchange.greet()
            raise HostError(f"{self.line.name}: run {runs} did not end as it must; verify the "
                            f"program on this board first (celosia verify)") from None
        return runs, self.line.now() - begun

    def _images(self, work: "_Work", start: int,
                progress: Callable[[int, int], None] | None) -> int:
        """Do images from ``start`` on: all, or as far as a stretch that was damaged went."""
        job = work.job
        for image in self._fast(work, start):
            if progress:
                progress(image + 1, job.images)
            start = image + 1
        if start < job.images:
            stretch = min(1 << self._careful, job.images - start)
            self._careful = min(self._careful + 1, 6)
            for image in range(start, start + stretch):
                self._carefully(work, image)
                if progress:
                    progress(image + 1, job.images)
            start += stretch
        return start

    def _fast(self, work: "_Work", start: int) -> Iterator[int]:
        """Yield images as they are done without a pause between them; ends early at any damage."""
        images = range(start, work.job.images)
        if self._patient or any(run.pause < 0 for run in work.runs):
            yield from self._asking(work, images)
            return
        size = sum(map(len, work.parts(start)))
        parts = (part for image in images for part in work.parts(image))
        replies: list[Reply] = []
        image = start
        try:
            for reply in self.exchange.stream(parts):
                replies.append(reply)
                if len(replies) == size:
                    if not work.take(image, replies):
                        raise Damage
                    yield image
                    image, replies = image + 1, []
        except Busy:
            self._patient = True
            self.exchange.greet()
            yield from self._asking(work, range(image, work.job.images))
        except Damage:
            self.exchange.greet()
        else:
            self._careful = 0

    def _asking(self, work: "_Work", images: range) -> Iterator[int]:
        """As `_fast`, but the machine is asked whether it is done. What a run leaves is read in one
        go with what the next one is given."""
        last = len(work.runs) - 1
        steps = [(image, number) for image in images for number in range(last + 1)]
        before: tuple[int, int, Reply] | None = None
        try:
            for step in (*steps, None):
                parts = []
                if before:
                    parts += [work.runs[before[1]].reads, _READ_EVENTS]
                if step:
                    run = work.runs[step[1]]
                    parts += [work.writes(step[0])] if run.reload else []
                    parts.append(run.start)
                replies = list(self.exchange.stream(parts))
                if before:
                    image, number, ended = before
                    count = len(work.runs[number].reads) + 1
                    if not work.result(image, number, ended, replies[:count]):
                        raise Damage
                    if number == last:
                        yield image
                if step:
                    before = *step, self._ended(work, run)
        except (Damage, Busy):
            self.exchange.greet()
        else:
            self._careful = 0

    def _carefully(self, work: "_Work", image: int) -> None:
        """Do one image over a line that damages; Lost where the memories are not as loaded."""
        counts: list[int] = []
        for _ in range(_ATTEMPTS):
            if all(self._careful_run(work, image, number) for number in range(len(work.runs))):
                return
            error = self.status().error
            self.exchange.greet()
            if not self._intact():
                raise Lost
            counts.append(int(work.record.cycles[image, 0]))
            if counts[-1] and counts.count(counts[-1]) > 2:
                return      # it does take so many: that is a result, too
        why = ("the line damages too much; use a shorter cable or another port" if not error else
               f"the machine stops with error {getattr(error, 'name', error)}; compile the program "
               f"again for this array")
        raise Undone(f"{self.line.name}: image {image} was not done in {_ATTEMPTS} attempts: {why}")

    def _careful_run(self, work: "_Work", image: int, number: int) -> bool:
        run, exchange = work.runs[number], self.exchange
        if run.reload:
            wanted = work.writes(image)
            exchange.perform(wanted)
            kept = np.flatnonzero(work.input.space != Space.REGISTERS)
            there = _data(exchange.perform(work.input.reads().at(kept)))
            if not np.array_equal(there, wanted.data[kept]):
                return False
        if not self._started(run):
            return False
        ended = self._ended(work, run)
        once = exchange.perform(run.reads)
        again = exchange.perform(Requests.joined([run.reads, _READ_EVENTS]))
        return (np.array_equal(_data(once), _data(again[:-1]))
                and work.result(image, number, ended, again))

    def _started(self, run: _Run) -> bool:
        return self.exchange.ask(run.start) is not None

    def _ended(self, work: "_Work", run: _Run) -> Reply:
        """Wait until a run is over, and return the last status; HostError where it is not."""
        takes = max(run.cycles, 1) / self.clock_hz
        limit = self.line.now() + _PATIENCE_S + _PATIENCE * max(
            takes, int(work.job.max_cycles) / self.clock_hz)
        wait = 0.0
        while True:
            reply = self._insist(_STATUS)
            if reply.kind is Kind.IDLE:
                return reply
            if self.line.now() > limit:
                raise HostError(f"{self.line.name}: a run has not ended long after the "
                                f"{run.cycles:,} cycles that it takes; flash the board again")
            wait = min(wait + takes / 16, takes / 4, 0.05)
            if wait > 0.002:
                self.line.read(wait)

    def _insist(self, request: Requests) -> Reply:
        """Return the reply to a request that does no harm, repeated without stopping a run."""
        for _ in range(_ATTEMPTS):
            reply = self.exchange.ask(request)
            if reply is not None:
                return reply
            self.exchange.settle()
        self.exchange.greet()
        reply = self.exchange.ask(request)
        if reply is None:
            raise HostError(f"{self.line.name}: the machine answers now and then; use a shorter "
                            f"cable or another port")
        return reply

    def _runs(self, job: Job, cycles: np.ndarray) -> list[_Run]:
        runs, begun = [], 0
        for (first, last, reload), end, count in zip(
                job.runs.tolist(), job.read_ends.tolist(), cycles.tolist(), strict=True):
            seconds = 1.05 * count / self.clock_hz
            pause = -1 if seconds > _PAUSE_S else int(seconds * self.line.baud / 10) + 2
            access = Access.of(job.read_at[begun:end], self.array)
            runs.append(_Run(reload=bool(reload), access=access, reads=access.reads(),
                             start=Requests.one(Command.START, first | last << 8,
                                                pause=max(pause, 0)),
                             cycles=count, pause=pause))
            begun = end
        return runs

    def _carry_out(self, requests: Requests,
                   progress: Callable[[int, int], None] | None = None) -> list[Reply]:
        """Carry out writes and reads, as fast as the line lets them; return the replies."""
        done: list[Reply] = []
        stretch = _STEP
        while len(done) < len(requests):
            certain = len(done)
            try:
                for reply in self.exchange.stream(_marked(requests, certain)):
                    if len(done) - certain == _STEP or len(done) == len(requests):
                        certain = len(done)         # that was the mark
                        stretch = _STEP
                        if progress:
                            progress(certain, len(requests))
                    else:
                        done.append(reply)
            except (Damage, Busy):
                del done[certain:]
                self.exchange.greet()
                part = requests.at(slice(certain, certain + stretch))
                done += self.exchange.perform(part)
                stretch = min(2 * stretch, 4096)
                if progress:
                    progress(len(done), len(requests))
        return done

    def _intact(self) -> bool:
        """Whether program memory holds what was loaded."""
        assert self._setup is not None
        words = self._setup[self._setup[:, 0] == Space.PROGRAM]
        return np.array_equal(self.read(words[:, :2]) & 0xFFFF, words[:, 2] & 0xFFFF)

    def _right(self, *, whole: bool) -> bool:
        """Whether the machine comes to the known answers: to the first, or to all."""
        assert self._probe is not None
        job = self._probe.job if whole else self._probe.job.first(1)
        record = Record.empty(job)
        work = _Work(job, self._runs(job, np.array([self._probe.cycles])),
                     Access.of(job.input_at, self.array), record, exact=False)
        try:
            image = 0
            while image < job.images:
                image = self._images(work, image, None)
        except (Lost, Undone):
            return False
        return self._probe.right(record)

    def _reload(self, image: int) -> None:
        """Load all again, and say so."""
        assert self._setup is not None and self._probe is not None
        self.reloads += 1
        if self.reloads > 100:
            raise HostError(f"{self.line.name}: the board lost its program {self.reloads} times; "
                            f"check its power")
        self.load(self._setup, self._probe)
        self.notice(f"{self.line.name}: the board had lost its program, by a reset or a damaged "
                    f"line; it was loaded again, going on with image {image}")


@dataclass(eq=False)
class _Work:
    """A job in requests, and the record that their replies go to.

    exact : whether the first run must take the cycles that it is said to.
    """

    job: Job
    runs: list[_Run]
    input: Access
    record: Record
    exact: bool

    def writes(self, image: int) -> Requests:
        """Return what writes an image's input."""
        return self.input.writes(self.job.input_values[image])

    def parts(self, image: int) -> list[Requests]:
        """Return all requests of an image, none of which waits for a reply."""
        found = []
        for run in self.runs:
            found += [self.writes(image)] if run.reload else []
            found += [run.start, _STATUS, run.reads, _READ_EVENTS]
        return found

    def take(self, image: int, replies: list[Reply]) -> bool:
        """Keep what the replies to `parts` say; False where they cannot be of these runs."""
        at, good = 0, True
        for number, run in enumerate(self.runs):
            at += (len(self.input) if run.reload else 0) + 2
            end = at + len(run.reads) + 1
            good &= self.result(image, number, replies[at - 1], replies[at:end])
            at = end
        return good

    def result(self, image: int, number: int, ended: Reply, replies: list[Reply]) -> bool:
        """Keep what a run gave: the status at its end, its reads, and the count of its cycles.

        False where the machine cannot have run it: an error, or another count.
        """
        run, end = self.runs[number], int(self.job.read_ends[number])
        begin = end - len(run.access.block)
        count = replies[-1].elements(4)[0]
        self.record.cycles[image, number] = count
        self.record.saturated[image, number] = ended.saturated
        self.record.reads[image, begin:end] = run.access.values(_data(replies[:-1]))
        if ended.failed or ended.kind is not Kind.IDLE:
            return False
        if not self.exact:
            return True
        return count > 0 and (number > 0 or count == run.cycles % (1 << COUNTER_BITS))


def _marked(requests: Requests, start: int) -> Iterator[Requests]:
    """Yield requests from ``start`` on, and a read after every `_STEP` of them and the last."""
    for begin in range(start, len(requests), _STEP):
        yield requests.at(slice(begin, begin + _STEP))
        yield _MARK


def _data(replies: list[Reply]) -> np.ndarray:
    """Return what reads brought, uint8 (replies, 8)."""
    return np.frombuffer(b"".join(reply.data for reply in replies), np.uint8).reshape(
        -1, protocol.DATA_BYTES)
