# amaranth: UnusedElaboratable=no
"""Of what the machine on its serial line is made, before synthesis maps that to a chip: cells by
their kind, and the bits that they give. A change of the gateware that is meant shows in numbers
what it did; one that only names or moves things leaves them alone. ``python -m pytest
tests/fingerprints -n0 --update`` writes them anew."""

import re
from collections import Counter
from pathlib import Path

import pytest
from amaranth.back import rtlil

from celosia_hw.flash.reader import FlashReader
from celosia_hw.serial_machine import SerialMachine
from celosia_sim.simulators.rtl import FLASH, FLASH_HZ
from celosia_spec.isa.fabric import GENERIC
from fingerprints.networks import HOW
from fingerprints.test_images import ARRAYS, BOARDS, NARROW

FOLDER = Path(__file__).with_name("cells")
MACHINES = {NARROW: (GENERIC, "bram"),
            **{board.name: (board.fabric, board.main_memory) for board in BOARDS}}
"""Of each array what it is built of, and the kind of its main memory."""

_LINE = re.compile(
    r"^ *(?:module (?P<module>\S+)|cell (?P<cell>\S+)|(?P<case>case)\b"
    r"|parameter \\(?:Y_)?WIDTH (?P<width>\d+)"
    r"|memory width (?P<memory>\d+) size (?P<size>\d+)"
    r"|assign \S+ \[(?P<high>\d+)(?::(?P<low>\d+))?\])", re.M)


def machine_text(name: str) -> str:
    """The RTLIL of the machine of an array, every block of it apart."""
    array, (fabric, main_memory) = ARRAYS[name], MACHINES[name]
    reader = FlashReader(array, clock_hz=FLASH_HZ, base=FLASH.base,
                         script=FLASH.script) if array.flash else None
    machine = SerialMachine(array, fabric=fabric, main_memory=main_memory, reader=reader,
                            clock_hz=FLASH_HZ, baud=1e6)
    return rtlil.convert(machine, name="core", emit_src=False)


def cells(text: str) -> str:
    """Kinds of cells, each with how many there are and their bits; what processes choose from
    counts as `case`, by the alternative, with the bits that are assigned."""
    count, bits, kind = Counter(), Counter(), ""
    blocks = {found["module"] for found in _LINE.finditer(text)}
    for found in _LINE.finditer(text):
        if found["case"] or found["cell"]:
            kind = found["case"] or found["cell"]
            count[kind] += kind not in blocks
        elif found["width"]:
            bits[kind] += int(found["width"])
        elif found["high"]:
            bits["case"] += int(found["high"]) - int(found["low"] or found["high"]) + 1
        elif found["memory"]:
            count["memory"] += 1
            bits["memory"] += int(found["memory"]) * int(found["size"])
    return "".join(f"{kind:<16}{count[kind]:>6} of {bits[kind]:>8} bits\n"
                   for kind in sorted(count) if count[kind])


@pytest.mark.parametrize("name", MACHINES)
def test_cells(name: str, update: bool) -> None:
    found, stored = cells(machine_text(name)), FOLDER / f"{name}.txt"
    if update:
        FOLDER.mkdir(exist_ok=True)
        stored.write_text(found, encoding="utf-8")
    assert stored.exists(), HOW
    assert found.splitlines() == stored.read_text(encoding="utf-8").splitlines(), HOW


def test_every_array_has_a_machine() -> None:
    assert MACHINES.keys() == ARRAYS.keys()


def test_what_is_counted() -> None:
    text = """
module \\core
  memory width 8 size 16 \\words
  cell \\core.part \\part
    connect \\a \\b
  end
  process $1
    assign $56 [7:0] \\error [7:0]
    switch \\wrong [0]
      case 1'1
        assign $56 [2] 1'1
    end
  end
end
module \\core.part
  cell $add $2
    parameter \\A_WIDTH 4
    parameter \\Y_WIDTH 5
  end
  cell $dff $3
    parameter \\WIDTH 3
  end
  cell \\SB_MAC16 \\mac
  end
end
"""
    assert [line.split() for line in cells(text).splitlines()] == [
        [kind, str(count), "of", str(bits), "bits"] for kind, count, bits in (
            ("$add", 1, 5), ("$dff", 1, 3), ("\\SB_MAC16", 1, 0), ("case", 1, 9),
            ("memory", 1, 128))]
