"""A flash chip, pin by pin and edge by edge."""

from collections.abc import Callable, Generator
from typing import NamedTuple, TypeAlias

from celosia_sim.flash.parts import Part
from celosia_spec.errors import SimulationError

PAGE, SECTOR, BLOCK = 1 << 8, 1 << 12, 1 << 16
"""Bytes that a program command writes at most, and that the erase commands erase."""

_BUSY, _ENABLED = 1, 2          # bits of status register 0
_ALL, _HOLD = 0b1111, 0b1000
_SLACK = 1e-3                   # ns by which times may differ because they are floats

Wires: TypeAlias = Generator[None, int, int]
"""Takes the levels of the four data pins at every rising edge of the clock; returns bits."""


def flash_error(first: str) -> SimulationError:
    """Return what says that a machine did to a chip what nobody must; first : of its errors."""
    return SimulationError(f"the flash at {first}; its reader is wrong, report it")


class Pins(NamedTuple):
    """What the chip drives: levels of data pins 0 to 3, and which of them."""

    levels: int
    driven: int


class Chip:
    """A part with contents.

    part     : what it is.   contents : its first bytes; all others are FF.
    asleep   : it is in power-down, as the iCE40's configuration leaves it.

    ``errors`` has a line for everything that a controller must not do: a clock that is too fast,
    chip select high for too short a time, a command in power-down, before the chip is awake or
    while it is busy, a quad command without its bit, a write without write enable, a pin that both
    sides drive, an unknown command. The chip does what the part does then: it ignores the command.
    ``memory`` are all bytes, ``status`` the two status registers, ``now`` the time, ns.
    ``reading`` is, while the chip gives bytes of its memory, the first one's address and how many
    bits a clock brings, from the falling edge on that comes next.
    """

    def __init__(self, part: Part, contents: bytes = b"", *, asleep: bool = True) -> None:
        self.part, self.asleep = part, asleep
        self.memory = bytearray(contents) + bytearray(b"\xff") * (part.size - len(contents))
        self.status = [0, 0]
        if part.quad_bit and part.quad:
            self.status[part.quad_bit[0]] |= 1 << part.quad_bit[1]
        self.errors: list[str] = []
        self.now = 0.0
        self._selected = self._clock = False
        self._awake_at = self._idle_at = self._free_at = 0.0
        self._outputs = self._next = Pins(0, 0)
        self._wires: Wires | None = None
        self._clocks, self._edge, self._shortest = 0, -1.0, 0.0
        self._limit, self._gap = part.mhz, part.gap_ns
        self._end: Callable[[], None] | None = None
        self._continued = self._volatile = False
        self.reading: tuple[int, int] | None = None

    def step(self, *, selected: bool, clock: bool, io: int = _ALL, driven: int = 0,
             ns: float) -> Pins:
        """Let ``ns`` pass, then give the pins these levels; return what the chip drives from now on
        (in truth a few ns later).

        selected : chip select is low.   io, driven : levels of the data pins, and which of them the
        controller drives. A pin that nobody drives is 1.
        """
        self.now += ns
        if self._busy and self.now >= self._idle_at:
            self.status[0] &= ~(_BUSY | _ENABLED)
        if selected and not self._selected:
            self._select()
        elif self._selected and not selected:
            self._deselect()
        elif selected and clock != self._clock:
            self._edge_of(clock, io & driven | _ALL & ~driven)
        if clash := self._outputs.driven & driven:
            self._error(f"pins {clash:#06b} are driven by both sides")
        self._selected, self._clock = selected, clock
        return self._outputs

    def read_on(self, clocks: int, ns: float) -> None:
        """Let so many clocks pass while the chip is ``reading``, their rising edges ``ns`` apart at
        least, without looking at what it gives. The next `step`, which knows of their time, must
        end the read."""
        self._clocks += clocks
        self._shortest, self._gap = min(self._shortest, ns), self.part.read_gap_ns

    @property
    def _busy(self) -> bool:
        return bool(self.status[0] & _BUSY)

    @property
    def quad(self) -> bool:
        """Whether quad commands work."""
        bit = self.part.quad_bit
        return bit is None or bool(self.status[bit[0]] >> bit[1] & 1)

    def _error(self, text: str) -> None:
        self.errors.append(f"{self.now:.0f} ns: {text}")

    def _select(self) -> None:
        if self.now < self._free_at - _SLACK:
            self._error("chip select was high for too short a time")
        self._clocks, self._edge, self._shortest = 0, -1.0, float("inf")
        self._limit, self._gap, self._end = self.part.mhz, self.part.gap_ns, None
        self._wires = self._transaction()
        next(self._wires)

    def _deselect(self) -> None:
        if self._shortest < 1e3 / self._limit - _SLACK:
            self._error(f"clock of {1e3 / self._shortest:.1f} MHz, the command allows "
                        f"{self._limit:g}")
        self._outputs = self._next = Pins(0, 0)
        self._free_at = self.now + self._gap
        end, self._end, self._wires = self._end, None, None
        self.reading = None
        if end is not None and self._clocks % 8 == 0:
            end()

    def _edge_of(self, clock: bool, levels: int) -> None:
        if not self.quad and not levels & _HOLD:
            self._error("held by pin 3")
            return
        if not clock:
            self._outputs = self._next
            return
        if self._edge >= 0:
            self._shortest = min(self._shortest, self.now - self._edge)
        self._edge = self.now
        self._clocks += 1
        if self._wires is not None:
            try:
                self._wires.send(levels)
            except StopIteration:
                self._wires = None

    def _take(self, bits: int, lanes: int = 1) -> Wires:
        """Take bits, the highest first, so many a clock."""
        value = 0
        for _ in range(bits // lanes):
            value = value << lanes | (yield) & (1 << lanes) - 1
        return value

    def _give(self, byte: int, lanes: int = 1) -> Wires:
        """Give a byte, so many bits a clock: one goes out on pin 1."""
        for low in range(8 - lanes, -1, -lanes):
            bits = byte >> low & (1 << lanes) - 1
            self._next = Pins(bits << 1, 0b10) if lanes == 1 else Pins(bits, (1 << lanes) - 1)
            yield
        return 0

    def _transaction(self) -> Wires:
        """All that happens while chip select is low."""
        early = self.now < self._awake_at - _SLACK
        opcode = 0xEB if self._continued else (yield from self._take(8))
        if self.asleep and opcode != 0xAB:
            self._error(f"command {opcode:02X}h in power-down")
        elif early:
            self._error(f"command {opcode:02X}h before the chip is awake")
        elif self._busy and opcode not in (0x05, 0x35):
            self._error(f"command {opcode:02X}h while the chip is busy")
        elif opcode in _READS:
            yield from self._read(opcode)
        elif opcode in _WRITES:
            yield from self._write(opcode)
        else:
            yield from self._other(opcode)
        return 0

    def _read(self, opcode: int) -> Wires:
        address_lanes, data_lanes, dummies = _READS[opcode]
        if opcode == 0x03:
            self._limit = self.part.read_mhz
        if 4 in (address_lanes, data_lanes) and not self.quad:
            self._error(f"command {opcode:02X}h, and quad is not enabled")
            return 0
        at = yield from self._take(24, address_lanes)
        if opcode == 0xEB:
            mode = yield from self._take(8, 4)
            self._continued = mode >> 4 & 0b11 == 0b10
            dummies = self.part.dummies
        for _ in range(dummies):
            yield
        self.reading = at, data_lanes
        while True:
            yield from self._give(self.memory[at % self.part.size], data_lanes)
            self._gap = self.part.read_gap_ns
            at += 1

    def _write(self, opcode: int) -> Wires:
        """Program a page, erase, or write status registers: when chip select goes high."""
        if not (self.status[0] & _ENABLED or (self._volatile and opcode in (0x01, 0x31))):
            self._error(f"command {opcode:02X}h without write enable")
            return 0
        if opcode in (0x01, 0x31):
            data: list[int] = []
            while True:
                data.append((yield from self._take(8)))
                self._end = lambda: self._set_status(opcode, data)
        at = yield from self._take(24)
        at %= self.part.size
        if opcode == 0x02:
            page: list[int] = []
            while True:
                page.append((yield from self._take(8)))
                self._end = lambda: self._program(at, page)
        size, ns = (SECTOR, self.part.sector_ns) if opcode == 0x20 else (BLOCK, self.part.block_ns)
        if opcode == 0x20 and not self.part.sectors:
            self._error("command 20h, and the part has no sectors")
            return 0
        self._end = lambda: self._erase(at & -size, size, ns)
        return 0

    def _other(self, opcode: int) -> Wires:
        if opcode == 0x9F:
            for byte in self.part.jedec:
                yield from self._give(byte)
        elif opcode == 0x05 or (opcode == 0x35 and self.part.second):
            while True:
                yield from self._give(self.status[opcode == 0x35])
        elif opcode in (0x04, 0x06):
            self._end = lambda: self._enable(opcode == 0x06)
        elif opcode == 0x50 and self.part.volatile:
            self._end = lambda: setattr(self, "_volatile", True)
        elif opcode == 0xB9:
            self._end = self._sleep
        elif opcode == 0xAB:
            self._end = self._wake
        else:
            self._error(f"unknown command {opcode:02X}h")
        return 0

    def _enable(self, enabled: bool) -> None:
        self.status[0] = self.status[0] & ~_ENABLED | enabled * _ENABLED

    def _sleep(self) -> None:
        self.asleep, self._awake_at = True, self.now + self.part.sleep_ns

    def _wake(self) -> None:
        if self.asleep:
            self.asleep, self._awake_at = False, self.now + self.part.wake_ns

    def _work(self, ns: float) -> None:
        self.status[0] |= _BUSY
        self._idle_at = self.now + ns

    def _set_status(self, opcode: int, data: list[int]) -> None:
        first = int(opcode == 0x31)
        if first and (len(data) != 1 or not self.part.second):
            self._error("command 31h with more than a byte, or of a part that does not know it")
        elif not first and len(data) not in self.part.status_bytes:
            self._error(f"status write of {len(data)} bytes")
        else:
            kept = _BUSY | _ENABLED
            for register, byte in enumerate(data, first):
                mask = kept if register == 0 else 0
                self.status[register] = byte & ~mask | self.status[register] & mask
            if not self._volatile:
                self._work(self.part.status_ns)
        self._volatile = False

    def _program(self, at: int, data: list[int]) -> None:
        """Clear bits of one page; bytes beyond its end go to its begin, and the last 256 count."""
        page, begin = at & -PAGE, max(0, len(data) - PAGE)
        for k, byte in enumerate(data[begin:], begin):
            self.memory[page | at + k & PAGE - 1] &= byte
        self._work(self.part.program_ns)

    def _erase(self, first: int, size: int, ns: float) -> None:
        self.memory[first:first + size] = b"\xff" * size
        self._work(ns)


_READS = {0x03: (1, 1, 0), 0x0B: (1, 1, 8), 0x3B: (1, 2, 8), 0x6B: (1, 4, 8), 0xEB: (4, 4, 4)}
"""Lanes of the address, of the data, and dummy clocks."""

_WRITES = (0x01, 0x02, 0x20, 0x31, 0xD8)
