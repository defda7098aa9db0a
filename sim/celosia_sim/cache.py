"""Where generated Verilog and compiled simulators are kept between runs."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["cache_directory", "cached", "digest"]


def cache_directory() -> Path:
    """Return the cache folder, made if need be: ``$CELOSIA_CACHE``, else ``~/.cache/celosia``."""
    named = os.environ.get("CELOSIA_CACHE")
    path = Path(named).absolute() if named else Path.home() / ".cache" / "celosia"
    path.mkdir(parents=True, exist_ok=True)
    return path


def digest(*parts: str) -> str:
    """Return a 24-digit hexadecimal hash of ``parts``; their order and borders count."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{len(part)}:{part}".encode())
    return total.hexdigest()[:24]


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


def cached(name: str, build: Callable[[Path], None]) -> Path:
    """Return the folder ``name`` of the cache, filled by ``build(folder)`` where it is missing.

    ``build`` works in a folder of its own that is renamed when it returns: a folder that is there
    is whole. Of two processes that want the same one, the second waits. If ``build`` raises,
    nothing stays.
    """
    root = cache_directory()
    final = root / name
    if final.is_dir():
        return final
    with _locked(root / f"{name}.lock"):
        if final.is_dir():
            return final
        scratch = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=root))
        try:
            build(scratch)
            scratch.rename(final)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return final
