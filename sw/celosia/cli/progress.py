"""Long work, shown on stderr: a bar on a terminal, elsewhere a line a stage with its seconds.

Off a terminal nothing is shown before a stage begins: quick commands have none.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Work", "progress", "stages", "work"]


class Work(Protocol):
    """What long work calls to be shown."""

    def stage(self, name: str, done: int = 0, of: int = 0) -> None:
        """A stage begins, or has done so many of its steps; 0 of 0 where they are not known."""

    def count(self, done: int, of: int) -> None:
        """So many inputs of all are done."""


@contextmanager
def work(what: str = "") -> Iterator[Work]:
    """Show long work while the block runs. what : what is being counted."""
    shown = _Bar(what) if sys.stderr.isatty() else _Lines()
    try:
        yield shown
    finally:
        shown.end()


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function of (done, total) that moves a bar on stderr, or None off a terminal."""
    with work(what) as shown:
        yield shown.count if sys.stderr.isatty() else None


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows the stage at work on stderr."""
    with work() as shown:
        yield shown.stage


class _Lines:
    """A line a stage: its name as it begins, its seconds as it ends. Inputs are not counted."""

    def __init__(self) -> None:
        self._name, self._begun = "", 0.0

    def stage(self, name: str, done: int = 0, of: int = 0) -> None:
        if name != self._name:
            self.end()
            self._name, self._begun = name, time.monotonic()
            self._write(name)

    def count(self, done: int, of: int) -> None:
        self.end()

    def end(self) -> None:
        if self._name:
            seconds = round(time.monotonic() - self._begun)
            self._write(f": {seconds:,} s\n" if seconds else "\n")
            self._name = ""

    def _write(self, text: str) -> None:
        with suppress(OSError):         # nobody reads it; the work goes on
            print(text, end="", file=sys.stderr, flush=True)


class _Bar:
    """A line that is gone at the end: what is done, how far, and for how long."""

    def __init__(self, what: str) -> None:
        self._what, self._name = what, ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if what:
            self.stage(what)

    def stage(self, name: str, done: int = 0, of: int = 0) -> None:
        self._show(name, f"{done:,} of {of:,}" if of else "", 0, None)

    def count(self, done: int, of: int) -> None:
        self._show(self._what, f"{done:,} of {of:,}", done, of)

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, name: str, steps: str, done: int, of: int | None) -> None:
        """Show how far a task is; the time that is left only where its steps are alike (``of``)."""
        bar = self._started()
        if name != self._name or self._task is None:
            if self._task is not None:
                bar.remove_task(self._task)
            self._name, self._task = name, bar.add_task(name, total=None, steps=steps)
        bar.update(self._task, completed=done, total=of, steps=steps)

    def _started(self) -> "Progress":
        if self._bar is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                Progress,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(),
                TextColumn("{task.fields[steps]}", markup=False), TimeElapsedColumn(),
                TimeRemainingColumn(), transient=True, console=Console(file=sys.stderr))
            self._bar.start()
        return self._bar
