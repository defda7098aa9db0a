"""What can be asked of the machine at the other end of a line: done, or refused with a reason."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from celosia_boards.host.exchange import Busy, Damage, Exchange, HostError
from celosia_boards.host.link import LINE_BITS, Line
from celosia_boards.host.requests import READ_HASH, REGISTER_BYTES, STATUS, Access, Requests
from celosia_boards.host.work import Run, data_of
from celosia_spec.isa import registers
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import START, Command, Kind, Reply
from celosia_spec.isa.registers import Error, Register

__all__ = ["ATTEMPTS", "Endless", "Machine", "Status"]

ATTEMPTS = 8
"""How often something is tried before it is given up."""

_STEP = 128
"""Requests between two reads of the array's hash, which make those before them certain."""
_PATIENCE_S, _PATIENCE = 2.0, 30
"""How long a run may take: so many seconds, and so many times what its cycles take."""


class Endless(HostError):
    """A run does not end."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The machine's state: running or not, and its sticky flags.

    error : an `Error`, or a number that is none.
    checking, fault : the machine still checks its flash; what it found wrong with that, or 0.
    """

    busy: bool
    saturated: bool
    error: Error | int
    checking: bool = False
    fault: int = 0


@dataclass(eq=False)
class Machine:
    """The machine at the other end of ``line``.

    line     : what bytes go over.
    array    : parameters of the machine's array; its hash must be the machine's.
    clock_hz : its clock, or a lower one: for how long a run is waited for.
    """

    line: Line
    array: Array
    clock_hz: float

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.line)

    @property
    def name(self) -> str:
        """What messages call the machine: its port."""
        return self.line.name

    @property
    def damages(self) -> int:
        """How often replies were missing or wrong so far."""
        return self.exchange.tally.damages

    def greet(self) -> int:
        """Find the machine and return its array's hash; `Exchange.greet` says how it fails."""
        found = self.exchange.greet()
        self.exchange.array_hash = found
        return found

    def status(self) -> Status:
        """Ask for the machine's state; a run goes on."""
        reply = self._insist(STATUS)
        if reply.kind is Kind.RUNNING:
            return Status(busy=True, saturated=reply.saturated, error=Error.NONE)
        found = registers.STATUS.unpack(
            self.exchange.perform(READ_HASH)[0].elements(REGISTER_BYTES)[Register.STATUS])
        code = found["error"]
        return Status(busy=bool(found["busy"]), saturated=bool(found["saturated"]),
                      error=Error(code) if code in set(Error) else code,
                      checking=bool(found["checking"]), fault=found["fault"])

    def abort(self) -> None:
        """Stop the machine at once; its memories stay as they are."""
        self.exchange.greet()

    def settle(self) -> None:
        """Wait until a machine that has flash has checked it, and let it forget what was wrong
        there: who loads it needs none of it, or sees a run end with an error. HostError where that
        takes too long."""
        limit = self.line.now() + _PATIENCE_S
        while (status := self.status()).checking:
            if self.line.now() > limit:
                raise HostError(f"{self.name}: the board reads its flash without an end; flash it "
                                f"again")
            self.line.read(0.01)
        if status.fault:
            self.abort()

    def write(self, at: np.ndarray, values: np.ndarray,
              progress: Callable[[int, int], None] | None = None) -> None:
        """Write words; at : uint32 (words, 2), space and address.   values : uint32 (words,).

        Blocks of eight aligned bytes that hold any of them are written whole, zeros beside them.
        """
        self._carry_out(Access.of(at, self.array).writes(values), progress)

    def read(self, at: np.ndarray) -> np.ndarray:
        """Return words, uint32 (words,), without sign; ValueError for a memory that cannot be
        read."""
        access = Access.of(at, self.array)
        return access.values(data_of(self._carry_out(access.reads())))

    def frames(self, at: np.ndarray) -> int:
        """Return how many frames, of eight bytes each, words take; at : uint32 (words, 2)."""
        return len(Access.of(at, self.array))

    def started(self, run: Run) -> bool:
        """Start a run; False where it may have started or not, after which `greet` must follow."""
        return self.exchange.ask(run.start) is not None

    @property
    def greeted(self) -> int:
        """How often the machine was greeted so far, which stops a run and clears its registers."""
        return self.exchange.tally.greeted

    def ended(self, run: Run, most: int) -> Reply | None:
        """Wait until a run is over, and return the last status; None where the run was stopped to
        hear from the machine. Endless where it takes far longer than ``most`` cycles."""
        takes = max(run.cycles, 1) / self.clock_hz
        limit = self.line.now() + _PATIENCE_S + _PATIENCE * max(
            takes, most / self.clock_hz)
        wait, greeted = 0.0, self.greeted
        while True:
            reply = self._insist(STATUS)
            if self.greeted != greeted:
                return None
            if reply.kind is Kind.IDLE:
                return reply
            if self.line.now() > limit:
                raise Endless(f"{self.name}: a run has not ended long after the {run.cycles:,} "
                              f"cycles that it takes; flash the board again")
            wait = min(wait + takes / 16, takes / 4, 0.05)
            if wait > 0.002:
                self.line.read(wait)

    def repeat(self, at: int, cycles: int, seconds: float) -> tuple[int, float]:
        """Run again and again, on whatever the memories hold by then.

        at : word where its list of chunks begins.   cycles : what a run takes.
        seconds : for how long.

        Returns how many runs there were, and in how many seconds. HostError where a run reports an
        error, or the line damages anything.
        """
        pause = int(1.1 * cycles / self.clock_hz * self.line.baud / LINE_BITS) + 2
        start = Requests.one(Command.START, START.pack(list=at), pause=pause)
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
            raise HostError(f"{self.name}: run {runs} did not end as it must; verify the "
                            f"program on this board first (celosia verify)") from None
        return runs, self.line.now() - begun

    def _insist(self, request: Requests) -> Reply:
        """Return the reply to a request that does no harm, repeated without stopping a run."""
        for _ in range(ATTEMPTS):
            reply = self.exchange.ask(request)
            if reply is not None:
                return reply
            self.exchange.settle()
        self.exchange.greet()
        reply = self.exchange.ask(request)
        if reply is None:
            raise HostError(f"{self.name}: the machine answers now and then; use a shorter "
                            f"cable or another port")
        return reply

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
                        found = reply.elements(REGISTER_BYTES)
                        if found[Register.ARRAY_HASH] != self.exchange.array_hash:
                            raise Damage
                        certain = len(done)
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


def _marked(requests: Requests, start: int) -> Iterator[Requests]:
    """Yield requests from ``start`` on, and a read after every `_STEP` of them and the last."""
    for begin in range(start, len(requests), _STEP):
        yield requests.at(slice(begin, begin + _STEP))
        yield READ_HASH
