"""Exit statuses, and what is said on the way out. Imports nothing that takes time."""

import os

REFUSED, FAULT, INTERRUPTED, UNREAD = 1, 70, 130, 141

interrupts: list[int] = []
"""Grows with every Ctrl-C: code that is interrupted may raise something else on its way out."""


def words_of(error: BaseException) -> str:
    """Return what an error says, of the system's without their numbers: "x.npy: no such file"."""
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        return reason if error.filename is None else f"{error.filename}: {reason}"
    return str(error)


def unread() -> int:
    """Let nothing more be written to stdout, which nobody reads; return the exit status."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)        # Python flushes once more at its end
    return UNREAD
