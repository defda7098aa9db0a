"""The driver of a board against everything that goes wrong on a line, in simulated time.

At the other end is the verilated host port and core of a small array, byte by byte, and a small
network on it. Every session connects, loads, and runs images; its answers are compared with the
golden model's, and a session over a whole line must work after it. A session may also end in a
refusal; wrong is an answer that is not the golden model's, hung one that takes longer than
`LIMIT_S` in simulated time, or `WALL_S` for real.
"""

import argparse
import contextlib
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import forked
from harness.command import main
from harness.result import Check, Result, Table

import celosia
from celosia.board import Board
from celosia.cli.progress import progress
from celosia_boards.host.exchange import SILENCE
from celosia_sim.virtual import VirtualBoard
from celosia_sim.virtual.faults import TO_BOARD, TO_HOST, Damage, Faults
from celosia_sim.virtual.line import Killed, SimulatedLine
from celosia_spec.errors import CelosiaError

LANES, IMAGES = 4, 6
LIMIT_S, WALL_S = 600.0, 120.0
KINDS = ("drop", "flip", "duplicate", "cut", "noise", "stall", "reset", "all of them")
RATES = (1e-5, 1e-2)
RARE = {"stall": 1e-2, "reset": 2e-3}
"""Kinds that are not of single bytes: what part of the others' rate they come at."""
BAUD_ERROR = 2.0
BATCH = 20
GARBAGE = 5_000
"""Random bytes before a session."""
RIGHT, REFUSED, WRONG, HUNG, AFTER = "right", "refused", "wrong", "hung", "next one wrong"


@dataclass(frozen=True)
class Task:
    """Sessions of one kind with numbers from ``first`` on."""

    kind: str
    first: int
    count: int
    of: int


class _Late(Exception):
    pass


class _Line(SimulatedLine):
    """A simulated line that ends sessions that take too long."""

    longest = 0.0
    """Seconds for which any line heard nothing while it was read."""

    def __init__(self, board: VirtualBoard, **options: Any) -> None:
        super().__init__(board, **options)
        self.until = self.now() + LIMIT_S
        self.silent = 0.0

    def read(self, timeout_s: float) -> bytes:
        begun = self.now()
        if begun > self.until:
            raise _Late
        data = super().read(timeout_s)
        self.silent = 0.0 if data else self.silent + self.now() - begun
        _Line.longest = max(_Line.longest, self.silent)
        return data


