"""The lanes as one block: banks and what walks over, multiplies and writes them."""

from typing import Any

from amaranth.hdl import Module, Mux
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from celosia_hw.lanes.bank_writer import BankWriter
from celosia_hw.lanes.banks import Banks
from celosia_hw.lanes.mac_array import MacArray
from celosia_hw.lanes.tile_walk import TileWalk
from celosia_hw.layouts import layout
from celosia_hw.signatures import HostMemory, Operands, Peek, Prepare, Results, Sums
from celosia_spec.isa import DESCRIPTOR, ArrayConfig


class Lanes(wiring.Component):
    """Sums of a layer from its decoded steps and the map in the banks, and results into the banks.

    Members
    -------
    operands : In(Operands), sums : Out(Sums), results : In(Results), prepare : In(Prepare)
        See :class:`Banks`, :class:`MacArray`, :class:`BankWriter`, :class:`TileWalk`.
    layer : In(descriptor group "lanes")
        Stable from ``prepare.load`` on.
    host_banks : In(HostMemory), peek : Out(Peek)
        Address = bank row * lanes + bank. A bank is read through lane 0, as the only group's, with
        the rotation that ``peek`` asks of the decoder.

    Timing
    ------
    The host's value comes ``host_latency`` cycles after its address.
    """

    def __init__(self, array: ArrayConfig, mac: str = "generic") -> None:
        self.array, self.mac = array, mac
        self.banks = Banks(array)
        self.host_latency = self.banks.latency + 1
        super().__init__({
            "operands": In(Operands(array)), "sums": Out(Sums(array)),
            "results": In(Results(array)), "prepare": In(Prepare(array)),
            "layer": In(layout(DESCRIPTOR.groups["lanes"])),
            "host_banks": In(HostMemory(readable=True)), "peek": Out(Peek(array)),
        })

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        array, host, ahead = self.array, self.host_banks, self.operands.ahead
        m.submodules.tiles = tiles = TileWalk(array)
        m.submodules.banks = banks = self.banks
        m.submodules.mac = mac = MacArray(array, self.mac)
        m.submodules.writer = writer = BankWriter(array)
        for outer, inner in ((self.operands, banks.operands), (self.results, writer.results),
                             (self.prepare, writer.prepare)):
            connect(m, flipped(outer), inner)
        connect(m, banks.factors, mac.factors)
        connect(m, writer.writes, banks.writes)
        m.d.comb += [
            tiles.layer.eq(self.layer), writer.layer.eq(self.layer),
            tiles.load.eq(self.prepare.load), tiles.last.eq(ahead.tile_last),
            tiles.advance.eq(ahead.valid & ahead.tile_first),
            tiles.host_valid.eq(host.idle), tiles.host_row.eq(host.address[array.lane_bits:]),
            self.peek.valid.eq(host.idle), self.peek.rotation.eq(host.address[:array.lane_bits]),
            banks.tile.eq(tiles.tile), host.value.eq(banks.factors.x[0]),
            writer.host.write.eq(host.write), writer.host.address.eq(host.address),
            writer.host.data.eq(host.data),
            mac.shift.eq(self.sums.shift), self.sums.values.eq(mac.sums),
            self.sums.drain.eq(banks.ahead.valid & banks.ahead.last),
        ]
        m.d.sync += banks.log2_groups.eq(Mux(host.idle, 0, self.layer.log2_groups[:3]))
        return m
