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
from dataclasses import dataclass

import numpy as np

from celosia_boards.host.exchange import Busy, Damage, Exchange, HostError
from celosia_boards.host.job import Job, Record
from celosia_boards.host.link import Line
from celosia_boards.host.requests import Access, Requests
from celosia_boards.host.work import READ_EVENTS, STATUS, Run, Work, data_of
from celosia_hw import host_protocol as protocol
from celosia_hw.host_protocol import Command, Kind, Reply
from celosia_hw.isa import ArrayConfig, Error, Register, Space

__all__ = ["Driver", "Probe", "Status"]

_STEP = 128
"""Requests of a load between two reads, which make those before them certain."""
_ATTEMPTS = 8
_PATIENCE_S, _PATIENCE = 2.0, 30
"""How long a run may take: so many seconds, and so many times what its cycles take."""
_REGISTERS = Space.REGISTERS << protocol.ADDRESS_BITS
_MARK = Requests.one(Command.READ + 2, _REGISTERS)


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

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.line)
        self._setup: np.ndarray | None = None
        self._probe: Probe | None = None
        self._patient, self._careful = False, 0
        self._lost = (-1, 0)        # image at which the program was lost, and how often in a row

    def greet(self) -> int:
        """Find the machine and return its array's hash; `Exchange.greet` says how it fails."""
        found = self.exchange.greet()
        self.exchange.array_hash = found
        return found

    def status(self) -> Status:
        """Ask for the machine's state; a run goes on."""
        reply = self._insist(STATUS)
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
        return access.values(data_of(self._carry_out(access.reads())))

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
        work, start = self._work(job, cycles, exact=exact), 0
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
        return work.record

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

    def _images(self, work: Work, start: int,
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

    def _fast(self, work: Work, start: int) -> Iterator[int]:
        """Yield images as they are done without a pause between them; ends early at any damage."""
        images = range(start, work.job.images)
        if self._patient or not all(run.bridged for run in work.runs):
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

    def _asking(self, work: Work, images: range) -> Iterator[int]:
        """As `_fast`, but the machine is asked whether it is done. What a run leaves is read in one
        go with what the next one is given."""
        last = len(work.runs) - 1
        steps = [(image, number) for image in images for number in range(last + 1)]
        before: tuple[int, int, Reply] | None = None
        try:
            for step in (*steps, None):
                parts = []
                if before:
                    parts += [work.runs[before[1]].reads, READ_EVENTS]
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

    def _carefully(self, work: Work, image: int) -> None:
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

    def _careful_run(self, work: Work, image: int, number: int) -> bool:
        run, exchange = work.runs[number], self.exchange
        if run.reload:
            wanted = work.writes(image)
            exchange.perform(wanted)
            kept = np.flatnonzero(work.input.space != Space.REGISTERS)
            there = data_of(exchange.perform(work.input.reads().at(kept)))
            if not np.array_equal(there, wanted.data[kept]):
                return False
        if not self._started(run):
            return False
        ended = self._ended(work, run)
        once = exchange.perform(run.reads)
        again = exchange.perform(Requests.joined([run.reads, READ_EVENTS]))
        return (np.array_equal(data_of(once), data_of(again[:-1]))
                and work.result(image, number, ended, again))

    def _started(self, run: Run) -> bool:
        return self.exchange.ask(run.start) is not None

    def _ended(self, work: Work, run: Run) -> Reply:
        """Wait until a run is over, and return the last status; HostError where it is not."""
        takes = max(run.cycles, 1) / self.clock_hz
        limit = self.line.now() + _PATIENCE_S + _PATIENCE * max(
            takes, int(work.job.max_cycles) / self.clock_hz)
        wait = 0.0
        while True:
            reply = self._insist(STATUS)
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

    def _work(self, job: Job, cycles: np.ndarray, *, exact: bool) -> Work:
        return Work.of(job, cycles, self.array, clock_hz=self.clock_hz, baud=self.line.baud,
                       exact=exact)

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
        work = self._work(job, np.array([self._probe.cycles]), exact=False)
        try:
            image = 0
            while image < job.images:
                image = self._images(work, image, None)
        except (Lost, Undone):
            return False
        return self._probe.right(work.record)

    def _reload(self, image: int) -> None:
        """Load all again, and say so. HostError where that was done too often at one image."""
        assert self._setup is not None and self._probe is not None
        self._lost = (image, self._lost[1] + 1 if image == self._lost[0] else 1)
        if self._lost[1] > _ATTEMPTS:
            raise HostError(f"{self.line.name}: the board lost its program {_ATTEMPTS} times at "
                            f"image {image}; check its power and its cable")
        self.load(self._setup, self._probe)
        self.notice(f"{self.line.name}: the board had lost its program, by a reset or a damaged "
                    f"line; it was loaded again, going on with image {image}")


def _marked(requests: Requests, start: int) -> Iterator[Requests]:
    """Yield requests from ``start`` on, and a read after every `_STEP` of them and the last."""
    for begin in range(start, len(requests), _STEP):
        yield requests.at(slice(begin, begin + _STEP))
        yield _MARK
