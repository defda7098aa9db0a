"""Rotation of lanes, as a butterfly network."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


def exchanges(rotation: Value, half: int) -> list[Value]:
    """Return which elements of a block's halves change places, when both halves are rotated by the
    low bits of ``rotation`` already; the two of each place of a half do, or do not."""
    bit = half.bit_length() - 1
    return [rotation[bit] ^ (rotation[:bit] >= half - low if low else 0) for low in range(half)]


class Rotator(wiring.Component):
    """Rotate lanes: ``o[p] = i[(p + r) % lanes]``.

    A rotation of a block is the rotation of its two halves by the low bits of ``r`` followed by
    exchanges between the halves: ``log2(lanes)`` stages of two inputs.

    Parameters
    ----------
    lanes : int
        A power of two.
    width : int
        Bits of one element.

    Members
    -------
    i, o : lanes elements of ``width`` bits.
    rotation : In(log2(lanes))

    Timing
    ------
    Combinational.
    """

    def __init__(self, lanes: int, width: int) -> None:
        self.lanes, self.width = lanes, width
        super().__init__({
            "i": In(data.ArrayLayout(width, lanes)),
            "o": Out(data.ArrayLayout(width, lanes)),
            "rotation": In(lanes.bit_length() - 1),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        values = [self.i[p] for p in range(self.lanes)]
        half = 1
        while half < self.lanes:
            swap = Signal(half, name=f"swap{half}")
            m.d.comb += [swap[low].eq(exchange)
                         for low, exchange in enumerate(exchanges(self.rotation, half))]
            after = []
            for p in range(self.lanes):
                value = Signal(self.width, name=f"half{half}_{p}")
                m.d.comb += value.eq(Mux(swap[p % half], values[p ^ half], values[p]))
                after.append(value)
            values, half = after, 2 * half
        m.d.comb += [self.o[p].eq(values[p]) for p in range(self.lanes)]
        return m
