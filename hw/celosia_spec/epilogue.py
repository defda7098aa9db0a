"""What follows a node's exact sums, and how a stored tensor gets its exponent (numerics, 3 and 4).

Sum types: what takes one apart does so with ``match``, and ends with ``assert_never``. The field
``kind`` tells the classes apart in a program file.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Sums stay as they are."""

    kind: Literal["identity"] = "identity"

    @property
    def bounds(self) -> tuple[float, float]:
        return -math.inf, math.inf


@dataclass(frozen=True, kw_only=True)
class Relu:
    """``max(x, 0)``."""

    kind: Literal["relu"] = "relu"

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, math.inf


Activation = Annotated[Identity | Relu, Field(discriminator="kind")]
"""``bounds`` of each: the smallest and the largest value that it gives."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Max-pooling without padding: window and stride (y, x); partial windows are dropped."""

    window: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Epilogue:
    """What follows a node's exact sums, in this order.

    add        : name of the stored tensor that is added, of the shape of the sums; or None.
    activation : of every sum.   pool : max-pooling of what it gave, or None.
    """

    add: str | None = None
    activation: Activation = Identity()
    pool: Pool | None = None


PLAIN = Epilogue()
"""Nothing follows: the sums are what is stored."""


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Each image has the exponent that its largest value needs, ``least`` at least."""

    least: int
    kind: Literal["dynamic"] = "dynamic"


@dataclass(frozen=True, kw_only=True)
class Static:
    """Every image has the exponent ``value``, found by calibration; not below ``least``."""

    value: int
    least: int
    kind: Literal["static"] = "static"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The exponent of the tensor ``of``, whose mantissas the node chooses from."""

    of: str
    least: int
    kind: Literal["kept"] = "kept"


Exponent = Annotated[Dynamic | Static | Kept, Field(discriminator="kind")]
"""``least`` of each: the smallest exponent with which no reader's bias leaves its accumulator
(numerics, section 4), -16 ... 15."""
