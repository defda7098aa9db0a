"""Work on many cases in forked processes, so that one that hangs or crashes costs itself only."""

import contextlib
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

__all__ = ["CRASH", "HANG", "each"]

HANG, CRASH = "hang", "crash"
"""Outcomes of cases that had to be stopped, or that ended their process."""

MEMORY = 8 << 30
"""Bytes of address space that a worker may take."""

_FORK = multiprocessing.get_context("fork")


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    case: int
    until: float


def each(work: Callable[[Any], Any], cases: Sequence[Any], *, limit: float,
         workers: int | None = None, fresh: bool = False) -> Iterator[tuple[Any, Any]]:
    """Yield (case, outcome) of every case as it is done: ``work``'s result, ``HANG`` or ``CRASH``,
    or the name and words of an exception.

    work    : called in a process that is forked from this one and does case after case.
    limit   : seconds that a case may take before its process is killed.
    workers : processes at a time; by default as many as there are processors.
    fresh   : fork anew for every case, so that none sees what another left behind.
    """
    running: list[_Worker] = []
    left = iter(range(len(cases)))
    try:
        for _ in range(min(workers or len(os.sched_getaffinity(0)), len(cases))):
            running.append(_start(work, cases, next(left), limit))
        while running:
            for worker, outcome in _finished(running):
                yield cases[worker.case], outcome
                following = next(left, None)
                if following is None or fresh or outcome in (HANG, CRASH):
                    _stop(worker)
                    running.remove(worker)
                    if following is not None:
                        running.append(_start(work, cases, following, limit))
                else:
                    worker.case, worker.until = following, time.monotonic() + limit
                    worker.pipe.send(following)
    finally:
        for worker in running:
            _stop(worker)


def _finished(running: list[_Worker]) -> Iterator[tuple[_Worker, Any]]:
    """Wait for results; yield those that have come, and the workers that are late or gone."""
    soonest = min(worker.until for worker in running)
    ready = wait([worker.pipe for worker in running], max(soonest - time.monotonic(), 0))
    for worker in list(running):
        if worker.pipe in ready:
            try:
                yield worker, worker.pipe.recv()
            except EOFError:
                yield worker, CRASH
        elif time.monotonic() > worker.until:
            yield worker, HANG


def _start(work: Callable[[Any], Any], cases: Sequence[Any], first: int, limit: float) -> _Worker:
    here, there = _FORK.Pipe()
    process = _FORK.Process(target=_serve, args=(work, cases, there, here), daemon=True)
    process.start()
    there.close()
    here.send(first)
    return _Worker(process, here, first, time.monotonic() + limit)


def _serve(work: Callable[[Any], Any], cases: Sequence[Any], pipe: Connection,
           parents: Connection) -> None:
    parents.close()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)        # so that whatever a case has started is killed with it
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            case = cases[pipe.recv()]
            try:
                outcome = work(case)
            except Exception as problem:
                outcome = f"{type(problem).__name__}: {problem}"
            pipe.send(outcome)


def _stop(worker: _Worker) -> None:
    worker.pipe.close()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(worker.process.pid, 9)
    worker.process.kill()
    worker.process.join()
