# amaranth: UnusedElaboratable=no
"""The flash reader with a chip at its pins: what it copies, what it finds wrong, and that it does
nothing that the chip's data sheet forbids."""

import random
from dataclasses import replace

import numpy as np
import pytest

from blocks.flash_pins import Attached
from blocks.players import verilog_of
from blocks.verilated_block import Block
from celosia_hw.flash.lines import Lines
from celosia_hw.flash.reader import FlashReader
from celosia_sim.flash import PARTS, Chip, Pins
from celosia_spec.isa.array import ENTRY_WORDS, FLASH, Array
from celosia_spec.isa.image import (
    HEADER_BYTES,
    UNIT_BYTES,
    UNIT_WORDS,
    Section,
    checksum,
    copy_cycles,
    pack,
    places,
)
from celosia_spec.isa.registers import Fault
from flash_image import unpack

ARRAYS = {cycles: Array(main_words=1024, flash=cycles) for cycles in FLASH}
BASE, MHZ = 0x20000, 48.0
PART = replace(PARTS["W25Q128JV-IM"], size=1 << 19)
SCRIPTS = {4: (b"\xab", b"\x50", b"\x31\x02"), 2: (b"\xab",)}
"""By the wires: four need the chip's quad enable bit."""


def section(rng, first, units, *, resident=False, more=False):
    return Section(first=first, resident=resident, more=more,
                   words=rng.integers(0, 1 << 64, units * UNIT_WORDS, np.uint64))


def elements(one):
    return [[word >> 16 * k & 0xFFFF for k in range(ENTRY_WORDS)] for word in one.words.tolist()]


class Bench:
    """The reader, registers at its pins, a chip, and a port that grants at random."""

    def __init__(self, array, block, chip, *, grants=1.0):
        self.array, self.block, self.chip, self.grants = array, block, chip, grants
        self.attached = Attached(block, chip, array.flash, MHZ, prefix="pins__")
        self.rng = random.Random(1)
        self.memory = [[None] * ENTRY_WORDS for _ in range(array.main_words)]
        self.cycle, self.copied = 0, 0
        block.set("rst", 1)
        block.tick()
        block.set("rst", 0)
        self.tick()

    def tick(self):
        block = self.block
        block.settle()
        if block.get("memory__request") and self.rng.random() < self.grants:
            block.set("memory__grant", 1)
            word = self.memory[block.get("memory__address")]
            for k in range(ENTRY_WORDS):
                if block.get("memory__enable") >> k & 1:
                    word[k] = block.get("memory__data")
        self.copied += block.get("copied")
        self.attached.tick()
        block.set("memory__grant", 0)
        self.cycle += 1

    def run(self, limit=300_000):
        """Let cycles pass until the reader is free; return how many."""
        begin = self.cycle
        while self.block.get("copies__copying"):
            self.tick()
            assert self.cycle - begin < limit
        return self.cycle - begin

    def copy(self, unit, *, stop=None, count=1):
        """Copy sections; return the cycles until they are there. stop : after so many cycles."""
        block, begin = self.block, self.cycle
        block.set("copies__copy", 1)
        block.set("copies__unit", unit)
        self.tick()
        block.set("copies__copy", 0)
        block.set("copies__unit", self.rng.getrandbits(16))
        block.settle()
        while block.get("copies__copying") and (not block.get("copied") or count > 1):
            count -= block.get("copied")
            if stop == self.cycle - begin:
                block.set("stop", 1)
                self.tick()
                block.set("stop", 0)
            self.tick()
        cycles = self.cycle - begin
        self.run()
        return cycles

    def ready(self):
        return bool(self.block.get("image__ready")), Fault(self.block.get("image__fault"))

    def holds(self, made):
        """Whether main memory holds these sections, the later ones above the earlier."""
        wanted = [[None] * ENTRY_WORDS for _ in self.memory]
        for one in made:
            at = one.first * UNIT_WORDS
            wanted[at:at + len(one.words)] = elements(one)
        return self.memory == wanted


@pytest.fixture(scope="module", params=ARRAYS.values(), ids=lambda array: str(array.flash))
def block(request):
    array = request.param
    wires, _ = FLASH[array.flash]
    dut = FlashReader(array, clock_hz=MHZ * 1e6, base=BASE, script=SCRIPTS[wires])
    with Block(verilog_of(dut)) as one:
        yield array, one


