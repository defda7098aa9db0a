"""Where the elements of two words go in the banks, with places that move in a cycle."""

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_hw.fill.columns import COUNTS, Columns
from celosia_hw.layouts import layout
from celosia_spec.isa.array import ENTRY_WORDS, Array
from celosia_spec.isa.controls import PLACE


class WidePlace(wiring.Component):
    """A bank and its row, which move on over the banks of a group, and move anywhere in a cycle.

    Members
    -------
    count, masks, bank, row : as of `Place`
    here, set : In(1), banks, step : In
        Strobe: it moves by so many rows and banks instead, or is set to them.
    rows : In
        Bank rows from one position group to the next.
    """

    def __init__(self, array: Array) -> None:
        rows, banks = (array.bank_rows - 1).bit_length(), array.lanes.bit_length() - 1
        super().__init__({"count": In(COUNTS[array.fill]), "here": In(1), "set": In(1),
                          "banks": In(banks), "step": In(rows), "rows": In(rows),
                          "masks": In(banks), "bank": Out(banks), "row": Out(rows)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        moved = Signal(len(self.bank) + 1)
        m.d.comb += moved.eq(self.bank + Mux(self.here, self.banks, self.count))
        # Bits that tell groups apart are ones, so that the carry gets through to the end.
        m.d.sync += self.bank.eq(Mux(self.here & self.set, self.banks, moved[:-1]) | self.masks)
        with m.If(self.here | moved[-1]):
            m.d.sync += self.row.eq(Mux(self.here & self.set, self.step, self.row + Mux(
                self.here, self.step, 0) + Mux(moved[-1], self.rows, 0)))
        return m


class WideColumns(Columns):
    """`Columns` of an array that fills eight elements a cycle: A and B move in one cycle.

    Members
    -------
    elements, following, pair, masks, row, enable, turn, twice : as of `Columns`
    move : In(1), set : In(1), move_a, move_b : In(layout(PLACE))
        Strobe: A and B move by so many bank rows and banks, or are set to them.
    rows : In
        Bank rows from one position group to the next; stays while there are elements, and a cycle
        longer.

    Timing
    ------
    That of `Columns`; there are no elements in the cycle of ``move``.
    """

    def _moves(self) -> dict[str, Member]:
        return {"following": In(ENTRY_WORDS), "twice": Out(1), "move": In(1), "set": In(1),
                "move_a": In(layout(PLACE)), "move_b": In(layout(PLACE)),
                "rows": In(self.row_bits)}

    def _places(self, m: Module, counts: Sequence[Value]) -> tuple[Sequence[Any], Value]:
        places = []
        for name, count, move in zip("ab", counts, (self.move_a, self.move_b), strict=True):
            m.submodules[name] = place = WidePlace(self.array)
            told = {part: Signal.like(getattr(place, part), name=f"{part}_{name}", reset_less=True)
                    for part in ("step", "banks", "set")}
            m.d.sync += [place.here.eq(self.move), told["step"].eq(move.row),
                         told["banks"].eq(move.bank), told["set"].eq(self.set)]
            m.d.comb += [place.count.eq(count), place.masks.eq(self.masks),
                         place.rows.eq(self.rows),
                         *(getattr(place, part).eq(value) for part, value in told.items())]
            places.append(place)
        return places, self.rows
