"""Files that appear whole or not at all, and only where a file may stand.

Everything that Celosia writes at a path of the user's goes through :func:`replacing`; commands
that work for long call :func:`check_output` or :func:`check_folder` before they start.
"""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from celosia_spec.errors import CelosiaError

_PREFIX, _SUFFIX = ".celosia-", ".part"

_KINDS = ((stat.S_ISREG, "a file"), (stat.S_ISDIR, "a folder"), (stat.S_ISCHR, "a device"),
          (stat.S_ISBLK, "a device"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))


def check_output(path: str | Path, *others: str | Path | None) -> Path:
    """Return the file that writing to ``path`` makes or replaces, symbolic links followed.

    others : further files of the same command, which it reads or writes; None for no file.
    CelosiaError where ``path`` is a folder, a device, a pipe or a socket, is one of ``others``, or
    where it or its folder may not be written.
    """
    status = _status(path)
    target = Path(os.path.realpath(path))
    if any(other is not None and _same(target, Path(other)) for other in others):
        raise CelosiaError(f"{path}: this command needs that file for something else too; name "
                           f"another file to write")
    if status is None:
        _check_writable(path, target.parent)
        return target
    if not stat.S_ISREG(status.st_mode):
        raise CelosiaError(f"{path}: is {_kind(status.st_mode)} and stays as it is; name a file")
    if not os.access(target, os.W_OK):
        raise CelosiaError(f"{path}: may not be written; name another file")
    _check_writable(path, target.parent)
    return target


def check_folder(path: str | Path, pattern: str = "") -> Path:
    """Return ``path`` as a folder that is there, or that can be made, and be written in.

    pattern : names of files, such as ``net.*``, that will be replaced in it.
    CelosiaError where something else is in the way.
    """
    path = Path(path)
    status = _status(path)
    if status is None:
        nearest = next(parent for parent in path.absolute().parents if parent.exists())
        _check_writable(path, nearest)
        return path
    if not stat.S_ISDIR(status.st_mode):
        raise CelosiaError(f"{path}: is {_kind(status.st_mode)}, not a folder; name a folder")
    _check_writable(path, path)
    for entry in sorted(path.glob(pattern)) if pattern else ():
        if entry.is_symlink() or not entry.is_file():
            kind = "a link" if entry.is_symlink() else _kind(entry.stat().st_mode)
            raise CelosiaError(f"{entry}: is {kind} and stays as it is; name another folder")
    return path


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of ``path`` on success and vanishes on any failure.

    A symbolic link is followed: the file that it names is replaced. A new file's permissions are
    those of any new file, a replaced file's stay. Any number of threads and processes may write to
    one path: the last to finish wins. CelosiaError as :func:`check_output`.
    """
    target = check_output(path)
    _clear_stale(target.parent)
    part, handle = _new_part(path, target.parent)
    try:
        with open(handle, "w+b") as file:  # noqa: PTH123 - of a descriptor
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(handle, stat.S_IMODE(target.stat().st_mode))
            yield file
            file.flush()
            os.fsync(handle)
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def open_file(path: str | Path, limit: int) -> BinaryIO:
    """Open a regular file for reading.

    CelosiaError where ``path`` is a folder, a device, a pipe or a socket (which may never end), or
    holds more than ``limit`` bytes; OSError where it cannot be read.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except ValueError as problem:       # a zero byte in the name
        raise CelosiaError(f"{str(path)!r}: {problem}; name another file") from None
    if not stat.S_ISREG(mode):
        raise CelosiaError(f"{path}: is {_kind(mode)}; name a file")
    file = path.open("rb")
    if os.fstat(file.fileno()).st_size > limit:
        file.close()
        raise CelosiaError(f"{path}: larger than {limit >> 20} MiB, too large for such a file; "
                           f"name another file")
    return file


def read_file(path: str | Path, limit: int) -> bytes:
    """Return what a regular file of at most ``limit`` bytes holds; errors as `open_file`."""
    with open_file(path, limit) as file:
        content = file.read(limit + 1)
    if len(content) > limit:        # it grew
        raise CelosiaError(f"{path}: larger than {limit >> 20} MiB, too large for such a file; "
                           f"name another file")
    return content


def _status(path: str | Path) -> os.stat_result | None:
    """Return what ``path`` is, links followed; None where nothing is there."""
    try:
        return os.stat(path)  # noqa: PTH116 - Path("") would be "."
    except FileNotFoundError:
        if not os.fspath(path):
            raise CelosiaError("the name of a file to write is empty; give one") from None
        return None
    except OSError as problem:
        raise CelosiaError(f"{path}: {problem.strerror}; name another file") from None
    except ValueError as problem:
        raise CelosiaError(f"{str(path)!r}: {problem}; name another file") from None


def _same(target: Path, other: Path) -> bool:
    """Whether two paths are one file, there or not; links are followed."""
    with contextlib.suppress(OSError):
        return target.samefile(other)
    return target == Path(os.path.realpath(other))


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "of an unknown kind")


def _check_writable(path: str | Path, folder: Path) -> None:
    if not folder.is_dir():
        raise CelosiaError(f"{path}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CelosiaError(f"{path}: the folder {folder} may not be written in; name another")


def _new_part(path: str | Path, folder: Path) -> tuple[Path, int]:
    """Make a file of a new name in ``folder`` and hold its lock; return its path and descriptor."""
    while True:
        part = folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        try:
            # Not by tempfile, whose files are private: the kernel applies the umask here.
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as problem:
            raise CelosiaError(f"{path}: {problem.strerror}; name another file") from None
        if _held(handle):
            return part, handle
        os.close(handle)


def _held(handle: int) -> bool:
    """Lock a new file until it is closed; False where another process is just clearing it away."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:         # a file system without locks, where nothing is cleared either
        return True
    return os.fstat(handle).st_nlink > 0


def _clear_stale(folder: Path) -> None:
    """Remove half-written files of processes that were killed: nobody holds their locks."""
    for part in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            handle = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
            finally:
                os.close(handle)