def bench(block, image, **given):
    return Bench(*block, Chip(PART, bytes(BASE) + image), **given)


SECTIONS = ((3, 2, True), (20, 3, False), (62, 2, True), (21, 1, False))
"""First unit, units, and whether resident."""


def sections(seed=1):
    rng = np.random.default_rng(seed)
    return [section(rng, first, units, resident=resident) for first, units, resident in SECTIONS]


@pytest.mark.parametrize("grants", [1.0, 0.6, 0.1])
def test_start_and_copies(block, grants):
    made = sections(int(grants * 10))
    one = bench(block, pack(block[0], made), grants=grants)
    one.run()
    assert one.ready() == (True, Fault.NONE) and not one.copied
    done = [made[0], made[2]]
    assert one.holds(done)
    at = places(made)
    for k in (1, 3, 3, 0, 2, 1):
        copied = one.copied
        cycles = one.copy(at[k])
        done.append(made[k])
        assert one.copied == copied + 1 and one.holds(done)
        if grants == 1:
            assert cycles == copy_cycles(block[0], made[k].units)
        else:
            waits = int(block[0].flash == 4 or grants < 0.5)
            assert cycles >= copy_cycles(block[0], made[k].units) + waits * (block[0].flash < 16)
    assert one.ready() == (True, Fault.NONE)
    assert not one.chip.errors


def test_several(block):
    """One that says that the next one follows; not at the start, where all follow each other."""
    rng = np.random.default_rng(5)
    made = [section(rng, 0, 1, resident=True, more=True), section(rng, 5, 2, more=True),
            section(rng, 9, 1, resident=True, more=True), section(rng, 20, 3), section(rng, 2, 1)]
    one = bench(block, pack(block[0], made))
    one.run()
    assert one.ready() == (True, Fault.NONE) and one.holds([made[0], made[2]])
    cycles = one.copy(places(made)[1], count=3)
    assert one.copied == 3 and one.holds(made[:4])
    assert cycles == copy_cycles(block[0], 2 + 1 + 1 + 1 + 3)
    one.copy(places(made)[4])
    assert one.copied == 4 and one.holds(made) and not one.chip.errors


def outcome(block, image):
    one = bench(block, image)
    one.run()
    assert not one.chip.errors and not one.copied
    ready, fault = one.ready()
    assert ready == (fault == Fault.NONE)
    return fault


