"""The machine behind its host port, verilated: requests in, replies out, byte by byte."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.hosted_machine import HostedMachine
from celosia_hw.signatures import HOST_BUS, connect_members
from celosia_sim.virtual.byte_port import BytePort
from celosia_spec.isa import frames
from celosia_spec.isa.array import Array
from celosia_spec.isa.frames import START, Command, Kind, Reply
from celosia_spec.isa.memories import Space, exponent_word, exponents_of, memory_of
from celosia_spec.isa.registers import STATUS, Register
from host_frames import encode_read, encode_status, encode_write

GAP = 150
"""Cycles from a request to the next one; more than any reply takes."""

_BYTE = 10
"""Cycles from a byte to the next one."""


class Ported(wiring.Component):
    """`BytePort` and `HostedMachine`."""

    def __init__(self, array: Array) -> None:
        self.port, self.machine = BytePort(), HostedMachine(array)
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8)),
                          "stop": In(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.port, m.submodules.machine = self.port, self.machine
        connect(m, flipped(self.i), self.port.i)
        connect(m, self.port.o, flipped(self.o))
        connect_members(m, self.port, self.machine, {
            name: member for name, member in HOST_BUS.items() if name != "abort"})
        m.d.comb += self.machine.abort.eq(self.port.abort | self.stop)
        return m


class Host:
    """The host's end of a ported machine."""

    def __init__(self, array: Array) -> None:
        self.block = Block(verilog_of(Ported(array)))
        self.decoder = frames.Decoder()
        self.block.set("o__ready", 1)

    def ask(self, requests: Sequence[bytes], gap: int = GAP) -> list[Reply]:
        """Send requests, ``gap`` cycles apart; return the replies that came."""
        return self._play(requests, gap)

    def interrupt(self, word: int, cycles: int) -> None:
        """Start a stream, and stop it so many cycles behind the request, as an abort does."""
        self._play([start(word)], cycles + GAP, GAP)

    def _play(self, requests: Sequence[bytes], gap: int, stop_at: int | None = None) -> list[Reply]:
        """Likewise, and stop what runs so many cycles before the end."""
        data, valid = (np.concatenate([
            np.pad(np.stack([byte, *[byte & 0] * (_BYTE - 1)], axis=1).ravel(), (0, gap))
            for request in requests for given in [np.frombuffer(request, np.uint8)]
            for byte in [kind(given)]]) for kind in (np.copy, np.ones_like))
        stop = np.zeros(len(data), int)
        if stop_at:
            stop[-stop_at] = 1
        found = self.block.stream({"i__valid": valid, "i__payload": data, "stop": stop},
                                  ["o__valid", "o__payload"])
        replies = self.decoder.feed(found["o__payload"][found["o__valid"] > 0].astype(np.uint8))
        assert self.decoder.skipped == 0
        return replies

    def write(self, space: Space, values: np.ndarray, first: int = 0) -> None:
        """Write values from address ``first`` on, a multiple of what a frame has."""
        size = memory_of(space).element_bytes
        count = 8 // size
        if space is Space.EXPONENTS:
            values = exponent_word(values)
        values = np.pad(values, (0, -len(values) % count)).reshape(-1, count)
        replies = self.ask([encode_write(space, first + count * k, row.tolist(),
                                         element_bytes=size) for k, row in enumerate(values)])
        assert [reply.kind for reply in replies] == [Kind.IDLE] * len(values)

    def read(self, space: Space, count: int, first: int = 0) -> np.ndarray:
        """Read so many values, from address ``first`` on, a multiple of what a frame has."""
        memory = memory_of(space)
        size = memory.element_bytes
        replies = self.ask([encode_read(space, at, element_bytes=size)
                            for at in range(first, first + count, 8 // size)])
        found = np.array([value for reply in replies for value in reply.elements(size)])
        return exponents_of(found) if space is Space.EXPONENTS else found

    def start(self, word: int) -> None:
        """Start a stream."""
        reply, = self.ask([start(word)])
        assert reply.kind in (Kind.RUNNING, Kind.IDLE)

    def finish(self, most: int) -> Reply:
        """Wait for the end of a run."""
        for _ in range(0, most, 1000):
            reply, = self.ask([encode_status()], 1000)
            if reply.kind is Kind.IDLE:
                return reply
        raise AssertionError(f"no end after {most} cycles")

    def registers(self) -> tuple[int, dict[str, int], int]:
        """Return hash, status and cycles."""
        found = self.read(Space.REGISTERS, 4)
        return (int(found[Register.ARRAY_HASH]), STATUS.unpack(int(found[Register.STATUS])),
                int(found[Register.EVENTS]))


def start(word: int, tag: int = 0) -> bytes:
    """Return the request that runs the stream whose list begins in a word of main memory."""
    return frames.request(Command.START, tag, START.pack(list=word))
