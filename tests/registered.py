"""Targets that tests add to the table."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from types import MappingProxyType

from celosia_boards import targets
from celosia_boards.targets import Target, target
from celosia_spec.isa.array import Array


@contextmanager
def registered(of: Target) -> Iterator[Target]:
    """Let a target be in the table, behind the others."""
    known = targets._BY_NAME
    targets._BY_NAME = MappingProxyType({**known, of.name: of})
    try:
        yield of
    finally:
        targets._BY_NAME = known


def carrying(array: Array, name: str, like: str) -> AbstractContextManager[Target]:
    """Let a target be in the table that is like another, but for its name and its array."""
    of = target(like)
    return registered(replace(of, name=name, device=replace(of.device, array=array)))
