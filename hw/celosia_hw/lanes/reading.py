"""The reading path: from steps to sums."""

from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.lanes.bank_rows import BankRows
from celosia_hw.lanes.block_sums import BlockSums
from celosia_hw.lanes.masks import Masks
from celosia_hw.lanes.pass_sums import PassSums
from celosia_hw.lanes.taps import Taps
from celosia_hw.lanes.tiles import Tiles
from celosia_hw.lanes.turn import Turn
from celosia_hw.layouts import LAYER_LAYOUT
from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_hw.signatures import Codes, Shadow
from celosia_spec.isa.array import CONTROL_BITS, PIECE_BITS, Array
from celosia_spec.isa.fabric import GENERIC, Fabric
from celosia_spec.isa.memories import block_banks
from celosia_spec.isa.numbers import DELTA_BITS
from celosia_spec.isa.timing import MANTISSA, SUMS
from celosia_spec.isa.words import TAP_GROUP_BITS

STEP = data.StructLayout({
    "valid": 1,     # there is a step; else the others mean nothing
    "first": 1,     # of a pass: columns and sums begin
    "last": 1,      # of a pass: sums are complete
})
"""Flags of a step."""


class Band(wiring.Signature):
    """A band, seen from who begins it.

    load : strobe: the others are there, and stay until the next one.
    row  : bank row that its tiles count from; it begins a piece.
    tile : place of its first tile's first word.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"load": Out(1), "row": Out((array.bank_rows - 1).bit_length()),
                          "tile": Out((array.tiles - 1).bit_length())})


class Tables(wiring.Signature):
    """Words of tables, seen from who writes them.

    tap, tile : strobes: ``word`` goes to this ``place`` of the taps, of the tiles.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({"tap": Out(1), "tile": Out(1), "word": Out(CONTROL_BITS),
                          "place": Out((max(array.taps, array.tiles) - 1).bit_length())})


class Steps(wiring.Signature):
    """Steps, seen from who issues them.

    step        : STEP.
    tile, again : see `Tiles`; ``tile`` comes in the first cycle of the tile's first pass. A pass
                  without ``tile`` is the next phase of the same tile.
    """

    def __init__(self) -> None:
        super().__init__({"step": Out(STEP), "tile": Out(1), "again": Out(1)})


class Weights(wiring.Signature):
    """Weights of steps, seen from who reads them out of their ring.

    steps     : with a step, of each quad: how far the row's column index moves. The quads of a
                group get the same.
    mantissas : of the step `MANTISSA` cycles before.
    """

    def __init__(self, array: Array) -> None:
        quads = array.groups_max
        super().__init__({
            "steps": Out(data.ArrayLayout(DELTA_BITS, quads)),
            "mantissas": Out(data.ArrayLayout(signed(array.weight_bits), quads))})


class ReadingControl(wiring.Signature):
    """What the control path gives the reading path."""

    def __init__(self, array: Array) -> None:
        super().__init__({"band": Out(Band(array)), "tables": Out(Tables(array)),
                          "steps": Out(Steps()), "weights": Out(Weights(array))})


