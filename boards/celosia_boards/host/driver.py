"""A machine on a board: its memories loaded, its jobs done, over a line that need not be perfect.

What the driver promises: a result that it returns was computed by the program that was loaded, from
the input that was given. How it knows:

- after each run the machine's own count of cycles is read, on a good line last; it is that of the
  run, which a machine that was reset, or that never got START, does not have;
- the begin of the stream in main memory is read back after loading, and was written first: a reset
  on the way shows;
- the first damage makes it careful: inputs are read back before a run, results are read twice,
  and what was read back after loading after them;
- where a line damages anything, results count only when the machine then still computes the known
  answers of its `Probe` (a damaged write may have passed its CRC); else all is loaded again.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from celosia_boards.host.exchange import Busy, Damage, HostError
from celosia_boards.host.job import Job, Record
from celosia_boards.host.machine import ATTEMPTS, Endless, Machine
from celosia_boards.host.requests import READ_EVENTS, REGISTER_BYTES
from celosia_boards.host.work import Work, data_of
from celosia_spec.host_side import READ_BACK
from celosia_spec.isa.frames import Reply
from celosia_spec.isa.memories import Space
from celosia_spec.isa.numbers import ELEMENT_BITS
from celosia_spec.isa.registers import FLASH_ERRORS, WAYS_OUT

__all__ = ["Driver", "Probe"]

@dataclass(frozen=True, kw_only=True)
class Probe:
    """Known answers.

    job    : images whose results are known, one run each.   cycles : what that takes, about.
    right  : tells whether the record of all of them, or of the first, is as it must be.
    """

    job: Job
    right: Callable[[Record], bool]
    cycles: int


_LENIENT = 3        # times that a machine is loaded that need not know the answers


class Lost(Exception):
    """The memories do not hold what was loaded."""


class Undone(HostError):
    """An image was not done, however often it was tried; ``error`` is the machine's, 0 for none."""

    def __init__(self, words: str, error: int) -> None:
        super().__init__(words)
        self.error = error