class Bench:
    """A board, a program and its golden answers. One in each process."""

    def __init__(self) -> None:
        torch.manual_seed(7)
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(),
                                  torch.nn.MaxPool2d(2), torch.nn.Flatten(),
                                  torch.nn.Linear(64, 6)).eval()
        self.program = celosia.compile(net, np.zeros((1, 1, 8, 8), np.float32), lanes=LANES)
        self.images = np.random.default_rng(3).normal(size=(200, 1, 8, 8)).astype(np.float32)
        self.golden = celosia.run(self.program, self.images)
        self.board, self.refusals = self.configured(), list[str]()

    def configured(self) -> VirtualBoard:
        return VirtualBoard(self.program.target, self.program.array, byte_level=True)

    def right(self, result: celosia.RunResult, start: int = 0) -> bool:
        some = slice(start, start + len(result.mantissa))
        return all(np.array_equal(getattr(result, name), getattr(self.golden, name)[some])
                   for name in ("mantissa", "exponent", "saturated", "answer"))

    def session(self, line: SimulatedLine, words: list[str]) -> str:
        """Connect, load and run."""
        try:
            board = Board(line, on_notice=words.append)
            board.load(self.program)
            return RIGHT if self.right(board.run(self.images[:IMAGES])) else WRONG
        except CelosiaError as problem:
            self.refusals.append(str(problem))
            return REFUSED
        except _Late:
            return HUNG

    def checked(self, line: SimulatedLine, words: list[str]) -> str:
        """Do a session, and one over a whole line after it."""
        found = self.session(line, words)
        after = self.session(_Line(line.board), [])
        return found if after == RIGHT else AFTER

    def damaged(self, number: int, of: int, words: list[str]) -> str:
        """Faults of one kind, or of all, at a rate from `RATES`, alike on a logarithmic scale."""
        rng = random.Random(number)
        kind, rate = KINDS[number % len(KINDS)], RATES[0] * (RATES[1] / RATES[0]) ** rng.random()
        names = KINDS[:-1] if kind == KINDS[-1] else (kind,)
        rates: dict[str, Any] = {name: rate * RARE.get(name, 1) / len(names) for name in names}
        resets = rates.pop("reset", 0.0)
        damage = Damage(Faults(seed=number, **rates))
        return self.checked(_Line(
            self.board, most=rng.choice((0, 1, 16, 62)), latency_s=rng.choice((0.0, 0.001, 0.008)),
            stalled=damage.stalled, resets=_moments(resets * self.board.baud / 10, rng),
            to_board=lambda data: damage.damage(data, TO_BOARD),
            to_host=lambda data: damage.damage(data, TO_HOST)), words)

    def baud(self, number: int, of: int, words: list[str]) -> str:
        """A host whose bits are longer or shorter than the board's; bit by bit."""
        off = BAUD_ERROR * (2 * (number + 0.5) / of - 1)
        with VirtualBoard(self.program.target, self.program.array, baud_error=off) as board:
            return self.session(_Line(board), words)

    def garbage(self, number: int, of: int, words: list[str]) -> str:
        self.board.send(random.Random(number).randbytes(GARBAGE))
        self.board.run_until_quiet(10_000_000)
        return self.checked(_Line(self.board), words)

    def reset(self, number: int, of: int, words: list[str]) -> str:
        """A board that loses all it has, half of the times while it is loaded, half while it runs:
        at moments spread over that time."""
        phase = number % 2
        with self.configured() as board:
            line = _Line(board, latency_s=0.0002)
            there = Board(line)
            there.load(self.program)
            times = [0.0, line.now()]
            there.run(self.images[:IMAGES])
            times.append(line.now())
        begin, end = times[phase:phase + 2]
        moment = begin + (end - begin) * (number // 2 + 0.5) / (of // 2 or 1)
        with self.configured() as board:
            return self.checked(_Line(board, latency_s=0.0002, down_s=0.1 * (number // 2 % 2),
                                      resets=[moment]), words)

    def killed(self, number: int, of: int, words: list[str]) -> str:
        """A host that ends at one of ``of`` bytes of a load."""
        whole = _Line(self.board)
        Board(whole).load(self.program)
        dying = _Line(self.board, dies_after=whole.sent * number // of)
        with contextlib.suppress(Killed):
            Board(dying).load(self.program)
        return self.session(_Line(self.board), words)

    def slow(self, number: int, of: int, words: list[str]) -> str:
        return self.checked(_Line(self.board, byte_s=0.001), words)

    def fast(self, number: int, of: int, words: list[str]) -> str:
        """All frames on their way at once, no latency."""
        line = _Line(self.board, latency_s=0.0)
        board = Board(line, on_notice=words.append)
        board.load(self.program)
        board._machine.exchange._window = 1 << 30
        return RIGHT if self.right(board.run(self.images)) else WRONG

    def gaps(self, number: int, of: int, words: list[str]) -> str:
        """200 inferences, a random number at a time, with pauses up to 50 ms between."""
        rng, line, start = random.Random(number), _Line(self.board), 0
        board = Board(line, on_notice=words.append)
        board.load(self.program)
        while start < len(self.images):
            line.read(rng.random() / 20)
            some = self.images[start:start + rng.randint(1, 8)]
            if not self.right(board.run(some), start):
                return WRONG
            start += len(some)
        return RIGHT


def _moments(rate: float, rng: random.Random) -> list[float]:
    """Return moments that come so many times a second, seconds."""
    found, at = [], 0.0
    while rate and len(found) < 20:
        at += rng.expovariate(rate)
        found.append(at)
    return found


_bench: list[Bench] = []


def _work(task: Task) -> tuple[Counter, int, list[str], float]:
    """Return how the sessions of a task ended, how often a board was loaded again, refusals, and
    the longest silence."""
    if not _bench:
        _bench.append(Bench())
    session: Callable[..., str] = getattr(_bench[0], task.kind)
    outcomes, words = Counter[str](), list[str]()
    _bench[0].refusals.clear()
    _Line.longest = 0.0
    for number in range(task.first, task.first + task.count):
        outcomes[session(number, task.of, words)] += 1
    return outcomes, len(words), list(_bench[0].refusals), _Line.longest


ROWS = {
    "damaged": "sessions over a damaging line",
    "baud": f"hosts up to {BAUD_ERROR:g} % off the baud rate, bit by bit",
    "garbage": f"sessions after {GARBAGE:,} random bytes",
    "reset": "resets at moments of a session",
    "killed": "hosts that die in a load",
    "slow": "host with a byte a millisecond",
    "fast": "host that never waits",
    "gaps": "200 inferences with random gaps",
}


def measure(arguments: argparse.Namespace) -> Result:
    """Do all sessions."""
    counts = {"damaged": arguments.sessions, "baud": 100, "garbage": 20, "reset": 200,
              "killed": 100, "slow": 1, "fast": 1, "gaps": 100}
    counts = {kind: max(1, count // arguments.part) for kind, count in counts.items()}
    tasks = [Task(kind, first, min(BATCH, count - first), count)
             for kind, count in counts.items() for first in range(0, count, BATCH)]
    found, loads = {kind: Counter[str]() for kind in ROWS}, Counter[str]()
    refusals, longest = Counter[str](), 0.0
    for byte_level in (False, True):        # compiled once, before there are several processes
        with VirtualBoard("icebreaker", Bench().program.array, byte_level=byte_level):
            pass
    with progress("sessions") as report:
        done = 0
        for task, outcome in forked.each(_work, tasks, limit=WALL_S * BATCH):
            if isinstance(outcome, str):
                print(f"{task}: {outcome}")
                outcome = Counter({HUNG: task.count}), 0, [], 0.0
            found[task.kind] += outcome[0]
            loads[task.kind] += outcome[1]
            longest = max(longest, outcome[3])
            refusals.update(re.sub(r"[\d,]+", "#", words) for words in outcome[2])
            done += task.count
            if report:
                report(done, sum(counts.values()))
    rows = [[words, sum(found[kind].values()), *(found[kind][name] for name in (
        RIGHT, REFUSED, WRONG, HUNG, AFTER)), loads[kind]] for kind, words in ROWS.items()]
    table = Table.of(
        f"Sessions of the driver on the virtual board, {IMAGES} images each; half the faults on "
        f"each way, rates from {RATES[0]:g} to {RATES[1]:g} a byte", {
            "what": "", "count": ",d", RIGHT: ",d", REFUSED: ",d", WRONG: ",d", HUNG: ",d",
            AFTER: ",d", "loaded again": ",d"}, rows)
    total = sum(found.values(), Counter())
    checks = (Check.at_most("wrong answers", total[WRONG], 0, "d"),
              Check.at_most("sessions that hung", total[HUNG], 0, "d"),
              Check.at_most("longest wait for a sign of the machine, s", longest, 1.5 * SILENCE,
                            ".2f"),
              Check.at_most("clean sessions that failed after a damaged one", total[AFTER], 0, "d"))
    return Result(title="Faults on the way to a board", tables=(table,), checks=checks, notes=(
        f"A machine that gives no sign for {SILENCE:g} s is given up.",
        "Loaded again: boards that had lost their program while they ran, by a reset or where the "
        "driver did not trust what a damaging line had left; it says so each time.",
        *(f"Refused, {count} times: {words}" for words, count in refusals.most_common())))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--sessions", {"type": int, "default": 10_000, "help": "over a damaging line"}),
         ("--part", {"type": int, "default": 1, "help": "do one of so many of all sessions"}))
