# amaranth: UnusedElaboratable=no
"""Legality of an array on a target: what is allowed elaborates and fits, what is not says why."""

import functools
import itertools
import re
from dataclasses import replace

import pytest
from amaranth.back import rtlil

from celosia_boards.arrays import ArrayRefused, array_for, require
from celosia_boards.board_top import top_for
from celosia_boards.legality import block_memories
from celosia_boards.targets import target, targets
from celosia_hw.machine import Machine
from celosia_hw.parts.multiplier import Multipliers

NAMES = list(targets())
BITS = range(4, 10)
MACHINES = ["icebreaker", "hx8k", "ecp5-25f", "ecp5-85f", "ulx3s-45f", "ulx3s-12f"]
"""One of each device; the others are like one of them."""
BLOCKS = {"icebreaker": 30, "hx8k": 32, "ecp5-25f": 56, "ecp5-85f": 204, "ulx3s-45f": 102,
          "ulx3s-12f": 30}
"""Block memories that nextpnr counts in each target's own array (docs/results.md)."""


def _grid():
    for name, weight_bits, activation_bits, lanes, acc_bits in itertools.product(
            MACHINES, BITS, BITS, (1, 2, 4, 8, 16, 32, 64, 128), (24, 32)):
        yield name, {"weight_bits": weight_bits, "activation_bits": activation_bits,
                     "lanes": lanes, "acc_bits": acc_bits}


def _blocks(entry, array):
    return sum(use.count * entry.family.blocks(use.depth, use.width)
               for use in block_memories(array, entry.main_memory, entry.fabric))


def _like(entry):
    """The one of `MACHINES` with the same device, but for its package."""
    [found] = (name for name in MACHINES
               if target(name).device.array == entry.device.array)
    return found


def _elaborates(entry, array):
    """Whether the blocks that have limits of their own can be made; all check on creation."""
    return array.weight_bits <= 8 and _made(          # what an entry of the stream has of a weight
        Multipliers, array.lanes, array.weight_bits, array.activation_bits, entry.fabric.multiplier)


@functools.cache
def _made(block, *parameters):
    try:
        block(*parameters)
    except ValueError:
        return False
    return True


