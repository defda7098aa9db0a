"""What the tools made, kept in the cache under the name of all that it depends on."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from celosia_boards.cache import cache_directory, cached, written

__all__ = ["BOUND", "kept"]

BOUND = 1 << 30
"""Bytes that are kept; beyond them, what was not used for longest goes."""

_IN_USE = 3600.0
"""Seconds since its last use in which an entry stays in any case: a build may be copying it."""

_PREFIX = "build-"


def kept(name: str, work: Path, files: Sequence[str], make: Callable[[], None],
         say: Callable[[str], None]) -> bool:
    """Leave ``files`` in folder ``work``, and return whether they came from the cache.

    name : of the entry: letters, digits and dashes; says all that the files depend on.
    make : leaves them in ``work`` where the cache lacks them; they are kept. Where it raises,
           nothing is. Of two processes that want the same, one makes it; ``say`` hears of the wait.
    CacheError where the cache cannot be used.
    """
    made = False

    def build(entry: Path) -> None:
        nonlocal made
        made = True
        make()
        with written(cache_directory()):
            for file in files:
                shutil.copyfile(work / file, entry / file)

    entry = cached(f"{_PREFIX}{name}", build, lambda stage, *_: say(stage))
    with contextlib.suppress(OSError):      # a cache that may only be read forgets nothing
        os.utime(entry)
    if made:
        with contextlib.suppress(FileNotFoundError):    # another process trims it just now
            _trim()
    else:
        for file in files:
            shutil.copyfile(entry / file, work / file)
    return not made


def _trim() -> None:
    """Remove what is beyond the bound. An entry that loses files under a reader's hands is not
    whole, and is made anew."""
    entries = sorted((path for path in cache_directory().glob(f"{_PREFIX}*")
                      if path.is_dir() and "." not in path.name), key=_used, reverse=True)
    total = 0
    for entry in entries:
        total += sum(file.stat().st_size for file in entry.iterdir())
        if total > BOUND and time.time() - _used(entry) > _IN_USE:
            shutil.rmtree(entry, ignore_errors=True)


def _used(entry: Path) -> float:
    return entry.stat().st_mtime
