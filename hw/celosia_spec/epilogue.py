"""What follows a node's exact sums, and how a stored tensor gets its exponent (numerics, 3 and 4).

Sum types: `celosia_sim.golden` takes them apart, with ``match`` that ends with ``assert_never``;
all others ask them (`Function`, `Rule`). The field ``kind`` tells the classes apart in a program
file.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from celosia_spec.block import Format
from celosia_spec.errors import ArgumentError
from celosia_spec.isa.numbers import EXPONENT_MAX, EXPONENT_MIN


class Function:
    """What every activation is asked."""

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that it gives; one within them stays as it is."""
        return -math.inf, math.inf

    @property
    def clamps(self) -> bool:
        """Whether it has an upper bound, which is applied to mantissas."""
        return self.bounds[1] < math.inf


@dataclass(frozen=True, kw_only=True)
class Identity(Function):
    """Sums stay as they are."""

    kind: Literal["identity"] = "identity"


@dataclass(frozen=True, kw_only=True)
class Relu(Function):
    """``max(x, 0)``."""

    kind: Literal["relu"] = "relu"

    @property
    def bounds(self) -> tuple[float, float]:
        return 0.0, math.inf


@dataclass(frozen=True, kw_only=True)
class Clamp(Function):
    """``min(max(x, low), high)``. ``low`` is 0 or ``-high``; ``high`` is 2^-16 to below 2^16."""

    low: float
    high: float
    kind: Literal["clamp"] = "clamp"

    def __post_init__(self) -> None:
        if not 2.0**EXPONENT_MIN <= self.high < 2.0 ** (EXPONENT_MAX + 1):
            raise ValueError(f"a clamp's upper bound must be 2^{EXPONENT_MIN} to below "
                             f"2^{EXPONENT_MAX + 1}, not {self.high:g}")
        if self.low not in (0, -self.high):
            raise ValueError(f"a clamp's lower bound must be 0 or {-self.high:g}, "
                             f"not {self.low:g}")

    @property
    def bounds(self) -> tuple[float, float]:
        return self.low, self.high


Activation = Annotated[Identity | Relu | Clamp, Field(discriminator="kind")]


def within(low: float, high: float) -> Activation:
    """Return the activation with these bounds; ValueError where there is none."""
    if high < math.inf:
        return Clamp(low=low, high=high)
    return Identity() if low == -math.inf else Relu()


def rounded(activation: Activation, format: Format) -> Activation:
    """Return the activation with bounds that are mantissas of a format (numerics, section 4)."""
    low, high = activation.bounds
    if not activation.clamps:
        return activation
    lsb = _exponent(high) - format.fraction
    high = math.ldexp(min(round(math.ldexp(high, -lsb)), format.largest), lsb)
    return Clamp(low=-high if low else 0.0, high=high)


def highest(activation: Activation, least: int) -> int:
    """Return the largest exponent that a tensor has behind an activation.

    least : the tensor's smallest exponent.
    """
    return max(least, _exponent(activation.bounds[1])) if activation.clamps else EXPONENT_MAX


def _exponent(value: float) -> int:
    return math.frexp(value)[1] - 1


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


class Rule(ABC):
    """What every rule is asked."""

    @property
    def found(self) -> bool:
        """Whether each image has an exponent that its values give."""
        return False

    @property
    def fixed(self) -> int | None:
        """The exponent that every image has; None where there is no such number."""
        return None

    @property
    def keeps(self) -> str | None:
        """The tensor whose exponent it is; None where it is one of its own."""
        return None

    @abstractmethod
    def given(self, needed: int, most: int, exponent_of: Callable[[str], int]) -> int:
        """Return the exponent of an image.

        needed : by its largest value.   most : see `highest`.   exponent_of : of another tensor.
        """


@dataclass(frozen=True, kw_only=True)
class Dynamic(Rule):
    """Each image has the exponent that its largest value needs, ``least`` at least and `highest`
    at most."""

    least: int
    kind: Literal["dynamic"] = "dynamic"

    @property
    def found(self) -> bool:
        return True

    def given(self, needed: int, most: int, exponent_of: Callable[[str], int]) -> int:
        return min(max(needed, self.least), most)


@dataclass(frozen=True, kw_only=True)
class Static(Rule):
    """Every image has the exponent ``value``, found by calibration; not below ``least``."""

    value: int
    least: int
    kind: Literal["static"] = "static"

    @property
    def fixed(self) -> int:
        return self.value

    def given(self, needed: int, most: int, exponent_of: Callable[[str], int]) -> int:
        return self.value


@dataclass(frozen=True, kw_only=True)
class Kept(Rule):
    """The exponent of the tensor ``of``, whose mantissas the node chooses from."""

    of: str
    least: int
    kind: Literal["kept"] = "kept"

    @property
    def keeps(self) -> str:
        return self.of

    def given(self, needed: int, most: int, exponent_of: Callable[[str], int]) -> int:
        return exponent_of(self.of)


EXPONENTS = DYNAMIC, STATIC = "dynamic", "static"
"""What a user asks for: exponents that each image finds for itself, or that calibration fixes."""


def check_exponents(asked: object) -> None:
    """ArgumentError unless ``asked`` is one of the two."""
    if asked not in EXPONENTS:
        raise ArgumentError(f"exponents must be {DYNAMIC!r} or {STATIC!r}, not {asked!r}")


Exponent = Annotated[Dynamic | Static | Kept, Field(discriminator="kind")]
"""``least`` of each: the smallest exponent with which no reader's bias leaves its accumulator
(numerics, section 4), -16 ... 15."""
