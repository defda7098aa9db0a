"""The folder that a build works in, and how its results reach the user's.

A work folder is a hidden folder inside the results' folder, locked by the process that made it.
It is gone when the build ends in any way that Python notices; one whose owner was killed outright
is cleared by the next build there.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from celosia_boards.processes import stoppable
from celosia_boards.toolchain import BuildError

__all__ = ["forget", "publish", "workplace"]

_SUFFIX = ".build"


@contextmanager
def workplace(directory: Path, name: str) -> Iterator[Path]:
    """Yield a folder inside ``directory`` that is gone afterwards; a BuildError leaves its logs."""
    directory.mkdir(parents=True, exist_ok=True)
    with stoppable():
        with _locked(directory):
            _clear_stale(directory, name)
            work = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=_SUFFIX, dir=directory))
            owner = os.open(work, os.O_RDONLY)
            fcntl.flock(owner, fcntl.LOCK_EX)
        try:
            yield work
        except BuildError as error:
            logs = sorted(work.glob(f"{name}.*.log"), key=lambda log: log.stat().st_mtime)
            for log in logs:
                log.replace(directory / log.name)
            where = f"\nlog: {directory / logs[-1].name}" if logs else ""
            raise BuildError(f"{error}{where}") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
            os.close(owner)


def publish(work: Path, directory: Path, names: Iterable[str]) -> None:
    """Move those results that are there into ``directory``, in this order."""
    with _locked(directory):
        for name in names:
            if (work / name).exists():
                (work / name).replace(directory / name)


def forget(directory: Path, names: Iterable[str]) -> None:
    """Remove results of an older build, which nothing may take for those of this one."""
    with _locked(directory):
        for name in names:
            (directory / name).unlink(missing_ok=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the folder's lock; builds take it for moments only."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _clear_stale(directory: Path, name: str) -> None:
    """Remove work folders that no process holds any more."""
    for folder in directory.glob(f".{name}-*{_SUFFIX}"):
        with contextlib.suppress(OSError):      # another's, or going just now
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