@dataclass(eq=False)
class Driver:
    """What loads a machine and does jobs on it.

    notice : called with a line for the user where something went wrong and was mended.

    ``overwritten`` is how often memories were loaded, or a probe ran in them: what runs have left
    there for later ones is gone each time.
    """

    machine: Machine
    notice: Callable[[str], None] = lambda words: None

    def __post_init__(self) -> None:
        self.overwritten = 0
        self._setup: np.ndarray | None = None
        self._probe: Probe | None = None
        self._patient, self._careful = False, 0
        self._lost = (-1, 0)        # image at which the program was lost, and how often in a row

    def load(self, setup: np.ndarray, probe: Probe | None,
             progress: Callable[[int, int], None] | None = None, *,
             insist: bool = True) -> None:
        """Write the memories and make sure that the machine computes with them.

        setup  : uint32 (words, 3), space, address and value; those that are read back first, see
                 `READ_BACK`.
        probe  : None where nothing is known.
        insist : refuse a machine that does not come to the known answers, HostError. Without it
                 such a machine is taken as it is, and not asked for them again: for who wants to
                 see what it does.

        Undone where the machine stops twice with the same error of its flash, from which layers of
        the program come: after a reset it may have such an error once, and loading forgives it.
        """
        self._setup, self._probe = setup, probe
        flash = 0
        for attempt in range(ATTEMPTS if insist else _LENIENT):
            if attempt:
                self.notice(f"{self.machine.name}: the board was reset while it was loaded, or the "
                            f"line damaged something, or it does not compute what it must; loading "
                            f"it again")
            before = self.machine.damages
            self.overwritten += 1
            self.machine.settle()
            self.machine.write(setup[:, :2], setup[:, 2], progress)
            try:
                if self._intact() and self._answers(whole=self.machine.damages != before):
                    return
            except Undone as undone:
                if insist and undone.error in FLASH_ERRORS and undone.error == flash:
                    raise
                flash = undone.error
        if not insist and self._intact():
            self._probe = None
            return
        raise HostError(f"{self.machine.name}: the board does not compute what it must, each of "
                        f"{ATTEMPTS} times that it was loaded; celosia verify names the layer; "
                        f"build and flash it again, at a lower clock if it missed its own "
                        f"(--clock)")

    def execute(self, job: Job, cycles: int,
                progress: Callable[[int, int], None] | None = None, *,
                exact: bool = True) -> Record:
        """Do a job's images on what was loaded; its setup is not looked at.

        cycles : what a run takes, about.
        exact  : whether it takes exactly that, by the machine's count; without it the count tells
                 nothing of whether it has run, and what was loaded first is read after the images.

        HostError where the machine reports an error.
        """
        work, start = self._work(job, cycles, exact=exact), 0
        self._lost = (-1, 0)
        while start < job.images:
            before, end = self.machine.damages, start
            try:
                end = self._images(work, start, progress)
                if ((self.machine.damages == before or self._right(whole=True))
                        and (exact or self._intact(job))):
                    start = end
                    continue
            except Lost:
                pass
            except Endless:         # what it ran was not the program, perhaps
                self.machine.abort()
                if self._intact(job):
                    raise
            self._reload(start)
        return work.record

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
        if self._patient or not work.run.bridged:
            yield from self._asking(work, images)
            return
        size = sum(map(len, work.parts(start)))
        parts = (part for image in images for part in work.parts(image))
        replies: list[Reply] = []
        image = start
        try:
            for reply in self.machine.exchange.stream(parts):
                replies.append(reply)
                if len(replies) == size:
                    if not work.take(image, replies):
                        raise Damage
                    yield image
                    image, replies = image + 1, []
        except Busy:
            self._patient = True
            self.machine.exchange.greet()
            yield from self._asking(work, range(image, work.job.images))
        except Damage:
            self.machine.exchange.greet()
        else:
            self._careful = 0

    def _asking(self, work: Work, images: range) -> Iterator[int]:
        """As `_fast`, but the machine is asked whether it is done. What a run leaves is read in one
        go with what the next one is given."""
        before: tuple[int, Reply] | None = None
        try:
            for image in (*images, None):
                parts = [work.reads, READ_EVENTS] if before else []
                if image is not None:
                    parts += [work.writes(image), work.run.start]
                replies = list(self.machine.exchange.stream(parts))
                if before:
                    done, ended = before
                    if not work.result(done, ended, replies[:len(work.reads) + 1]):
                        raise Damage
                    yield done
                if image is not None:
                    status = self.machine.ended(work.run, int(work.job.max_cycles))
                    if status is None:
                        raise Damage
                    before = image, status
        except (Damage, Busy):
            self.machine.exchange.greet()
        else:
            self._careful = 0

    def _carefully(self, work: Work, image: int) -> None:
        """Do one image over a line that damages; Lost where the memories are not as loaded."""
        counts: list[int] = []
        for _ in range(ATTEMPTS):
            work.record.cycles[image] = 0
            if self._careful_run(work, image) and self._intact(work.job):
                return
            error = self.machine.status().error
            self.machine.exchange.greet()
            if not self._intact(work.job):
                raise Lost
            counts.append(int(work.record.cycles[image]))
            if counts[-1] and counts.count(counts[-1]) > 2:
                work.takes(counts[-1])      # it does take so many: that is a result, too
        way_out = WAYS_OUT.get(error, "build and flash the board again")
        why = ("the line damages too much; use a shorter cable or another port" if not error else
               f"the machine stops with error {getattr(error, 'name', error)}; {way_out}")
        raise Undone(f"{self.machine.name}: image {image} was not done in {ATTEMPTS} attempts: "
                     f"{why}", error)

    def _careful_run(self, work: Work, image: int) -> bool:
        exchange, wanted = self.machine.exchange, work.writes(image)
        exchange.perform(wanted)
        if not np.array_equal(data_of(exchange.perform(work.input.reads())), wanted.data):
            return False
        greeted = self.machine.greeted
        if not self.machine.started(work.run):
            return False
        ended = self.machine.ended(work.run, int(work.job.max_cycles))
        [count] = exchange.perform(READ_EVENTS)
        if ended is None or (self.machine.greeted != greeted
                             and not count.elements(REGISTER_BYTES)[0]):
            return False                    # cleared, perhaps, before it was read
        once, again = exchange.perform(work.reads), exchange.perform(work.reads)
        return (np.array_equal(data_of(once), data_of(again))
                and work.result(image, ended, [*again, count]))

    def _work(self, job: Job, cycles: int, *, exact: bool) -> Work:
        machine = self.machine
        return Work.of(job, cycles, machine.array, clock_hz=machine.clock_hz,
                       baud=machine.line.baud, exact=exact)

    def _intact(self, job: Job | None = None) -> bool:
        """Whether the memory that is read back holds what was loaded, but for a job's inputs."""
        assert self._setup is not None
        words = self._setup[self._setup[:, 0] == Space.MAIN][:READ_BACK]
        if job is not None:
            given = job.input_at[job.input_at[:, 0] == Space.MAIN, 1]
            words = words[~np.isin(words[:, 1], given)]
        bits = (1 << ELEMENT_BITS) - 1
        return np.array_equal(self.machine.read(words[:, :2]) & bits, words[:, 2] & bits)

    def _right(self, *, whole: bool) -> bool:
        """As `_answers`; not where an image cannot be done."""
        try:
            return self._answers(whole=whole)
        except Undone:
            return False

    def _answers(self, *, whole: bool) -> bool:
        """Whether the machine comes to the known answers: to the first, or to all. Undone where one
        of these images cannot be done."""
        if self._probe is None:
            return True
        self.overwritten += 1
        job = self._probe.job if whole else self._probe.job.first(1)
        work = self._work(job, self._probe.cycles, exact=False)
        try:
            image = 0
            while image < job.images:
                image = self._images(work, image, None)
        except Lost:
            return False
        except Endless:
            self.machine.abort()
            return False
        return self._probe.right(work.record)

    def _reload(self, image: int) -> None:
        """Load all again, and say so. HostError where that was done too often at one image."""
        assert self._setup is not None
        self._lost = (image, self._lost[1] + 1 if image == self._lost[0] else 1)
        if self._lost[1] > ATTEMPTS:
            raise HostError(f"{self.machine.name}: the board lost its program {ATTEMPTS} times "
                            f"at image {image}; check its power and its cable")
        self.load(self._setup, self._probe)
        self.notice(f"{self.machine.name}: the board had lost its program, by a reset or a damaged "
                    f"line; it was loaded again, going on with image {image}")