def test_whatever_is_allowed_elaborates():
    """All of 3,456 combinations: the verdict is that of the gateware and of the device's blocks."""
    allowed = 0
    for name, changes in _grid():
        entry = target(name)
        try:
            array = replace(entry.array, **changes)
        except ValueError:
            with pytest.raises(ValueError, match=r"^(lanes|beat|bank_rows|drain)"):
                replace(entry.array, **changes)
            continue
        blocks = _blocks(entry, array)
        dsps = {"mac16": -(-array.lanes_all // 2), "mult18": array.lanes_all}.get(
            entry.fabric.multiplier, 0)
        has = entry.resources
        fits = blocks <= has.brams and dsps <= has.dsps
        assert (not entry.check(array)) == (_elaborates(entry, array) and fits), (
            name, changes)
        allowed += fits and _elaborates(entry, array)
    assert allowed > 450


@pytest.mark.parametrize(("name", "changes"), [
    ("icebreaker", {"weight_bits": 6, "activation_bits": 5}),
    ("hx8k", {"weight_bits": 4, "activation_bits": 8, "acc_bits": 32}),
    ("ecp5-25f", {"weight_bits": 5, "activation_bits": 9, "lanes": 8, "acc_bits": 32}),
])
def test_whole_machines_elaborate(name, changes):
    """Odd widths and sizes, the whole machine with its serial port: no block refuses them."""
    entry = target(name)
    bare = replace(entry, platform=None, crystal_mhz=None, leds=(), held=())
    text = rtlil.convert(top_for(bare, array_for(name, **changes)), name="celosia")
    assert text.count("cell \\SB_SPRAM256KA") == (4 if name == "icebreaker" else 0)


@pytest.mark.parametrize("name", ["icebreaker", "hx8k", "ecp5-25f", "ecp5-85f"])
def test_memories_are_those_of_the_gateware(name):
    """Every block memory of the elaborated machine is counted, with its depth and width."""
    entry = target(name)
    array = replace(entry.array, weight_bits=7, activation_bits=5)
    machine = Machine(replace(array, flash=0), fabric=entry.fabric, main_memory=entry.main_memory)
    text = rtlil.convert(machine, name="machine")
    made = sorted((int(size), int(width)) for width, size in re.findall(
        r'attribute \\ram_style "block"\n(?: *attribute .*\n)* *memory width (\d+) size (\d+)',
        text))
    counted = block_memories(array, entry.main_memory, entry.fabric)
    assert made == sorted((use.depth, use.width) for use in counted for _ in range(use.count))


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_those_that_placement_counts(name):
    entry = target(name)
    assert entry.check(entry.array) == []
    assert _blocks(entry, entry.array) == BLOCKS[_like(entry)]


def test_array_for():
    assert array_for("icebreaker") == target("icebreaker").array
    eight = array_for(target("icebreaker"), lanes=8, acc_bits=32, weight_bits=6)
    assert eight == replace(target("icebreaker").array, lanes=8, acc_bits=32, weight_bits=6,
                            drain=2)
    assert array_for("ecp5-25f", lanes=8, activation_bits=4) == replace(
        target("ecp5-25f").array, lanes=8, activation_bits=4)
    assert array_for("ecp5-85f", lanes=32) == replace(target("ecp5-85f").array, clusters=2)
    assert array_for("ecp5-85f", lanes=16) == replace(target("ecp5-85f").array, clusters=1)
    assert {name for name in NAMES if target(name).array.two_ports} == {
        name for name in NAMES if target(name).family.name == "ecp5"}
    assert {target(name).array.lanes_all for name in NAMES} == {8, 16, 32, 64}
    own = target("ulx3s-12f").array
    wider = array_for(replace(target("ecp5-85f"), device=target("ulx3s-12f").device), lanes=8)
    assert wider == replace(own, flash=0)


@pytest.mark.parametrize(("name", "changes", "message"), [
    ("icebreaker", {"weight_bits": 9, "activation_bits": 9},
     "icebreaker: weight_bits can be at most 8 in its stream, not 9; use weight_bits=8 and "
     "activation_bits=8"),
    ("icebreaker", {"activation_bits": 9},
     "icebreaker: activation_bits can be at most 8 in its multipliers, not 9; use "
     "activation_bits=8 or target=ecp5-25f"),
    ("icebreaker", {"acc_bits": 32},
     "drain must be 2 of 8 lanes, and of 32 bits with residual operands"),
    ("icebreaker", {"lanes": 32},
     "icebreaker: 32 lanes need 16 of its 8 multiplier blocks; use lanes=16 or target=ecp5-85f"),
    ("hx8k", {"weight_bits": 9},
     "hx8k: weight_bits can be at most 8 in its stream, not 9; use weight_bits=8"),
    ("hx8k", {"activation_bits": 9},
     "hx8k: 8 lanes with 8-bit weights, 9-bit activations and 24-bit accumulators need 40 of its "
     "32 block RAMs; use activation_bits=8 or target=ecp5-25f"),
    ("ulx3s-12f", {"lanes": 16},
     "ulx3s-12f: 16 lanes need 6,144 of its 12,000 look-up tables for their banks alone; use "
     "activation_bits=4 or lanes=8 or target=icebreaker"),
    ("ecp5-25f", {"weight_bits": 9},
     "ecp5-25f: weight_bits can be at most 8 in its stream, not 9; use weight_bits=8"),
    ("ecp5-85f", {"lanes": 24}, "lanes must be 8, 16, 32, 64 or 128, not 24"),
    ("ecp5-85f", {"lanes": 128},
     "ecp5-85f: 128 lanes with 8-bit weights, 8-bit activations and 24-bit accumulators need 280 "
     "of its 208 block RAMs; use lanes=64"),
    ("ulx3s-45f", {"lanes": 64},
     "ulx3s-45f: 64 lanes with 8-bit weights, 8-bit activations and 24-bit accumulators need 140 "
     "of its 108 block RAMs; use lanes=32 or target=ecp5-85f"),
    ("hx8k", {"lanes": 2}, "lanes must be 8, 16, 32, 64 or 128, not 2"),
    ("hx8k", {"lanes": 8.0}, "lanes must be a whole number, not 8.0"),
    ("hx8k", {"weight_bits": 10}, "weight_bits must be 4 to 9, not 10"),
])
def test_refusals_lead_out(name, changes, message):
    with pytest.raises(ValueError) as caught:
        array_for(name, **changes)
    assert str(caught.value) == message


def test_every_way_out_works():
    """Whatever a refusal of the grid advises is allowed."""
    tried = 0
    for name, changes in _grid():
        try:
            array = replace(target(name).array, **changes)
        except ValueError:
            continue
        try:
            require(target(name), array)
        except ArrayRefused as refusal:
            for way in str(refusal).partition("; use ")[2].split(" or "):
                advised = dict(part.split("=") for part in way.split(" and "))
                to = advised.pop("target", name)
                lanes = {"lanes": array.lanes_all if to == name else max(
                    array.lanes_all, target(to).array.lanes_all)}
                array_for(to, **changes | lanes | {k: int(v) for k, v in advised.items()})
                tried += 1
    assert tried > 250


DEPTHS = ("main_words", "bank_rows", "ring", "controls", "taps", "tiles")
WIDTHS = {"lanes": (8, 16, 32, 64), "weight_bits": range(4, 10), "activation_bits": range(4, 10),
          "acc_bits": (24, 32)}
RISING = WIDTHS | {key: [2 ** k for k in range(6, 17)] for key in DEPTHS}
"""Values that an array allows, and some that it does not."""
HELD = {("hx8k", "acc_bits"), ("icebreaker", "acc_bits"), ("icebreaker", "bank_rows"),
        ("icebreaker", "lanes"), ("ulx3s-12f", "taps"), *itertools.product(
    ("ecp5-25f", "ecp5-85f", "ulx3s-45f", "ulx3s-12f"),
    ("activation_bits", "acc_bits", "bank_rows", "lanes")), *itertools.product(
    ("ulx3s-45f",), ("controls", "tiles"))}
"""Parameters of which a target holds every value."""


def _allowed(array, parameter, value):
    """Whether there is such an array."""
    try:
        replace(array, **{parameter: value})
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("name", "parameter"), [
    (name, parameter) for name in NAMES for parameter in RISING])
