"""What two rooms share that do not know each other, and the host bus."""

from collections.abc import Mapping
from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Member, Out

from celosia_spec.isa.array import CONTROL_BITS, Array
from celosia_spec.isa.frames import ADDRESS, START
from celosia_spec.isa.registers import STATUS

HOST_BUS: dict[str, Member] = {
    "mem_space": Out(ADDRESS["space"].bits), "mem_address": Out(ADDRESS["address"].bits),
    "mem_write": Out(1), "mem_wdata": Out(CONTROL_BITS), "mem_keep": Out(1), "mem_kept": Out(1),
    "mem_read": Out(1), "mem_rdata": In(CONTROL_BITS), "mem_rvalid": In(1), "start": Out(1),
    "start_list": Out(START["list"].bits), "abort": Out(1), "busy": In(1),
    "error": In(STATUS["error"].bits), "saturated": In(1)}
"""The machine's host bus, seen from the host: members of their own, not of a nested signature, so
that they have these names around the machine too. See `BitPort` and `HostedMachine`."""


class Codes(wiring.Signature):
    """Writes into the banks, seen from who fills them: bank b gets ``code[b % fill]`` in
    ``row[b % fill]`` where ``enable[b]``."""

    def __init__(self, array: Array) -> None:
        super().__init__({
            "row": Out(data.ArrayLayout((array.bank_rows - 1).bit_length(), array.fill)),
            "code": Out(data.ArrayLayout(array.activation_bits, array.fill)),
            "enable": Out(array.lanes)})


class Shadow(wiring.Signature):
    """Sums of a pass, seen from where they wait.

    sums    : of the next lanes.   shift : strobe: those behind them in the following cycle.
    written : lanes of the pass that are written, the same ones in each group.
    """

    def __init__(self, array: Array) -> None:
        super().__init__({
            "sums": Out(data.ArrayLayout(signed(array.acc_bits), array.drain)),
            "shift": In(1), "written": Out(array.lanes)})


def flipped_members(members: Mapping[str, Member]) -> dict[str, Member]:
    """Return members as the other side sees them."""
    return {name: member.flip() for name, member in members.items()}


def connect_members(m: Module, giver: Any, taker: Any, members: Mapping[str, Member],
                    prefix: str = "") -> None:
    """Connect members of two components; an ``Out`` is ``giver``'s to drive.

    prefix : of their names at ``taker``.
    """
    for name, member in members.items():
        given, taken = getattr(giver, name), getattr(taker, prefix + name)
        m.d.comb += taken.eq(given) if member.flow is Out else given.eq(taken)
