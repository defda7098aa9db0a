"""Fills: which part of a map goes where in the banks, as records that the gateware executes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import FILL
from celosia_spec.isa.memories import FILL_RECORDS

Move: TypeAlias = tuple[int, int]
"""Bank rows and banks; more banks than a group has go on in its next position group."""

_PAIRED = {2: (0, 1), 4: (0, 2, 1, 3)}
"""Banks from the first of so many elements to each, with ``pair``: even ones, then odd ones."""

_ELEMENT, _MOVED = FILL["element"], FILL["channel_element"]
"""Lower bits of an element's number, and how far on the next one is: of as many bits."""

QUEUED = FILL_RECORDS - 1
"""Records that the gateware takes before the first one of them is done: one place stays free."""

_AROUND = 7
"""Cycles of a record beside those of its lines."""


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Lines and channels of a map, and where they go in the banks.

    residual, signed   : it is its layer's residual operand, else its input; its elements have
                         signs.
    zero               : nothing is read, all codes are that of 0.
    only               : of the planes of columns the first one alone is written.
    log2_groups        : log2 of the row groups that read it.
    step_x, step_y     : columns, lines that part into planes.   phase_x, phase_y : plane of the
                         first column, of the first line.
    word, element      : where the first channel begins; its first element of the first line.
    plane              : words from one channel to the next.   channels, run, lines : channels,
                         elements of a line, lines.   pitch : elements from one line to the next.
    row, bank          : place of the first element of the first channel.
    channel_rows       : bank rows from one channel to the next.
    rows               : bank rows from one position group to the next.
    plane_x_*, plane_y_* : from a plane of columns, of lines, to the next.
    line_*             : from the last plane of lines to the first, one line of the grid on.

    Places are bank rows and banks of a group; they move as `Move` says. Neighbouring elements of a
    plane of columns are neighbouring positions.
    """

    residual: int = 0
    signed: int = 0
    zero: int = 0
    only: int = 0
    log2_groups: int = 0
    step_x: int = 1
    step_y: int = 1
    phase_x: int = 0
    phase_y: int = 0
    word: int = 0
    element: int = 0
    plane: int = 0
    channels: int = 1
    channel_rows: int = 1
    run: int
    lines: int = 1
    pitch: int = 0
    row: int = 0
    rows: int = 0
    bank: int = 0
    plane_x_row: int = 0
    plane_x_bank: int = 0
    plane_y_row: int = 0
    plane_y_bank: int = 0
    line_row: int = 0
    line_bank: int = 0

    def records(self, array: Array) -> list[dict[str, int]]:
        """Return the fields of the FILL records that do this, in no order that matters.

        ``array.fill`` elements a cycle, see `twice`; ``array.unit`` of two planes of columns where
        they lie so that these go to banks that differ modulo that: planes two banks apart if those
        of the first plane have even numbers in main memory, else three; of an array that fills two,
        one bank apart, else none. Others one a cycle.
        ValueError: more lines or elements than the array's banks can hold.
        """
        far = self.plane * ENTRY_WORDS > _MOVED.most and not _wraps(array)
        if self.channels > 1 and far:
            return [record for c in range(self.channels) for record in replace(
                self, channels=1, word=self.word + c * self.plane,
                row=self.row + c * self.channel_rows).records(array)]
        found = []
        for plane in range(self.step_y):
            first = (plane - self.phase_y) % self.step_y
            if count := len(range(first, self.lines, self.step_y)):
                found += self._lines(array, first, self.step_y, count)
        return found

    def _lines(self, array: Array, first: int, every: int, count: int) -> list[dict[str, int]]:
        """Return the records of ``count`` lines of one plane, ``every`` lines apart."""
        lines = first, every, count
        pair = self.step_x == 2 and self.run > 1 and not (self.zero or self.only)
        # Elements with even numbers have a place of their own in all of a record's lines.
        parts = pair or (array.unit == 2 and self.step_x == 1 and not self.zero)
        if parts and self.pitch * every % 2 and count > 1:
            return (self._lines(array, first, 2 * every, (count + 1) // 2)
                    + self._lines(array, first + every, 2 * every, count // 2))
        if self.step_x == 1:
            return [self._record(array, *lines, range(self.run))]
        if pair and self._fits(first, array.unit):
            return [self._record(array, *lines, range(self.run), pair=True)]
        return [self._record(array, *lines, columns)
                for plane in range(1 if self.only else self.step_x)
                if (columns := range((plane - self.phase_x) % self.step_x, self.run, self.step_x))]

    def _place(self, line: int, x: int) -> Move:
        """Return the place of an element of the first channel."""
        down, plane = divmod(line + self.phase_y, self.step_y)
        planes_y = plane - self.phase_y + down * (self.step_y - 1)
        along, plane = divmod(x + self.phase_x, self.step_x)
        planes_x = plane - self.phase_x
        return (self.row + planes_y * self.plane_y_row + down * self.line_row
                + planes_x * self.plane_x_row,
                self.bank + planes_y * self.plane_y_bank + down * self.line_bank
                + planes_x * self.plane_x_bank + along)

    def _number(self, line: int, x: int) -> int:
        """Return the number in main memory of an element of the first channel."""
        return self.word * ENTRY_WORDS + self.element + line * self.pitch + x

    def _fits(self, line: int, size: int) -> bool:
        """Whether the ``size`` elements of an access go to as many banks, even ones and then odd
        ones."""
        begins = {(self._place(line, x)[1] - _PAIRED[size][number % size]
                   - number // size * size // 2) % size for x in range(2)
                  for number in [self._number(line, x)]}
        return len(begins) == 1

    def _record(self, array: Array, first: int, every: int, count: int, columns: range,
                pair: bool = False) -> dict[str, int]:
        """Return the record of these columns of lines, which are neighbours where they lie."""
        size, n, unit = array.positions(self.log2_groups), len(columns), array.unit
        apart = columns.step > 1 and not self.zero
        if n > array.lanes * array.bank_rows // (unit if apart else 1):
            raise ValueError(f"a line of {n} elements is longer than a fill's can be")
        if max(count, self.channels) > array.bank_rows:
            raise ValueError(f"a fill of {count} lines and {self.channels} channels is larger than "
                             f"{array.bank_rows} of either")
        number = 0 if self.zero else self._number(first, columns[0])
        even, (row, bank) = number % 2, self._place(first, columns[0])
        halves = [len(range(begin, n, 2)) for begin in (even, 1 - even)]
        if pair:
            places, counts = [self._place(first, x) for x in (even, 1 - even)], halves
        elif unit == 2 and not apart:
            places, counts = [(row, bank + x) for x in (even, 1 - even)], [2 * n for n in halves]
        else:
            places, counts = [(row, bank), (row, bank + unit)], [n, n]
        here, below = self._place(first, 0), self._place(first + every, 0)
        move = below[0] - here[0], below[1] - here[1]
        back = self.channel_rows - (count - 1) * move[0], -(count - 1) * move[1]
        read = n * columns.step if apart else n
        pitch = self.pitch * every
        gaps = [-n % unit] * 2 if self.zero else [
            pitch - read, self.plane * ENTRY_WORDS - (count - 1) * pitch - read]
        if _wraps(array):
            gaps = [_MOVED.decode(gap) for gap in gaps]
        found = {
            "run": unit - (n * unit - unit + 1 if apart else n), "lines": -count,
            "rows": self.rows % array.bank_rows, "element": _ELEMENT.decode(number),
            "page": number >> _ELEMENT.bits, "step": columns.step if apart else 0,
            "line_element": gaps[0] if count > 1 else 0,
            "channel_element": gaps[1] if self.channels > 1 else 0,
            "residual": self.residual, "signed": self.signed, "zero": self.zero, "pair": int(pair),
            "apart": int(apart), "log2_groups": self.log2_groups, "channels": -self.channels,
        }
        for name, place, taken in zip("ab", places, counts, strict=True):
            for part, (rows, banks) in ((name, place), (f"line_{name}", (move[0], move[1] - taken)),
                                        (f"channel_{name}", (back[0], back[1] - taken))):
                found |= {f"{part}_row": (rows + banks // size * self.rows) % array.bank_rows,
                          f"{part}_bank": banks % size}
        return found


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a record writes, int64 of one shape, (channels, lines, elements).

    element : number in main memory; -1 is a zero.   bank : of the first group.   row : bank row.
    """

    element: np.ndarray
    bank: np.ndarray
    row: np.ndarray


