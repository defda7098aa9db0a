"""Words cut into fields: packing, checking and unpacking from one table.

Every word of the machine is such a table. The gateware's layouts, the compiler's words, the models'
decoding and the tables in the docs are made from it. NumPy is imported only where arrays come in:
listing the boards must not wait for it.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Words = NDArray[np.int64]

Value = TypeVar("Value", int, "Words")


@dataclass(frozen=True)
class Field:
    """Some bits of a word.

    name    : of the field; "_" for bits that nobody reads (packed as 0).   bits : its width.
    signed  : whether its highest bit counts as minus.
    about   : what it holds: unit, range.
    offset  : added to the bits to get the value: a count from 1 on is stored as count - 1.
    """

    name: str
    bits: int
    signed: bool = False
    about: str = ""
    offset: int = 0

    @cached_property
    def least(self) -> int:
        """The smallest value."""
        return self.offset - (1 << self.bits - 1 if self.signed and self.bits else 0)

    @cached_property
    def most(self) -> int:
        """The largest value."""
        return self.least + self._mask

    @cached_property
    def _mask(self) -> int:
        return (1 << self.bits) - 1

    def encode(self, value: Value, word: str) -> Value:
        """Return the field's bits; ValueError where a value does not fit, ``word`` names it."""
        wrong = (value < self.least) | (value > self.most)
        if wrong if isinstance(wrong, bool) else wrong.any():
            first = value if isinstance(wrong, bool) else value[wrong].flat[0]
            raise ValueError(f"{word} field {self.name} must be {self.least} to {self.most}, not "
                             f"{first}")
        return value - self.offset & self._mask

    def decode(self, bits: Value) -> Value:
        """Return the value in the field's bits; bits above them do not matter."""
        return (bits + self.offset - self.least & self._mask) + self.least


@dataclass(frozen=True)
class Word:
    """A word cut into fields, the first in the lowest bits.

    name : of the word, for refusals.   fields : their names are not repeated, except "_".
    """

    name: str
    fields: tuple[Field, ...]

    @property
    def bits(self) -> int:
        """Width of the word."""
        return sum(field.bits for field in self.fields)

    def places(self) -> Iterator[tuple[Field, int]]:
        """Every field and its lowest bit."""
        low = 0
        for field in self.fields:
            yield field, low
            low += field.bits

    @cached_property
    def named(self) -> dict[str, tuple[Field, int]]:
        """Each field and its lowest bit, by its name; "_" is not among them."""
        return {field.name: (field, low) for field, low in self.places() if field.name != "_"}

    def __getitem__(self, name: str) -> Field:
        """The field of a name; KeyError where there is none."""
        return self.named[name][0]

    def pack(self, **values: Value) -> Value:
        """Return the word of these values, ints or, of at most 63 bits, int64 arrays of one shape;
        bits of fields that are not named are 0. ValueError: word, field, range and value of what
        does not fit."""
        named = self.named
        if unknown := values.keys() - named.keys():
            raise ValueError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        return reduce(operator.or_, (field.encode(value, self.name) << low
                                     for name, value in values.items()
                                     for field, low in [named[name]]))

    def unpack(self, word: Value) -> dict[str, Value]:
        """Return the values of all named fields of a word, or of an array of words."""
        return {name: field.decode(word >> low) for name, (field, low) in self.named.items()}
