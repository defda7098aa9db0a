"""Why a port cannot be opened, and the way out."""

import errno
import os
from pathlib import Path

from celosia_boards import usb
from celosia_boards.host.holders import holder
from celosia_boards.host.ports import PortError, find_ports, near

__all__ = ["may_open", "refusal"]

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EBUSY)
_ABSENT = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EIO)


def may_open(name: str) -> str:
    """Return the way for this user to be let into a device; "" where they may open it."""
    if os.access(name, os.R_OK | os.W_OK):
        return ""
    rule = "install the udev rule that celosia doctor --udev prints"
    try:
        told = Path(name).stat()
    except OSError as problem:
        return problem.strerror or str(problem)
    group = _group(told.st_gid)
    if told.st_gid == 0 or told.st_mode & 0o060 != 0o060:
        return rule                         # its group would not help, or is root's
    if _belongs(group):
        return f"you belong to its group {group} since you last logged in: log out and in again"
    return (f"it is open to group {group}, run: sudo usermod -aG {group} $USER and log in again, "
            f"or {rule}")


def refusal(name: str, baud: int, problem: Exception) -> PortError:
    """Return what users read where opening a device has raised ``problem``.

    pyserial tells the number of an error only of opening and locking; that of setting the port up
    is in what it caught.
    """
    number = _number(problem) or _number(problem.__context__)
    if number in (errno.EACCES, errno.EPERM) and (way_out := may_open(name)):
        return PortError(f"you may not open {name}: {way_out}")
    if number in _HELD:
        return PortError(f"{name} is in use by {holder(name)}; end that, or name another port")
    if number in _ABSENT:
        return PortError(f"nothing is at {name} any more; {near(find_ports())}")
    if number == errno.ENOTTY:
        return PortError(f"{name} is no serial port; {near(find_ports())}")
    words = usb.printable(" ".join(str(problem).split()), 200)
    return PortError(f"{name} cannot be opened at {baud:,} baud ({words}); name another port")


def _number(problem: BaseException | None) -> int | None:
    """Return the number of a system's error; termios has its own kind of error."""
    if problem is None:
        return None
    first = problem.args[0] if problem.args else None
    return getattr(problem, "errno", None) or (first if isinstance(first, int) else None)


def _group(number: int) -> str:
    import grp

    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _belongs(group: str) -> bool:
    """Whether the system's list of groups has this user in it, whatever this session was given."""
    import grp
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name in grp.getgrnam(group).gr_mem
    except KeyError:
        return False
