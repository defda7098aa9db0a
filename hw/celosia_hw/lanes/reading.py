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
from celosia_hw.parts.delay import chain
from celosia_hw.parts.table_memory import TableMemory
from celosia_spec.isa.array import CONTROL_BITS, PIECE_BITS, Array
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


class ReadingPath(wiring.Component):
    """Dot products of a batch's rows and the lanes of a tile, pass after pass.

    Parameters
    ----------
    array : Array
    mac : str
        Kind of `Multipliers`.

    Members
    -------
    log2_groups : In(2), signed_in : In(1), rows : In, tap_step : In
        Of the layer. Stable from ``load`` on, until `SUMS` cycles behind the last step. ``rows``
        are whole pieces, the taps of a phase whole groups.
    band_row, band_tile, load, tile, again : In
        See `Tiles`; ``band_row`` begins a piece. ``tile`` comes in the first cycle of the tile's
        first pass. A pass without ``tile`` is the next phase of the same tile.
    step : In(STEP), steps : In(quads x 8)
        A step: how far each row's column index moves. The quads of a group get the same.
    mantissas : In(quads x signed(weight_bits))
        Of the step `MANTISSA` cycles before.
    late : Out(STEP)
        Flags of the step whose mantissas come in the next cycle; all 0 in reset.
    write_taps, write_tiles : In(1), address : In, word : In(16)
        Strobe: into one of the tables.
    row, code : In(fill of them), enable : In(lanes)
        Writes into the banks: bank b gets ``code[b % fill]`` in ``row[b % fill]`` where
        ``enable[b]``.
    shift : In(1), sums : Out(drain x signed(acc_bits))
        See `PassSums`; `BlockSums`, where ``mac`` is "mac16" and one lane leaves a cycle.
    written : Out(lanes)
        Lanes that are written: of a tile from `WRITTEN` cycles behind ``tile`` on, until as late
        behind the next one. So they are right for four cycles behind a pass's last step.

    Timing
    ------
    A step each cycle, or none. A pass's sums are shown `SUMS` cycles behind its last step, and stay
    until the next ones. Where a pass has fewer steps than the cycles that it takes at least, idle
    cycles stand before them, so that neither tiles nor sums follow each other sooner. A code can be
    read by the step of the cycle in which it is written; `BANK` - 1 cycles behind a step its codes
    have been read.

    Cells on the UP5K, 16 lanes: 1,546 LUTs, 1,157 flip-flops.
    """

    LATENCY = SUMS

    def __init__(self, array: Array, mac: str = "generic") -> None:
        self.array, self.mac = array, mac
        self.taps, self.tiles = Taps(array), Tiles(array)
        self.pass_sums = (BlockSums(array) if mac == "mac16" and array.drain == 1
                          else PassSums(array, mac))
        quads, row = array.groups_max, (array.bank_rows - 1).bit_length()
        super().__init__({
            "log2_groups": In(2), "signed_in": In(1), "rows": In(row),
            "tap_step": In(self.taps.bits), "band_row": In(row), "band_tile": In(self.tiles.bits),
            "load": In(1), "tile": In(1), "again": In(1), "step": In(STEP),
            "steps": In(data.ArrayLayout(DELTA_BITS, quads)),
            "mantissas": In(data.ArrayLayout(signed(array.weight_bits), quads)), "late": Out(STEP),
            "write_taps": In(1), "write_tiles": In(1),
            "address": In(max(self.taps.bits, self.tiles.bits)), "word": In(CONTROL_BITS),
            "row": In(data.ArrayLayout(row, array.fill)),
            "code": In(data.ArrayLayout(array.activation_bits, array.fill)),
            "enable": In(array.lanes), "shift": In(1),
            "sums": Out(data.ArrayLayout(signed(array.acc_bits), array.drain)),
            "written": Out(array.lanes),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        m.submodules.taps, m.submodules.tiles = taps, tiles = self.taps, self.tiles
        m.submodules.bank_rows = bank_rows = BankRows(array)
        m.submodules.masks = masks = Masks(array)
        m.submodules.turn = turn = Turn(array)
        m.submodules.sums = sums = self.pass_sums
        flags = self._flags(m)
        m.d.comb += [
            taps.tile.eq(self.tile), taps.valid.eq(self.step.valid),
            taps.first.eq(self.step.first), taps.steps.eq(self.steps),
            taps.group_step.eq(self.tap_step[TAP_GROUP_BITS:]), taps.write.eq(self.write_taps),
            tiles.write.eq(self.write_tiles), self.written.eq(tiles.written),
            *(getattr(tiles, name).eq(getattr(self, name))
              for name in ("tile", "again", "load", "band_tile")),
            tiles.band_piece.eq(self.band_row[PIECE_BITS:]),
            bank_rows.group.eq(self.rows[PIECE_BITS:]), bank_rows.piece.eq(tiles.piece),
            *(table.address.eq(self.address) for table in (taps, tiles)),
            *(table.word.eq(self.word) for table in (taps, tiles)),
            *(block.log2_groups.eq(self.log2_groups) for block in (bank_rows, masks, turn)),
            bank_rows.channels.eq(taps.channels), masks.starts.eq(tiles.starts),
            masks.behind.eq(tiles.behind), turn.hidden.eq(masks.hidden),
            turn.signed_in.eq(self.signed_in),
            *(getattr(sums, name).eq(getattr(flags, name)) for name in ("valid", "first", "last")
              if name in sums.signature.members),
            sums.mantissas.eq(self.mantissas), sums.x.eq(turn.x), sums.shift.eq(self.shift),
            self.sums.eq(sums.sums),
        ]
        for q in range(array.groups_max):
            tap = taps.taps[q]
            m.d.comb += [
                bank_rows.tap_pieces[q].eq(tap.piece), bank_rows.rotation[q].eq(tap.rotation),
                turn.rotation[q].eq(tap.rotation), masks.masks[q].eq(tap.mask)]
        for b in range(array.lanes):
            m.submodules[f"bank{b}"] = bank = TableMemory(
                array.bank_rows, array.activation_bits, block=b < block_banks(array, self.mac))
            m.d.comb += [
                bank.write.en.eq(self.enable[b]), bank.write.addr.eq(self.row[b % self.array.fill]),
                bank.write.data.eq(self.code[b % self.array.fill]),
                bank.read.addr.eq(bank_rows.rows[b]), turn.codes[b].eq(bank.read.data),
            ]
        return m

    def _flags(self, m: Module) -> data.View:
        """Return the flags of the step whose mantissas are there."""
        held = chain(m, self.step, MANTISSA, "step", reset_less=False)
        m.d.comb += self.late.eq(held[MANTISSA - 1])
        return held[MANTISSA]
