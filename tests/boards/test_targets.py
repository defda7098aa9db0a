# amaranth: UnusedElaboratable=no
"""The table of targets agrees with itself and with the board descriptions."""

import dataclasses
import math

import pytest

from celosia_boards.build import platform_of
from celosia_boards.targets import UnknownTarget, array_for, target, targets
from celosia_hw.memory import WEIGHT_KINDS, WeightMemory
from celosia_hw.multiplier import KINDS

NAMES = ["icebreaker", "hx8k", "ecp5-25f", "ecp5-85f", "ulx3s-85f"]
# Depth and width that one block memory can have with one read and one write port.
SHAPES = {"ice40": [(256, 16), (512, 8), (1024, 4), (2048, 2)],
          "ecp5": [(512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1)]}


def _blocks(family, depth, width):
    return min(math.ceil(depth / rows) * math.ceil(width / bits) for rows, bits in SHAPES[family])


def test_names():
    assert list(targets()) == NAMES
    assert all(target(name).name == name for name in NAMES)
    with pytest.raises(TypeError):
        targets()["mine"] = None


def test_unknown_target_lists_the_names():
    with pytest.raises(UnknownTarget) as caught:
        target("icebraker")
    assert str(caught.value) == (
        "unknown target 'icebraker'; did you mean 'icebreaker'? targets are icebreaker, hx8k, "
        "ecp5-25f, ecp5-85f, ulx3s-85f")


@pytest.mark.parametrize("name", NAMES)
def test_array_fits_the_memories(name):
    """The array's memories need no more blocks than the device has."""
    entry = target(name)
    array = entry.array
    beat_bits = array.beat * array.acc_bits
    memories = [(array.table_rows, 32), (array.taps, array.tap_word_bits),
                (array.writes, array.write_word_bits), (array.program_words, 16),
                (array.store_beats, beat_bits)]
    memories += [(array.bank_rows, array.activation_bits)] * array.lanes
    if array.residual_beats:
        memories.append((array.residual_beats, array.beat * array.activation_bits))
    if entry.weight_memory == "bram":
        memories += [(array.weight_rows, array.weight_word_bits)] * array.groups_max
    else:
        assert array.groups_max <= entry.resources.sprams
    used = sum(_blocks(entry.family, depth, width) for depth, width in memories)
    assert array.lanes <= used <= entry.resources.brams


@pytest.mark.parametrize("name", NAMES)
def test_kinds(name):
    entry = target(name)
    assert entry.mac in KINDS
    assert entry.weight_memory in WEIGHT_KINDS
    assert entry.ceiling_mhz is None or entry.clock_mhz <= entry.ceiling_mhz
    WeightMemory(entry.array.weight_rows, entry.array.groups_max, entry.array.weight_word_bits,
                 entry.weight_memory)


@pytest.mark.parametrize("name", NAMES)
def test_board_description(name):
    entry = target(name)
    if entry.board is None:
        assert (entry.crystal_mhz, entry.loader, entry.leds) == (None, None, ())
        with pytest.raises(ValueError, match="is a bare device and has no platform"):
            platform_of(entry)
        return
    platform = platform_of(entry)
    assert platform.device.lower().removeprefix("ice40") == entry.device
    assert platform.default_clk_frequency == entry.crystal_mhz * 1e6
    assert entry.package.lower() in (platform.package.lower(), "cabga381")
    platform.lookup("uart", 0)
    for _, led in entry.leds:
        platform.lookup("led", led)


def test_array_for():
    assert array_for("icebreaker") == target("icebreaker").array
    eight = array_for(target("icebreaker"), lanes=8, acc_bits=32)
    assert eight == dataclasses.replace(target("icebreaker").array, lanes=8, acc_bits=32)
    assert array_for("ecp5-85f", lanes=64).groups_max == 16


@pytest.mark.parametrize(("name", "lanes", "message"), [
    ("icebreaker", 32, "icebreaker: lanes must be at most 16 (8 multiplier blocks), not 32"),
    ("ecp5-25f", 32, "ecp5-25f: lanes must be at most 16 (28 multiplier blocks), not 32"),
    ("ecp5-85f", 24, "lanes must be a power of two, 4 to 64, not 24"),
    ("hx8k", 2, "lanes must be a power of two, 4 to 64, not 2"),
])
def test_array_for_rejects(name, lanes, message):
    with pytest.raises(ValueError) as caught:
        array_for(name, lanes=lanes)
    assert str(caught.value) == message
