"""Rotation of lanes inside groups of any power-of-two size, as a butterfly network."""

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
    """Rotate the lanes of every group: ``o[p] = i[(p + r) % size]`` inside each group.

    A rotation of a block is the rotation of its two halves by the low bits of ``r`` followed by
    exchanges between the halves, so that one network of ``log2(lanes)`` two-input stages serves
    every group size: blocks larger than a group do not exchange.

    Parameters
    ----------
    lanes : int
        A power of two.
    width : int
        Bits of one element.
    quads : int
        Independent rotation inputs; ``lanes / quads`` is the smallest group.
    registered : bool
        A register in the middle of the network.

    Members
    -------
    i, o : lanes elements of ``width`` bits.
    rotation : In(quads x log2(lanes))
        Rotation of the lanes of each quad, less than the group size, equal in all quads of a group.
    log2_groups : In
        Logarithm of the number of groups. Stable while data moves.

    Timing
    ------
    Combinational, or one cycle with ``registered``.
    """

    def __init__(self, lanes: int, width: int, quads: int, registered: bool = False) -> None:
        self.lanes, self.width, self.quads, self.registered = lanes, width, quads, registered
        bits = lanes.bit_length() - 1
        self.latency = int(registered)
        super().__init__({
            "i": In(data.ArrayLayout(width, lanes)),
            "o": Out(data.ArrayLayout(width, lanes)),
            "rotation": In(data.ArrayLayout(bits, quads)),
            "log2_groups": In(3),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = self.lanes.bit_length() - 1
        quad_lanes = self.lanes // self.quads
        values = [self.i[p] for p in range(self.lanes)]
        rotation = [self.rotation[q] for q in range(self.quads)]
        for stage in range(1, bits + 1):
            size, half = 1 << stage, 1 << stage - 1
            enabled = Signal(name=f"stage{stage}_enabled")
            m.d.comb += enabled.eq(self.log2_groups <= bits - stage)
            swap = [Signal(half, name=f"stage{stage}_swap{block}")
                    for block in range(self.lanes // size)]
            for block, control in enumerate(swap):
                r = rotation[block * size // quad_lanes]
                m.d.comb += [control[low].eq(exchange & enabled)
                             for low, exchange in enumerate(exchanges(r, half))]
            after = []
            for p in range(self.lanes):
                value = Signal(self.width, name=f"stage{stage}_{p}")
                other = values[p ^ half]
                m.d.comb += value.eq(Mux(swap[p // size][p % half], other, values[p]))
                after.append(value)
            values = after
            if self.registered and stage == (bits + 1) // 2:
                values, rotation = self._register(m, values, rotation)
        m.d.comb += [self.o[p].eq(values[p]) for p in range(self.lanes)]
        return m

    def _register(self, m: Module, values: list[Value],
                  rotation: Value) -> tuple[list[Value], Value]:
        held = [Signal(self.width, name=f"mid_{p}", reset_less=True) for p in range(self.lanes)]
        turns = [Signal.like(r, name=f"mid_rotation_{q}", reset_less=True)
                 for q, r in enumerate(rotation)]
        m.d.sync += [h.eq(v) for h, v in zip(held, values, strict=True)]
        m.d.sync += [t.eq(r) for t, r in zip(turns, rotation, strict=True)]
        return held, turns