def _wraps(array: Array) -> bool:
    """Whether elements of main memory have numbers of no more bits than `_MOVED`."""
    return ENTRY_WORDS << array.main_bits <= 1 << _MOVED.bits


def first_element(record: Mapping[str, int]) -> int:
    """Return the number in main memory of a record's first element."""
    return (record["page"] << _ELEMENT.bits) + record["element"]


def twice(record: Mapping[str, int], array: Array) -> bool:
    """Return whether two words are filled a cycle, but for a first one that begins inside of a
    word: neighbours that go to a place, in groups of eight positions at least."""
    return (array.two_ports and not (record["pair"] or record["apart"])
            and array.positions(record["log2_groups"]) >= array.fill)


def cycles(record: Mapping[str, int], array: Array) -> int:
    """Return the cycles from one record's end to this one's, if it was queued by then and the port
    is free."""
    lines = _accesses(record, array)
    if record["zero"]:
        lines = -(-run(record, array) // (array.unit << twice(record, array))) + 0 * lines
    if array.two_ports:
        return int(lines.sum()) + lines.size + _AROUND - 1
    lines = 3 + lines if record["apart"] else np.maximum(lines, 3)
    return int(lines.sum()) + 4 * lines.size - record["channels"] - 1 + _AROUND


def accesses(record: Mapping[str, int], array: Array) -> int:
    """Return the accesses to main memory that a record asks for."""
    return 0 if record["zero"] else int(_accesses(record, array).sum())


def run(record: Mapping[str, int], array: Array) -> int:
    """Return the elements of a line."""
    n = array.unit - record["run"]
    return -(-n // array.unit) if record["apart"] else n


def _accesses(record: Mapping[str, int], array: Array) -> np.ndarray:
    """Return the accesses for each line, int64 (channels, lines); not to be written."""
    n, size = run(record, array), array.unit
    lines, channels = -record["lines"], -record["channels"]
    if record["apart"]:
        return np.full((channels, lines), n)
    across = n + record["line_element"]
    return _accesses_of(n, size, lines, channels, record["element"] % size, across % size,
                        ((lines - 1) * across + n + record["channel_element"]) % size,
                        twice(record, array))


@lru_cache(maxsize=1 << 10)
def _accesses_of(n: int, size: int, lines: int, channels: int, element: int, line: int,
                 channel: int, twice: bool) -> np.ndarray:
    """Return in how many accesses each of some runs of ``n`` elements is read, int64 (channels,
    lines).

    size : elements of a word.   element, line, channel : the first one's number, and how far on
    those of the next line and channel are.   twice : an access reads two words, or one.
    """
    first = element + np.arange(lines) * line + np.arange(channels)[:, None] * channel
    first %= size
    found: np.ndarray = (first + n + size - 1) // size
    return (found + 1 + (first > 0)) // 2 if twice else found


def places(record: Mapping[str, int], array: Array) -> Places:
    """Return what the gateware makes of a record.

    AssertionError where elements of an access would go to the same bank, or `b` is not what the
    gateware needs: such a record means nothing.
    """
    size, pair, apart = array.positions(record["log2_groups"]), record["pair"], record["apart"]
    unit, n = array.unit, run(record, array)
    # Elements with even and with odd numbers go to places of their own.
    parts = pair or (unit == 2 and not apart)
    move = 1 if pair or not parts else 2
    x, line = np.arange(n), np.arange(-record["lines"])[:, None]
    channel = np.arange(-record["channels"])[:, None, None]
    read = n * record["step"] if apart else n
    across, last = read + record["line_element"], len(line) - 1
    element = (first_element(record) + channel * (last * across + read + record["channel_element"])
               + line * across + x * (record["step"] if apart else 1))
    element %= ENTRY_WORDS << array.main_bits
    odd = element % 2 * parts
    first = element[..., :1] % 2 * parts
    assert (first == first[0, 0]).all(), "lines begin with odd and with even elements"
    shift = int(first[0, 0, 0])
    index = ((x + shift - odd) // 2 - (1 - odd) * shift) * move if parts else x
    found = []
    for name in "ab":
        taken = len(range(shift ^ (name == "b"), n, 2)) * move if parts else n
        down = record[f"line_{name}_row"], record[f"line_{name}_bank"] + taken
        over = [last * move + record[f"channel_{name}_{part}"]
                for move, part in zip(down, ("row", "bank"), strict=True)]
        banks = (record[f"{name}_bank"] + channel * (over[1] + taken) + line * down[1] + index)
        rows = record[f"{name}_row"] + channel * over[0] + line * down[0]
        found.append((banks % size, (rows + banks // size * record["rows"]) % array.bank_rows,
                      banks))
    if not parts and not apart:
        assert all(record[f"{name}_a_{part}"] == record[f"{name}_b_{part}"]
                   for name in ("line", "channel") for part in ("row", "bank"))
        further = record["a_bank"] + ENTRY_WORDS
        assert record["b_bank"] == further % size
        assert record["b_row"] == (record["a_row"] + further // size * record["rows"]
                                   ) % array.bank_rows
    bank, row = (np.where(odd, b, a) for a, b in zip(found[0][:2], found[1][:2], strict=True))
    if parts:
        begin = (bank - np.array(_PAIRED[unit])[element % unit]) % unit
        inside = element[..., 1:] // unit == element[..., :-1] // unit
        assert (begin[..., 1:] == begin[..., :-1])[inside].all(), "two elements go to one bank"
    if record["zero"]:
        element = np.full_like(element, -1)
    return Places(element=element, bank=bank, row=np.broadcast_to(row, element.shape))
