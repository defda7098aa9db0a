"""The core: one array and its output stage behind a memory-mapped host bus."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from celosia_hw.control.sequencer import Sequencer
from celosia_hw.lanes.bank_writer import BankWriter
from celosia_hw.lanes.banks import Banks
from celosia_hw.lanes.mac_array import MacArray
from celosia_hw.lanes.tile_walk import TileWalk
from celosia_hw.memory.weight_memory import WeightMemory
from celosia_hw.output.stage import OutputStage
from celosia_hw.weights.decoder import Decoder
from celosia_spec.isa import EXPONENT_SLOTS, ArrayConfig, Flag, Space, Word


class Core(wiring.Component):
    """Run compiled layers out of on-chip memories.

    Parameters
    ----------
    array : ArrayConfig
        Sizes and widths; its hash is readable as ``Register.ARRAY_HASH``.
    mac : str
        Multipliers: "generic", "mac16" (SB_MAC16) or "mult18" (MULT18X18D).
    weight_memory : str
        "bram" or "spram" (SB_SPRAM256KA).

    Members
    -------
    mem_space, mem_address, mem_write, mem_wdata, mem_read, mem_rdata, mem_rvalid
        Host bus, see :class:`celosia_spec.isa.Space`. A write is a strobe with space, address and
        data, any cycle. Space and address of a read must hold from the strobe ``mem_read`` until
        ``mem_rvalid``, a strobe ``read_latency`` cycles later, that comes with the data. Readable:
        REGISTERS (always), PROGRAM, BANKS, STORE, EXPONENTS, RESIDUAL (while not busy). Writes
        while busy are ignored.
    start, start_first, start_last, busy, done, error, error_descriptor, saturated, layer, abort
        See :class:`Sequencer`.
    """

    def __init__(self, array: ArrayConfig, *, mac: str = "generic",
                 weight_memory: str = "bram") -> None:
        self.array, self.mac, self.weight_memory = array, mac, weight_memory
        self.stream, self.banks, self.output = Decoder(array), Banks(array), OutputStage(array)
        self.read_latency = self.banks.latency + 4
        super().__init__({
            "mem_space": In(4), "mem_address": In(20), "mem_write": In(1), "mem_wdata": In(32),
            "mem_read": In(1), "mem_rdata": Out(32), "mem_rvalid": Out(1),
            "start": In(1), "start_first": In(8), "start_last": In(8), "abort": In(1),
            "busy": Out(1), "done": Out(1), "error": Out(8), "error_descriptor": Out(8),
            "saturated": Out(1), "layer": Out(8),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array = self.array
        stream, banks = self.stream, self.banks
        m.submodules.sequencer = sequencer = ResetInserter(self.abort)(
            Sequencer(array))
        m.submodules.weights = weights = WeightMemory(
            array.weight_rows, array.groups_max, array.weight_word_bits, self.weight_memory)
        m.submodules.stream, m.submodules.banks = stream, banks
        m.submodules.tiles = tiles = TileWalk(array)
        m.submodules.lanes = lanes = MacArray(array, self.mac)
        m.submodules.output = ResetInserter(self.abort)(self.output)
        output = self.output
        m.submodules.writer = writer = BankWriter(array)
        words = sequencer.descriptor
        flags = words[Word.FLAGS]

        def flag(which: Flag) -> Value:
            return flags[int(which).bit_length() - 1]

        # The array: weights -> decoder -> banks -> lanes -> output stage -> banks.
        groups = words[Word.GROUPS][:3]
        m.d.comb += [
            weights.read_row.eq(sequencer.weight_row),
            stream.step.eq(sequencer.step), stream.slot.eq(sequencer.slot),
            stream.words.eq(weights.read_data),
            stream.tap_base.eq(words[Word.TAP_BASE]), stream.tap_step.eq(words[Word.TAP_STEP]),
            tiles.load.eq(sequencer.load), tiles.last.eq(stream.flags_early.tile_last),
            tiles.line.eq(words[Word.LINE]), tiles.base.eq(words[Word.IN_BASE]),
            tiles.channels.eq(words[Word.IN_CHANNELS]), tiles.jump.eq(flag(Flag.JUMP)),
            tiles.advance.eq(stream.flags_early.valid & stream.flags_early.tile_first),
            banks.operand.eq(stream.operand), banks.flags.eq(stream.flags),
            banks.tile.eq(tiles.tile), tiles.host_valid.eq(~self.busy),
            tiles.host_row.eq(self.mem_address[array.lane_bits:]),
            lanes.x.eq(banks.x), lanes.weights.eq(banks.weights), lanes.flags.eq(banks.flags_out),
            output.sums.eq(lanes.sums), lanes.shift.eq(output.shift),
            output.drain.eq(banks.flags_ahead.valid & banks.flags_ahead.last),
            *(block.log2_groups.eq(groups) for block in (stream, tiles, output)),
        ]
        # The host reads any bank through lane 0: one group.
        m.d.sync += banks.log2_groups.eq(Mux(self.busy, groups, 0))
        # The output stage and the way back.
        m.d.comb += [
            output.load.eq(sequencer.load), output.normalise.eq(sequencer.normalise),
            output.last_batch.eq(words[Word.LAST_BATCH]),
            output.last_tile.eq(words[Word.LAST_TILE]),
            output.last_phase.eq(words[Word.LAST_PHASE]),
            output.last_position.eq(words[Word.LAST_POSITION]),
            output.row_base.eq(words[Word.ROW_BASE]),
            output.write_base.eq(words[Word.WRITE_BASE]),
            output.write_step.eq(words[Word.WRITE_STEP]),
            output.residual_from.eq(words[Word.RESIDUAL_READ]),
            output.residual_to.eq(words[Word.RESIDUAL_WRITE]),
            output.relu.eq(flag(Flag.RELU)), output.direct.eq(flag(Flag.DIRECT)),
            output.wide.eq(flag(Flag.WIDE)), output.residual_read.eq(flag(Flag.RESIDUAL_READ)),
            output.residual_write.eq(flag(Flag.RESIDUAL_WRITE)),
            output.input_lsb.eq(sequencer.input_lsb),
            output.residual_lsb.eq(sequencer.residual_lsb),
            output.shift_base.eq(sequencer.shift_base),
            sequencer.walk_done.eq(output.done), sequencer.overrun.eq(output.overrun),
            sequencer.top.eq(output.top),
            sequencer.clipped.eq(output.clipped),
            writer.valid.eq(output.out_valid), writer.place.eq(output.out_place),
            writer.element.eq(output.out_element), writer.plane.eq(words[Word.PLANE_ROWS]),
            writer.m.eq(output.out), writer.real.eq(output.out_real),
            writer.log2_groups.eq(words[Word.GROUPS][4:7]),
            writer.carry.eq(words[Word.WRITE_CARRY]),
            writer.deinterleave.eq(flag(Flag.DEINTERLEAVE)),
            writer.clear_valid.eq(sequencer.clear_valid), writer.clear_row.eq(sequencer.clear_row),
            banks.write_enable.eq(writer.enable), banks.write_row.eq(writer.row),
            banks.write_data.eq(writer.data),
        ]
        for name in ("start", "start_first", "start_last"):
            m.d.comb += getattr(sequencer, name).eq(getattr(self, name))
        for name in ("busy", "done", "error", "error_descriptor", "saturated", "layer"):
            m.d.comb += getattr(self, name).eq(getattr(sequencer, name))
        self._host(m, sequencer, weights, stream, banks, output, writer)
        return m

    def _host(self, m: Module, sequencer: Sequencer, weights: WeightMemory, stream: Decoder,
              banks: Banks, output: OutputStage, writer: BankWriter) -> None:
        """The host's side of every memory. A read's answer is picked after the longest path."""
        array = self.array
        space, address, wdata = self.mem_space, self.mem_address, self.mem_wdata
        write, waiting = Signal(), Signal(self.read_latency - 1)
        m.d.comb += write.eq(self.mem_write & ~self.busy)
        m.d.sync += [waiting.eq(Cat(self.mem_read, waiting)),
                     self.mem_rvalid.eq(waiting[-1])]
        slot_bits, beat_bits = array.groups_max.bit_length() - 1, array.beat_bits
        exponents = array.program_words - EXPONENT_SLOTS
        m.d.comb += [
            sequencer.program_write.eq(write & ((space == Space.PROGRAM)
                                                | (space == Space.EXPONENTS))),
            sequencer.program_address.eq(Mux(space == Space.EXPONENTS, exponents + address[:5],
                                             address)),
            sequencer.program_data.eq(wdata), sequencer.register.eq(address),
            sequencer.event_write.eq(write & (space == Space.REGISTERS)),
            sequencer.event_select.eq(wdata),
            weights.write_enable.eq(write & (space == Space.WEIGHTS)),
            weights.write_row.eq(address[slot_bits:]), weights.write_slot.eq(address[:slot_bits]),
            weights.write_data.eq(wdata),
            output.row_write.eq(write & (space == Space.ROWS)), output.row_address.eq(address),
            output.row_data.eq(wdata),
            stream.write_enable.eq(write & (space == Space.TAPS)),
            stream.write_address.eq(address), stream.write_data.eq(wdata),
            output.place_write.eq(write & (space == Space.WRITES)),
            output.place_address.eq(address), output.place_data.eq(wdata),
            writer.host_valid.eq(write & (space == Space.BANKS)),
            writer.host_address.eq(address), writer.host_data.eq(wdata),
            stream.host_valid.eq(~self.busy),
            stream.host_rotation.eq(address[:array.lane_bits]),
            output.store_address.eq(address[beat_bits:]),
            output.residual_host.eq(address[beat_bits:]),
        ]
        element = address[:beat_bits]
        with m.Switch(space):
            with m.Case(Space.REGISTERS):
                m.d.sync += self.mem_rdata.eq(sequencer.register_data)
            with m.Case(Space.BANKS):
                m.d.sync += self.mem_rdata.eq(banks.x[0])
            with m.Case(Space.STORE):
                m.d.sync += self.mem_rdata.eq(output.store_data[element])
            with m.Case(Space.RESIDUAL):
                m.d.sync += self.mem_rdata.eq(output.residual_data[element])
            with m.Default():
                m.d.sync += self.mem_rdata.eq(sequencer.program_read.as_signed())