def test_damage_anywhere(block):
    """A bit of each byte of headers, and of some others; fewer where reading takes longer."""
    array, made = block[0], sections()
    image = pack(array, made)
    rng = random.Random(3)
    headers = [(at + 1) * UNIT_BYTES - HEADER_BYTES for at in places(made)]
    matters = {at for header, one in zip(headers, made, strict=True)
               for at in range(header, header + HEADER_BYTES + one.units * UNIT_BYTES + 4)}
    first = range(headers[0], headers[0] + HEADER_BYTES)
    tried = {*first, *range(headers[3], headers[3] + HEADER_BYTES),
             *rng.sample(range(len(image)), 24), *range(len(image) - 4, len(image))}
    for at in rng.sample(sorted(tried), len(tried) * 4 // array.flash):
        damaged = bytearray(image)
        damaged[at] ^= 1 << rng.randrange(8)
        wanted = (Fault.NONE if at not in matters else Fault.ABSENT if at in first[:2]
                  else Fault.FOREIGN if at in first[2:6] else Fault.DAMAGED)
        if at in range(headers[3] + 2, headers[3] + 6):
            wanted = Fault.FOREIGN
        assert outcome(block, bytes(damaged)) == wanted, at


def test_no_program(block):
    array, image = block[0], pack(block[0], sections())
    assert outcome(block, b"") == outcome(block, bytes(300)) == Fault.ABSENT
    other = ARRAYS[next(cycles for cycles in ARRAYS if cycles != array.flash)]
    assert outcome(block, pack(other, sections())) == Fault.FOREIGN
    for length in (len(image) - 1, 5 * UNIT_BYTES, 4 * UNIT_BYTES, UNIT_BYTES, UNIT_BYTES - 9):
        assert outcome(block, image[:length]) == Fault.DAMAGED
    assert outcome(block, image[:UNIT_BYTES - 16]) == Fault.ABSENT


@pytest.mark.parametrize("level", [0, 1])
def test_no_answer(block, level):
    """A chip that is not there: its pins stay at a level."""
    one = bench(block, pack(block[0], sections()))
    one.chip.step = lambda **_: Pins(0b1111 * level, 0b1111)
    one.run()
    assert one.ready() == (False, Fault.ABSENT)


def test_damage_later(block):
    """A section that was right at the start, or none at all."""
    made = sections()
    one = bench(block, pack(block[0], made))
    one.run()
    at = places(made)
    one.chip.memory[BASE + (at[1] + 2) * UNIT_BYTES] ^= 4
    one.copy(at[1])
    assert one.ready() == (False, Fault.DAMAGED) and not one.copied
    one.copy(at[3])
    assert one.copied == 1 and not one.ready()[0]
    one = bench(block, pack(block[0], made))
    one.run()
    one.copy(at[1] + 1)
    assert one.ready() == (False, Fault.DAMAGED) and not one.copied and not one.chip.errors


def test_stop(block):
    """At any time; nothing is written any more, and the next copy is right."""
    made = sections()
    at, rng = places(made), random.Random(1)
    one = bench(block, pack(block[0], made), grants=0.7)
    one.run()
    whole = copy_cycles(block[0], made[1].units)
    for cycles in [2, 3, *(rng.randrange(whole) for _ in range(8)), whole - 1]:
        one.copy(at[1], stop=cycles)
        one.copy(at[3])
        assert one.memory[21 * UNIT_WORDS:22 * UNIT_WORDS] == elements(made[3])
    assert one.copied == 11 and one.ready()[0]
    assert not one.chip.errors


@pytest.mark.parametrize("array", ARRAYS.values(), ids=str)
def test_images(array):
    made = sections()
    image = pack(array, made)
    for one, wanted in zip(unpack(array, image), made, strict=True):
        assert (one.first, one.resident) == (wanted.first, wanted.resident)
        assert np.array_equal(one.words, wanted.words)
    with pytest.raises(ValueError, match="the image is for another array"):
        list(unpack(Array(), image))
    with pytest.raises(ValueError, match="unit 0 of the image ends with no header"):
        list(unpack(array, b""))
    for end in (len(image) - 1, len(image) - 300):
        with pytest.raises(ValueError, match="is damaged"):
            list(unpack(array, image[:end]))
    for given, message in ((np.zeros(17, np.uint64), "section 0 has 17 words"),
                           (np.zeros(0, np.uint64), "section 0 has 0 words"),
                           (np.zeros(1024, np.uint64), "section 0 ends behind main memory")):
        with pytest.raises(ValueError, match=message):
            pack(array, [Section(first=1, words=given)])


def test_checksum_is_a_remainder():
    """Of the data's bits as a polynomial, the first 24 inverted, times x^24."""
    polynomial, data = 1 << 24 | 1 << 19 | 1 << 13 | 1 << 4 | 1, b"123456789"
    rest = int.from_bytes(data, "big") << 24 ^ (1 << 24) - 1 << 8 * len(data)
    for bit in reversed(range(24, 24 + 8 * len(data))):
        if rest >> bit & 1:
            rest ^= polynomial << bit - 24
    assert checksum(data) == rest


@pytest.mark.parametrize(("given", "message"), [
    ({"base": 0x12345}, "base must be a multiple of 64 KiB below 16 MiB, not 0x12345"),
    ({"base": 0}, "base must be a multiple of 64 KiB below 16 MiB, not 0x0"),
    ({"wires": 1}, "wires must be 2 or 4, not 1"),
    ({"cycles": 3}, "cycles must be 1 or 2, not 3"),
    ({"script": (b"123",)}, "script must have commands of one or two bytes"),
    ({"script": ()}, "script must have commands of one or two bytes")])
def test_refusals(given, message):
    with pytest.raises(ValueError) as caught:
        Lines(**{"wires": 4, "base": BASE} | given)
    assert str(caught.value) == message


def test_no_reader_without_flash():
    with pytest.raises(ValueError, match="the array has no flash"):
        FlashReader(Array(), clock_hz=48e6, base=BASE)
    with pytest.raises(ValueError, match="flash must be one of 0, 4, 8, 16, not 5"):
        Array(flash=5)
