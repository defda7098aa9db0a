"""A folder that is being filled with pictures, by a camera, a script or by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from celosia.datasets.pictures import SUFFIXES, open_picture
from celosia.live.shots import Refused, Shot, check_pictures, of_picture
from celosia_spec.errors import CelosiaError

if TYPE_CHECKING:
    from celosia.program import Program

__all__ = ["GIVE_UP_S", "LOOK_S", "Folder"]

LOOK_S = 0.1
"""Seconds between two looks. A file that is the same in two of them may be complete."""
GIVE_UP_S = 2.0
"""Seconds that a file which is no whole picture must stay the same before it is refused: until then
it may still be being written."""


class _Stamp(NamedTuple):
    """Which content a name has: another one is another picture, wherever it was moved to."""

    device: int
    inode: int
    size: int
    changed: int


@dataclass
class _Waiting:
    stamp: _Stamp
    since: float


class Folder:
    """Yields each picture, PNG or JPEG by name and content, once it is complete.

    Pictures that are there already come first, the oldest first; then each that appears, by
    whatever way, and each that is written anew. Moved ones do not come again. A file is taken when
    its size and times have stood still between two looks, it decodes to its end, and it is the
    same after that; so a half-written one never is.

    newest : of several that wait only the newest is taken.
    skipped: called with a line for each file that is refused.

    CelosiaError where the folder is not there, or vanishes, or the program takes no pictures.
    """

    def __init__(self, path: Path, program: Program, skipped: Refused, *,
                 newest: bool = False) -> None:
        if not path.is_dir():
            raise CelosiaError(f"{path}: no such folder; make it, and name it again")
        check_pictures(str(path), program)
        self._path, self._program, self._skipped = path, program, skipped
        self._newest = newest
        self._waiting: dict[str, _Waiting] = {}
        self._done: set[_Stamp] = set()
        self._missed: set[_Stamp] = set()           # of these, what the last look did not see

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *problem: object) -> None:
        pass

    def __iter__(self) -> Iterator[Shot]:
        while True:
            begun = time.monotonic()
            ready, took = self._look(begun), False
            for name in reversed(ready) if self._newest else ready:
                shot = self._take(name)
                if shot is None:
                    continue
                if self._newest:
                    older = ready[:ready.index(name)]
                    self._done.update(self._waiting[name].stamp for name in older)
                took = True
                yield shot
                if self._newest:
                    break
            if not took:
                time.sleep(max(LOOK_S, 4 * (time.monotonic() - begun)))     # large folders: less

    def _look(self, now: float) -> list[str]:
        """Return the names that stood still since the last look, the oldest content first."""
        there = self._listed()
        gone = self._done - set(there.values())     # as many as there are files; a file that is
        self._done -= gone & self._missed           # moved during a look may be seen by no name
        self._missed = gone
        self._waiting = {name: self._waiting[name] for name in there if name in self._waiting}
        ready = []
        for name, stamp in there.items():
            known = self._waiting.get(name)
            if stamp in self._done:
                self._waiting.pop(name, None)
            elif known is None or known.stamp != stamp:
                self._waiting[name] = _Waiting(stamp, now)
            elif now - known.since >= LOOK_S / 2:
                ready.append(name)
        return sorted(ready, key=lambda name: (there[name].changed, name))

    def _listed(self) -> dict[str, _Stamp]:
        """Return the files whose names are those of pictures."""
        found = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.lower().endswith(SUFFIXES):
                        continue
                    stamp = self._stamp(entry.name)
                    if stamp is not None:
                        found[entry.name] = stamp
        except OSError as problem:
            raise CelosiaError(f"{self._path}: cannot be looked into any more "
                               f"({problem.strerror}); name a folder that stays") from None
        return found

    def _stamp(self, name: str) -> _Stamp | None:
        """Return which content a name has now; None where it is gone."""
        try:
            status = (self._path / name).stat()
        except OSError:
            return None
        return _Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def _take(self, name: str) -> Shot | None:
        """Return the input that a file is, once; None where it is none, or none yet."""
        waiting, path = self._waiting[name], self._path / name
        refusal = ""
        try:
            shot = of_picture(name, str(path), open_picture(path), self._program)
        except CelosiaError as problem:
            refusal = str(problem)
        except OSError as problem:
            refusal = f"{path}: cannot be read ({problem.strerror}); give it anew"
        if self._stamp(name) != waiting.stamp:      # written meanwhile: the next look sees it
            return None
        if refusal and time.monotonic() - waiting.since < GIVE_UP_S:
            return None
        self._done.add(waiting.stamp)
        if refusal:
            self._skipped(refusal)
            return None
        return shot
