"""Targets that tests add to the table."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType

from celosia_boards import targets
from celosia_boards.targets import Target


@contextmanager
def registered(of: Target) -> Iterator[Target]:
    """Let a target be in the table, behind the others."""
    known = targets._BY_NAME
    targets._BY_NAME = MappingProxyType({**known, of.name: of})
    try:
        yield of
    finally:
        targets._BY_NAME = known
