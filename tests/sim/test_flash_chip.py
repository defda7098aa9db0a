"""The model of a flash chip against sequences of the data sheets, and all that it must find wrong
with a controller."""

import ctypes
import random
import subprocess
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celosia_sim.flash import PARTS, Beside, Chip, Pins
from celosia_sim.flash.beside import PINS
from celosia_spec.errors import SimulationError
from celosia_spec.isa.array import FLASH

IM, IQ, ISSI = PARTS["W25Q128JV-IM"], PARTS["W25Q128JV-IQ"], PARTS["IS25LP128F"]
BYTES = np.random.default_rng(1).bytes(1 << 17)


class Controller:
    """Drives a chip's pins, at ``mhz``, as a controller in mode 0 does."""

    def __init__(self, chip, mhz=40.0):
        self.chip, self.half = chip, 500 / mhz

    def pause(self, ns):
        self.chip.step(selected=False, clock=False, ns=ns)

    def clock(self, io, driven):
        """Return what the chip shows at a rising edge."""
        pins = self.chip.step(selected=True, clock=False, io=io, driven=driven, ns=self.half)
        self.chip.step(selected=True, clock=True, io=io, driven=driven, ns=self.half)
        return pins

    def send(self, data, lanes=1):
        """Send bytes; pins 2 and 3 are high where they carry nothing."""
        for byte in data:
            for low in range(8 - lanes, -1, -lanes):
                bits = byte >> low & (1 << lanes) - 1
                self.clock(bits | (0b1100 if lanes == 1 else 0), 0b1101 if lanes == 1 else 0b1111)

    def take(self, count, lanes=1):
        found = []
        for _ in range(count):
            byte = 0
            for _ in range(8 // lanes):
                pins = self.clock(0, 0)
                assert pins.driven == (0b10 if lanes == 1 else (1 << lanes) - 1)
                byte = byte << lanes | (pins.levels >> 1 if lanes == 1 else pins.levels)
            found.append(byte)
        return bytes(found)

    def end(self, gap=100):
        self.chip.step(selected=True, clock=False, ns=self.half)
        assert self.chip.step(selected=False, clock=False, ns=self.half) == Pins(0, 0)
        self.pause(gap)

    def command(self, *data, answer=0, lanes=1, dummies=0):
        self.send(data)
        for _ in range(dummies):
            self.clock(0, 0)
        found = self.take(answer, lanes)
        self.end()
        return found

    def wake(self):
        self.command(0xAB)
        self.pause(self.chip.part.wake_ns)


def awake(part, mhz=40.0, contents=BYTES):
    chip = Chip(part, contents)
    controller = Controller(chip, mhz)
    controller.wake()
    return chip, controller


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_power_down_and_identity(part):
    chip = Chip(part, BYTES)
    controller = Controller(chip)
    assert controller.clock(0, 0).driven == 0
    controller.end()
    controller.send(b"\x9f")
    assert controller.clock(0, 0).driven == 0           # asleep: it shows nothing
    controller.end()
    assert len(chip.errors) == 1 and "command 9Fh in power-down" in chip.errors.pop()
    controller.wake()
    assert controller.command(0x9F, answer=3) == part.jedec
    controller.command(0xB9)
    assert chip.asleep and not chip.errors
    controller.command(0x05)
    assert len(chip.errors) == 1


@pytest.mark.parametrize("address", [0, 1, 255, 65_535, 0x1FFFE])
@pytest.mark.parametrize(("opcode", "lanes", "dummies"), [
    (0x03, 1, 0), (0x0B, 1, 8), (0x3B, 2, 8), (0x6B, 4, 8)])
def test_reads(opcode, lanes, dummies, address):
    chip, controller = awake(IQ)
    wanted = (BYTES + b"\xff" * 16)[address:address + 9]
    assert controller.command(opcode, *address.to_bytes(3, "big"), answer=9, lanes=lanes,
                              dummies=dummies) == wanted
    assert not chip.errors


def test_reads_go_on_at_the_begin_behind_the_end():
    chip, controller = awake(IQ)
    assert controller.command(0x03, 0xFF, 0xFF, 0xFE, answer=4) == b"\xff\xff" + BYTES[:2]
    assert not chip.errors


@pytest.mark.parametrize("part", [IQ, PARTS["N25Q32"]], ids=["W25Q", "N25Q"])
def test_quad_address(part):
    """EBh: address and mode bits on four pins; mode A0h spares the next read its command."""
    chip, controller = awake(part)
    for mode, command in ((0xA0, True), (0xA5, False), (0xFF, False)):
        if command:
            controller.send(b"\xeb")
        controller.send([0, 1, 2, mode], lanes=4)
        for _ in range(part.dummies):
            controller.clock(0, 0)
        assert controller.take(5, 4) == BYTES[0x102:0x107]
        controller.end()
    assert controller.command(0x9F, answer=3) == part.jedec
    assert not chip.errors


@pytest.mark.parametrize(("part", "commands"), [
    (IM, [(0x06,), (0x31, 0x02)]), (IM, [(0x50,), (0x31, 0x02)]), (IM, [(0x06,), (0x01, 0, 2)]),
    (ISSI, [(0x06,), (0x01, 0x40)]), (PARTS["GD25Q16C"], [(0x06,), (0x01, 0, 2)])])
def test_quad_enable(part, commands):
    chip, controller = awake(part)
    read = (0x6B, 0, 0, 0)
    controller.command(*read, dummies=8)
    assert len(chip.errors) == 1 and "quad is not enabled" in chip.errors.pop()
    for command in commands:
        controller.command(*command)
    if 0x50 not in commands[0]:
        assert controller.command(0x05, answer=1)[0] & 1
        controller.command(*read, dummies=8)
        assert len(chip.errors) == 1 and "busy" in chip.errors.pop()
        controller.pause(part.status_ns)
    status = controller.command(0x05, answer=2)
    assert not status[0] & 3 and status[0] == status[1]
    if part.second:
        assert controller.command(0x35, answer=1) == b"\x02"
    assert controller.command(*read, answer=6, lanes=4, dummies=8) == BYTES[:6]
    assert not chip.errors


def test_status_writes_that_are_ignored():
    chip, controller = awake(ISSI)
    for data in ((0x40, 0), ()):
        controller.command(0x06)
        controller.command(0x01, *data)
        assert chip.status == [2, 0]
    assert len(chip.errors) == 1
    chip, controller = awake(IM)
    controller.command(0x31, 0x02)
    assert chip.status == [0, 0] and "without write enable" in chip.errors[0]


def test_pages_wrap_and_bits_only_go_down():
    chip, controller = awake(IQ, contents=b"\xff" * 512 + b"\x0f" * 4)
    data = bytes(range(1, 7))
    controller.command(0x06)
    assert controller.command(0x05, answer=1) == b"\x02"
    controller.command(0x02, 0, 0, 0xFD, *data)
    controller.command(0x02, 0, 1, 0, 7)
    assert len(chip.errors) == 1 and "02h while the chip is busy" in chip.errors.pop()
    controller.pause(IQ.program_ns)
    assert controller.command(0x05, answer=1) == b"\x00"
    assert bytes(chip.memory[0xFD:0x100]) == data[:3] and bytes(chip.memory[:3]) == data[3:]
    assert chip.memory[3] == chip.memory[0xFC] == chip.memory[0x100] == 0xFF
    controller.command(0x06)
    controller.command(0x02, 0, 2, 0, *(0x33 for _ in range(260)))
    controller.pause(IQ.program_ns)
    assert chip.memory[0x200:0x204] == b"\x03" * 4 and chip.memory[0x204:0x300] == b"\x33" * 252
    assert not chip.errors


def test_erasing():
    chip, controller = awake(replace(IQ, sector_ns=1e3, block_ns=2e3), contents=bytes(1 << 18))
    for opcode, address, first, size, ns in ((0x20, 0x1234, 0x1000, 0x1000, 1e3),
                                             (0xD8, 0x2FFFF, 0x20000, 0x10000, 2e3)):
        controller.command(opcode, *address.to_bytes(3, "big"))
        assert "without write enable" in chip.errors.pop()
        assert not any(chip.memory[first:first + size])
        controller.command(0x06)
        controller.command(opcode, *address.to_bytes(3, "big"))
        controller.pause(ns)
        assert bytes(chip.memory[first:first + size]) == b"\xff" * size
        assert chip.memory[first - 1] == chip.memory[first + size] == 0
    chip.memory[:] = bytes(len(chip.memory))
    chip.part = replace(chip.part, sectors=False)
    controller.command(0x06)
    controller.command(0x20, 0, 0, 0)
    assert not any(chip.memory) and "no sectors" in chip.errors.pop() and not chip.errors


def test_a_command_counts_only_in_whole_bytes():
    chip, controller = awake(IQ)
    controller.send(b"\x06")
    controller.clock(0b1100, 0b1101)
    controller.end()
    assert chip.status[0] == 0
    controller.send(b"\x06")
    controller.end()
    assert chip.status[0] == 2 and not chip.errors


def test_clocks_that_are_too_fast():
    for opcode, mhz, right in ((0x03, 50, True), (0x03, 51, False), (0x0B, 104, True),
                               (0x0B, 105, False)):
        chip, controller = awake(IQ, mhz=mhz if right or opcode == 0x03 else 50)
        controller.half = 500 / mhz
        controller.command(opcode, 0, 0, 0, answer=2, dummies=8 * (opcode == 0x0B))
        assert chip.errors == [] if right else "MHz, the command allows" in chip.errors[0]


def test_times_between_commands():
    chip = Chip(IQ, BYTES)
    controller = Controller(chip)
    controller.command(0xAB)
    controller.pause(2_800)
    controller.command(0x9F, answer=0)
    assert len(chip.errors) == 1 and "before the chip is awake" in chip.errors.pop()
    controller.pause(200)
    controller.send(b"\x06")
    controller.end(gap=30)
    controller.command(0x04)
    assert len(chip.errors) == 1 and "too short a time" in chip.errors.pop()
    chip.part = replace(IQ, read_gap_ns=40)
    for gap, right in ((40 - controller.half, True), (39 - controller.half, False)):
        controller.send([0x0B, 0, 0, 0, 0])
        controller.take(1)
        controller.end(gap=gap)
        controller.command(0x04)
        assert (not chip.errors) == right
        chip.errors.clear()


def test_pins():
    """Both sides on one pin; pin 3 low, which holds a chip whose quad bit is 0; and a command that
    no part has."""
    chip, controller = awake(IM)
    controller.send([0x0B, 0, 0, 0, 0])
    controller.clock(0b1110, 0b1111)
    controller.clock(0b1110, 0b1111)
    assert "driven by both sides" in chip.errors.pop()
    controller.end()
    chip.errors.clear()
    controller.clock(0, 0b1001)
    assert "held" in chip.errors[0]
    controller.end()
    chip.errors.clear()
    controller.command(0x77)
    assert "unknown command 77h" in chip.errors.pop()


@pytest.fixture(scope="module")
def pins(tmp_path_factory):
    """The pins of verilated machines around a core that does what it is told."""
    path = tmp_path_factory.mktemp("pins") / "pins.so"
    driver = Path(__file__).parents[1] / "blocks" / "pins_driver.cpp"
    subprocess.run(["g++", "-O1", "-std=c++17", "-shared", "-fPIC", f"-I{PINS.parent}", "-o", path,
                    driver], check=True)
    return ctypes.CDLL(str(path)).run


def transactions(rng, element):
    """Select, clock, data out, drive of a reader's pins, cycle by cycle: commands, reads that end
    anywhere or pause, pauses between them that may be too short."""
    found = []

    def bits(count, sent=None):
        for at in range(count):
            out = sent >> count - 1 - at & 1 if sent is not None else 0
            held = [(1, 0, out, sent is not None)] * rng.choice([1, 1, 1, 1, 3])
            found.extend((held if FLASH[element][1] == 2 or len(held) > 1 else [])
                         + [(1, 1, out, sent is not None)])

    for command in [0xAB, 0x50, 0x3102, *rng.choices([0x0B, 0x3B, 0x6B, 0x9F, 0x03, 0x05], k=12)]:
        found += [(0, 0, 0, 0)] * rng.choice([1, 20, 200, 1000]) + [(1, 0, 0, 1)]
        bits(16 if command > 0xFF else 8, command)
        if command in (0x03, 0x0B, 0x3B, 0x6B):
            bits(24, rng.choice([0, 77, (1 << 24) - 5]))
            bits(8 * (command != 0x03))
        if command not in (0xAB, 0x50, 0x3102):
            bits(rng.randrange(300))
        found.append((1, 0, 0, 0))
    return np.array(found, np.uint8)


@pytest.mark.parametrize("element", FLASH)
@pytest.mark.parametrize("part", [IM, IQ, ISSI], ids=lambda part: part.name)
def test_the_pins_of_verilated_machines_show_the_same(pins, part, element):
    """Bits and complaints are those of the chip that is called at every edge."""
    part = replace(part, size=1 << 17)
    wires, cycles = FLASH[element]
    for seed in range(4):
        rng = random.Random(seed)
        told, mhz = transactions(rng, element), rng.choice([24.0, 48.0, 120.0])
        alone, called = Chip(part, BYTES), Chip(part, BYTES)
        beside = Beside(called, element, mhz * 1e6)
        given = np.zeros(len(told), np.uint8)
        pins(beside.pointer, ctypes.c_int64(len(told)), told.ctypes.data_as(ctypes.c_void_p),
             given.ctypes.data_as(ctypes.c_void_p))
        wanted, out = [], [0] * 4
        for line in told.tolist():
            for clock in (out[1] if cycles == 2 else 0), out[1]:
                seen = alone.step(selected=bool(out[0]), clock=bool(clock), io=0b1100 | out[2],
                                  driven=0b1101 * out[3], ns=500 / mhz)
            levels = seen.levels & seen.driven | ~seen.driven
            wanted.append(levels & (1 << wires) - 1)
            out = line
        assert given.tolist() == wanted
        # Times are sums of other parts.
        assert ([error.split(": ")[1] for error in called.errors]
                == [error.split(": ")[1] for error in alone.errors])
        complains = pytest.raises(SimulationError, match="the flash at .* ns: ")
        with complains if alone.errors else nullcontext():
            beside.check()


def test_a_chip_beside_no_machine_any_more_is_freed():
    chip = Chip(IM, BYTES)
    gone, beside = weakref.ref(chip), Beside(chip, next(iter(FLASH)), 24e6)
    del chip
    assert gone() is not None
    del beside
    assert gone() is None
