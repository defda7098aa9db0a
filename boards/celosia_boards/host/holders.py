"""Which process has a port, as far as /proc lets this user see."""

import os
from pathlib import Path

from celosia_boards import usb

__all__ = ["holder", "holders"]

_PROC = Path("/proc")
_UNKNOWN = "another process"


def holder(device: str) -> str:
    """Return who has locked a device, in words: its command and process id, or "another
    process"."""
    pid = _locker(device)
    if pid is not None:
        return _words(pid)
    return " or ".join(holders(device)) or _UNKNOWN


def holders(device: str) -> list[str]:
    """Return who has a device open, in words, this process left out; () of those that this user
    may not see."""
    place = os.path.realpath(device)
    found = []
    for folder in _processes():
        try:
            opened = any(_target(entry) == place for entry in (folder / "fd").iterdir())
        except OSError:                     # another user's, or gone meanwhile
            continue
        if opened and int(folder.name) != os.getpid():
            found.append(_words(int(folder.name)))
    return found


def _processes() -> list[Path]:
    try:
        return sorted((folder for folder in _PROC.iterdir() if folder.name.isdecimal()),
                      key=lambda folder: int(folder.name))
    except OSError:
        return []


def _target(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""


def _locker(device: str) -> int | None:
    """Return the process that holds a flock on it, as /proc/locks tells: ``1: FLOCK ADVISORY WRITE
    PID MAJOR:MINOR:INODE 0 EOF``."""
    try:
        told = Path(device).stat()
        lines = (_PROC / "locks").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    place = f"{os.major(told.st_dev):02x}:{os.minor(told.st_dev):02x}:{told.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) > 5 and fields[1] == "FLOCK" and fields[5] == place:
            return int(fields[4]) if fields[4].isdecimal() and int(fields[4]) else None
    return None


def _words(pid: int) -> str:
    if pid == os.getpid():
        return f"this process ({pid})"
    try:
        command = (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ")
    except OSError:
        command = b""
    words = usb.printable(command.decode(errors="replace").strip(), 80)
    return f"{words!r} (process {pid})" if words else f"process {pid}"
