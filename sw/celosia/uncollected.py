"""Work without the collector of garbage."""

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()
_users = 0          # threads, and calls inside calls, that work without it
_enabled = False    # whether it ran before them


@contextmanager
def uncollected() -> Iterator[None]:
    """Let objects be made without a look for unreachable ones among all others: where much is made
    that stays, to look at all of it again and again takes a tenth of the time and more."""
    global _users, _enabled
    with _LOCK:
        if not _users:
            _enabled = gc.isenabled()
            gc.disable()
        _users += 1
    try:
        yield
    finally:
        with _LOCK:
            _users -= 1
            if not _users and _enabled:
                gc.enable()
