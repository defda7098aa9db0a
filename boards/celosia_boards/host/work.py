"""A job of the machine as requests of the host port, and what their replies say."""

from dataclasses import dataclass, replace

import numpy as np

from celosia_boards.host.job import Job, Record
from celosia_boards.host.requests import READ_EVENTS, STATUS, Access, Requests
from celosia_spec.arrays import AnyArray
from celosia_spec.isa import COUNTER_BITS
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.frames import Command, Kind, Reply

__all__ = ["Run", "Work", "data_of"]

_PAUSE_S = 0.02
"""Longest run that is waited for by padding on the line; longer ones are asked after."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """One run of a job: what starts it, what is read after it, and how long it takes.

    reload : whether the input is written before it.
    start  : what starts it, with padding behind that lasts as long as the run.
    access, reads : what is read after it.
    cycles : what it takes, about.
    bridged : whether the padding does last so long.
    """

    reload: bool
    start: Requests
    access: Access
    reads: Requests
    cycles: int
    bridged: bool


@dataclass(eq=False)
class Work:
    """A job in requests, and the record that their replies go to.

    exact : whether the first run must take the cycles that it is said to.
    """

    job: Job
    runs: list[Run]
    input: Access
    record: Record
    exact: bool

    @classmethod
    def of(cls, job: Job, cycles: np.ndarray, array: AnyArray, *, clock_hz: float, baud: int,
           exact: bool) -> "Work":
        """Return the requests of a job.

        cycles : int64 (runs,), what each run takes, at most ``clock_hz`` of them a second.
        """
        runs, begun = [], 0
        for (first, last, reload), end, count in zip(
                job.runs.tolist(), job.read_ends.tolist(), cycles.tolist(), strict=True):
            seconds = 1.05 * count / clock_hz
            bridged = seconds <= _PAUSE_S
            pause = int(seconds * baud / 10) + 2 if bridged else 0
            access = Access.of(job.read_at[begun:end], array)
            runs.append(Run(reload=bool(reload), access=access, reads=access.reads(),
                            start=Requests.one(
                                Command.START, protocol.DESCRIPTORS.pack(first=first, last=last),
                                pause=pause),
                            cycles=count, bridged=bridged))
            begun = end
        return cls(job, runs, Access.of(job.input_at, array), Record.empty(job), exact)

    def writes(self, image: int) -> Requests:
        """Return what writes an image's input."""
        return self.input.writes(self.job.input_values[image])

    def parts(self, image: int) -> list[Requests]:
        """Return all requests of an image, none of which waits for a reply."""
        found = []
        for run in self.runs:
            found += [self.writes(image)] if run.reload else []
            found += [run.start, STATUS, run.reads, READ_EVENTS]
        return found

    def takes(self, cycles: int) -> None:
        """From now on the first run takes so many cycles, by the machine's count."""
        self.runs[0] = replace(self.runs[0], cycles=cycles)

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
        self.record.reads[image, begin:end] = run.access.values(data_of(replies[:-1]))
        if ended.failed or ended.kind is not Kind.IDLE:
            return False
        if not self.exact:
            return True
        return count > 0 and (number > 0 or count == run.cycles % (1 << COUNTER_BITS))


def data_of(replies: list[Reply]) -> np.ndarray:
    """Return what reads brought, uint8 (replies, 8)."""
    return np.frombuffer(b"".join(reply.data for reply in replies), np.uint8).reshape(
        -1, protocol.DATA_BYTES)