def test_one_parameter_too_large_is_refused_by_its_name(name, parameter):
    """From some value on, in the words of the check, and before anything is elaborated."""
    entry = target(name)
    values = [value for value in RISING[parameter]
              if _allowed(entry.array, parameter, value)]
    refused = [value for value in values
               if entry.check(replace(entry.array, **{parameter: value}))]
    assert refused == list(values)[len(values) - len(refused):]
    assert bool(refused) == ((_like(entry), parameter) not in HELD)
    for value in refused:
        array = replace(entry.array, **{parameter: value})
        assert {problem.parameter for problem in entry.check(array)} == {parameter}
        with pytest.raises(ArrayRefused) as caught:
            top_for(entry, array)
        assert f"{entry.name}: {entry.check(array)[0]}; use " in str(caught.value)
        if parameter not in WIDTHS:
            assert re.search(rf"{parameter}(=| can).*{value}", str(caught.value))


def test_clusters_in_spram_are_refused():
    entry = target("icebreaker")
    problem = entry.check(replace(entry.array, lanes=8, drain=2, fill=8, clusters=2))[0]
    assert (problem.parameter, str(problem)) == (
        "clusters", "its SPRAM has one port, and 2 clusters need two")


def test_another_main_memory_is_refused():
    [problem] = replace(target("hx8k"), main_memory="spram").check(target("hx8k").array)
    assert (problem.parameter, str(problem)) == (
        "main_memory", "its main memory is bram, not spram")
