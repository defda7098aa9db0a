"""The core that four targets get: its cells before technology mapping, by kind and width.

Names and modules may change without changing these. Who changes the logic runs
``python -m pytest tests/fingerprints -n0 --update`` in a commit of its own that says what the
change costs. The core's cycles stand in the fingerprints of the images as predicted, and every
simulation counts them.
"""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from amaranth._toolchain.yosys import find_yosys
from amaranth.back import rtlil

from celosia_boards.targets import target
from celosia_hw.core import Core
from first_machine import HX8K, SIXTEEN, THIRTY_TWO, UP5K

STORED = Path(__file__).with_name("core.json")
TARGETS = {"icebreaker": UP5K, "hx8k-b-evn": HX8K,
           "ulx3s-85f": THIRTY_TWO, "orangecrab-25f": SIXTEEN}
_CELL = re.compile(r"^  cell (\S+) .*?^  end$", re.M | re.S)
_WIDTH = re.compile(r"parameter \\(?:WIDTH|Y_WIDTH|A_WIDTH) (\d+)")


def _cells(name: str) -> dict[str, int]:
    """Number of the flattened core's cells, each kind with its width in bits."""
    place = target(name)
    text = rtlil.convert(Core(TARGETS[name], mac=place.mac, weight_memory=place.weight_memory),
                         name="core", emit_src=False)
    script = (f"read_rtlil <<rtlil\n{text}\nrtlil\nhierarchy -top core; proc; flatten; opt_expr; "
              "opt_merge; opt_clean; write_rtlil")
    flat = find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], script)
    counted: Counter[str] = Counter()
    for cell in _CELL.finditer(flat):
        if cell[1] == "$scopeinfo":         # which module a cell came from: no hardware
            continue
        widths = [int(width) for width in _WIDTH.findall(cell[0])]
        counted[f"{cell[1]} {max(widths, default=1)}"] += 1
    return dict(sorted(counted.items()))


@pytest.mark.parametrize("name", TARGETS)
def test_core(name: str, update: bool) -> None:
    found = _cells(name)
    assert found
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if update:
        STORED.write_text(json.dumps(stored | {name: found}, indent=1, sort_keys=True) + "\n")
    assert update or stored.get(name) == found
