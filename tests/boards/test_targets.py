# amaranth: UnusedElaboratable=no
"""The table of targets agrees with itself and with the board descriptions."""

import pytest

from celosia_boards.build import platform_of
from celosia_boards.clocks import possible_clock
from celosia_boards.targets import UnknownTarget, target, targets
from celosia_hw.memory import WEIGHT_KINDS, WeightMemory
from celosia_hw.multiplier import KINDS

NAMES = ["icebreaker", "hx8k", "ecp5-25f", "ecp5-85f", "ulx3s-85f"]


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
def test_kinds(name):
    entry = target(name)
    assert entry.mac in KINDS
    assert entry.weight_memory in WEIGHT_KINDS
    assert possible_clock(entry, entry.clock_mhz) == entry.clock_mhz
    assert entry.clock_mhz % entry.clock_step_mhz == 0
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
