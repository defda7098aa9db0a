"""A job of the machine as requests of the host port, and what their replies say."""

from dataclasses import dataclass, replace

import numpy as np

from celosia_boards.host.job import Job, Record
from celosia_boards.host.link import LINE_BITS
from celosia_boards.host.requests import READ_EVENTS, REGISTER_BYTES, STATUS, Access, Requests
from celosia_spec.isa import frames as protocol
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import Command, Kind, Reply
from celosia_spec.isa.registers import COUNTER_BITS

__all__ = ["Run", "Work", "data_of"]

_PAUSE_S = 0.02
"""Longest run that is waited for by padding on the line; longer ones are asked after."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Run:
    """What starts a run, and how long it takes.

    start  : what starts it, with padding behind that lasts as long as the run.
    cycles : what it takes, about.
    bridged : whether the padding does last so long.
    """

    start: Requests
    cycles: int
    bridged: bool


@dataclass(eq=False)
class Work:
    """A job in requests, and the record that their replies go to.

    run   : of each image.   input : what is written before it.   output, reads : what is read after
    it.
    exact : whether a run must take the cycles that it is said to.
    """

    job: Job
    run: Run
    input: Access
    output: Access
    reads: Requests
    record: Record
    exact: bool

    @classmethod
    def of(cls, job: Job, cycles: int, array: Array, *, clock_hz: float, baud: int,
           exact: bool) -> "Work":
        """Return the requests of a job.

        cycles : what a run takes, at most ``clock_hz`` of them a second.
        """
        seconds = 1.05 * cycles / clock_hz
        bridged = seconds <= _PAUSE_S
        start = Requests.one(Command.START, protocol.START.pack(list=int(job.start)),
                             pause=int(seconds * baud / LINE_BITS) + 2 if bridged else 0)
        output = Access.of(job.read_at, array)
        return cls(job, Run(start=start, cycles=cycles, bridged=bridged),
                   Access.of(job.input_at, array), output, output.reads(), Record.empty(job), exact)

    def writes(self, image: int) -> Requests:
        """Return what writes an image's input."""
        return self.input.writes(self.job.input_values[image])

    def parts(self, image: int) -> list[Requests]:
        """Return all requests of an image, none of which waits for a reply."""
        return [self.writes(image), self.run.start, STATUS, self.reads, READ_EVENTS]

    def takes(self, cycles: int) -> None:
        """From now on a run takes so many cycles, by the machine's count."""
        self.run = replace(self.run, cycles=cycles)

    def take(self, image: int, replies: list[Reply]) -> bool:
        """Keep what the replies to `parts` say; False where they cannot be of this run."""
        at = len(self.input) + 2
        return self.result(image, replies[at - 1], replies[at:])

    def result(self, image: int, ended: Reply, replies: list[Reply]) -> bool:
        """Keep what a run gave: the status at its end, its reads, and the count of its cycles.

        False where the machine cannot have run it: an error, or another count.
        """
        count = replies[-1].elements(REGISTER_BYTES)[0]
        self.record.cycles[image] = count
        self.record.saturated[image] = ended.saturated
        self.record.reads[image] = self.output.values(data_of(replies[:-1]))
        if ended.failed or ended.kind is not Kind.IDLE:
            return False
        return not self.exact or 0 < count == self.run.cycles % (1 << COUNTER_BITS)


def data_of(replies: list[Reply]) -> np.ndarray:
    """Return what reads brought, uint8 (replies, 8)."""
    return np.frombuffer(b"".join(reply.data for reply in replies), np.uint8).reshape(
        -1, protocol.DATA_BYTES)
