"""Where generated Verilog, compiled simulators and placed designs are kept between runs.

An entry is a folder that holds, beside its files, their sizes and SHA-256 hashes. Shared objects of
the cache are loaded into the process: the folder must be its user's alone, and an entry is looked
through before it is used.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from celosia_spec.errors import CacheError

__all__ = ["Stages", "cache_directory", "cached", "digest", "unseen", "written"]

Stages = Callable[[str, int, int], None]
"""Called as something is built: the stage, how many of its steps are begun, and how many it has;
0 of 0 where they are not known."""

_SUMS = "sums.json"
"""In every entry: {file: [bytes, SHA-256]} of all others."""

_WAY_OUT = "name a folder of your own in CELOSIA_CACHE"


def cache_directory() -> Path:
    """Return the cache folder, made if need be: ``$CELOSIA_CACHE``, else ``~/.cache/celosia``.

    CacheError where it cannot be made, is another user's, or others may write in it.
    """
    named = os.environ.get("CELOSIA_CACHE")
    try:
        path = Path(named).absolute() if named else Path.home() / ".cache" / "celosia"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.stat()
    except (OSError, RuntimeError) as problem:
        raise CacheError(f"no cache folder: {problem}; {_WAY_OUT}") from None
    if status.st_uid != os.geteuid():
        raise CacheError(f"the cache folder {path} belongs to another user, whose programs "
                              f"would run here; {_WAY_OUT}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(f"others may write in the cache folder {path}, whose programs run "
                              f"here; run: chmod go-w {path}")
    return path


def digest(*parts: str) -> str:
    """Return a 24-digit hexadecimal hash of ``parts``; their order and borders count."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{len(part)}:{part}".encode())
    return total.hexdigest()[:24]


def unseen(stage: str, begun: int, of: int) -> None:
    """Stages that nobody asked for."""


def cached(name: str, build: Callable[[Path], None], stages: Stages = unseen) -> Path:
    """Return the folder ``name`` of the cache, filled by ``build(folder)`` where it is missing or
    is not as it was built.

    name : letters, digits and dashes.
    ``build`` works in a folder of its own that is renamed when it returns. Of two processes that
    want the same one, the second waits, which ``stages`` hears of. If ``build`` raises, nothing
    stays. CacheError where the cache cannot be written.
    """
    root = cache_directory()
    final = root / name
    if _whole(final):
        return final
    with _locked(root, name, stages):
        if _whole(final):
            return final
        with written(root):
            _clear(root)
            scratch = _scratch(root, name)
        try:
            build(scratch)
            with written(root):
                _seal(scratch)
                if os.path.lexists(final):      # damaged: out of the way, then gone
                    final.rename(_scratch(root, name) / name)
                scratch.rename(final)
        finally:
            _remove(root, name)
    return final


def _whole(entry: Path) -> bool:
    """Whether every file of an entry has the size and the hash that it was built with."""
    try:
        sums = json.loads((entry / _SUMS).read_bytes())
        return bool(sums) and all([size, sha] == _sum(entry / name)
                                  for name, (size, sha) in sums.items())
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return False


def _seal(folder: Path) -> None:
    """Write the sums of a finished entry, on disk before its name is."""
    sums = {path.relative_to(folder).as_posix(): _sum(path)
            for path in sorted(folder.rglob("*")) if path.is_file()}
    with (folder / _SUMS).open("w") as file:
        json.dump(sums, file)
        file.flush()
        os.fsync(file.fileno())


def _sum(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        return [os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]


@contextlib.contextmanager
def written(folder: Path) -> Iterator[None]:
    """Turn what the system refuses within, as the cache ``folder`` is written, into CacheError."""
    try:
        yield
    except OSError as problem:
        raise CacheError(f"the cache folder {folder} cannot be written "
                         f"({problem.strerror or problem}); {_WAY_OUT}") from None


@contextlib.contextmanager
def _locked(root: Path, name: str, stages: Stages) -> Iterator[None]:
    """Hold the lock of entry ``name``; wait for it."""
    with written(root):
        file = (root / f"{name}.lock").open("w")
    with file:      # the lock is released when it is closed
        with written(root):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                stages("waiting for another process that builds the same", 0, 0)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _scratch(root: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=root))


def _remove(root: Path, name: str) -> None:
    """Remove all scratch folders of an entry whose lock is held."""
    for path in root.glob(f"{name}.*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _clear(root: Path) -> None:
    """Remove the scratch folders of builds that were killed: nobody holds their locks."""
    for name in {path.name.partition(".")[0] for path in root.glob("*.*") if path.is_dir()}:
        with (root / f"{name}.lock").open("w") as file, contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(root, name)