class ReadingPath(wiring.Component):
    """Dot products of a batch's rows and the lanes of a tile, pass after pass.

    Parameters
    ----------
    array : Array
    fabric : Fabric
        What it is built of.

    Members
    -------
    layer : In(LAYER_LAYOUT)
        Stable from ``load`` on, until `SUMS` cycles behind the last step. ``rows`` are whole
        pieces, the taps of a phase whole groups.
    control : In(ReadingControl)
        Bands, words of tables, steps and their weights.
    late : Out(STEP)
        Flags of the step whose mantissas come in the next cycle; all 0 in reset.
    codes : In(Codes)
    shadow : Out(Shadow)
        Sums: see `PassSums`; `BlockSums`, where multipliers add and one lane leaves a cycle.
        Lanes that are written: of a tile from `WRITTEN` cycles behind ``tile`` on, until as late
        behind the next one. So they are right for four cycles behind a pass's last step.

    Timing
    ------
    A step each cycle, or none. A pass's sums are shown `SUMS` cycles behind its last step, and stay
    until the next ones. Where a pass has fewer steps than the cycles that it takes at least, idle
    cycles stand before them, so that neither tiles nor sums follow each other sooner. A code can be
    read by the step of the cycle in which it is written; `BANK` - 1 cycles behind a step its codes
    have been read.
    """

    LATENCY = SUMS

    def __init__(self, array: Array, fabric: Fabric = GENERIC) -> None:
        self.array, self.fabric = array, fabric
        self.taps, self.tiles = Taps(array), Tiles(array)
        self.pass_sums = (BlockSums(array) if fabric.adds and array.drain == 1
                          else PassSums(array, fabric))
        super().__init__({
            "layer": In(LAYER_LAYOUT), "control": In(ReadingControl(array)), "late": Out(STEP),
            "codes": In(Codes(array)), "shadow": Out(Shadow(array))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, layer, codes = self.array, self.layer, self.codes
        band, tables = self.control.band, self.control.tables
        steps, weights = self.control.steps, self.control.weights
        m.submodules.taps, m.submodules.tiles = taps, tiles = self.taps, self.tiles
        m.submodules.bank_rows = bank_rows = BankRows(array)
        m.submodules.masks = masks = Masks(array)
        m.submodules.turn = turn = Turn(array)
        m.submodules.sums = sums = self.pass_sums
        flags = self._flags(m)
        m.d.comb += [
            taps.tile.eq(steps.tile), taps.valid.eq(steps.step.valid),
            taps.first.eq(steps.step.first), taps.steps.eq(weights.steps),
            taps.group_step.eq(layer.tap_step[TAP_GROUP_BITS:]), taps.write.eq(tables.tap),
            tiles.write.eq(tables.tile), self.shadow.written.eq(tiles.written),
            tiles.tile.eq(steps.tile), tiles.again.eq(steps.again), tiles.load.eq(band.load),
            tiles.band_tile.eq(band.tile), tiles.band_piece.eq(band.row[PIECE_BITS:]),
            bank_rows.group.eq(layer.rows[PIECE_BITS:]), bank_rows.piece.eq(tiles.piece),
            *(table.address.eq(tables.place) for table in (taps, tiles)),
            *(table.word.eq(tables.word) for table in (taps, tiles)),
            *(block.log2_groups.eq(layer.log2_groups) for block in (bank_rows, masks, turn)),
            bank_rows.channels.eq(taps.channels), masks.starts.eq(tiles.starts),
            masks.behind.eq(tiles.behind), turn.hidden.eq(masks.hidden),
            turn.signed_in.eq(layer.signed_in),
            *(getattr(sums, name).eq(getattr(flags, name)) for name in ("valid", "first", "last")
              if name in sums.signature.members),
            sums.mantissas.eq(weights.mantissas), sums.x.eq(turn.x),
            sums.shift.eq(self.shadow.shift), self.shadow.sums.eq(sums.sums),
        ]
        for q in range(array.groups_max):
            tap = taps.taps[q]
            m.d.comb += [
                bank_rows.tap_pieces[q].eq(tap.piece), bank_rows.rotation[q].eq(tap.rotation),
                turn.rotation[q].eq(tap.rotation), masks.masks[q].eq(tap.mask)]
        for b in range(array.lanes):
            m.submodules[f"bank{b}"] = bank = TableMemory(
                array.bank_rows, array.activation_bits, block=b < block_banks(array, self.fabric))
            m.d.comb += [
                bank.write.en.eq(codes.enable[b]), bank.write.addr.eq(codes.row[b % array.fill]),
                bank.write.data.eq(codes.code[b % array.fill]),
                bank.read.addr.eq(bank_rows.rows[b]), turn.codes[b].eq(bank.read.data),
            ]
        return m

    def _flags(self, m: Module) -> data.View:
        """Return the flags of the step whose mantissas are there."""
        held = chain(m, self.control.steps.step, MANTISSA, "step", reset_less=False)
        m.d.comb += self.late.eq(held[MANTISSA - 1])
        return held[MANTISSA]
