"""What families of devices differ in stands in their own files, and nowhere else."""

from pathlib import Path

import pytest

from celosia_boards.families import FAMILIES

ROOT = Path(__file__).parents[2]
SOURCES = ("hw", "boards", "sim", "sw", "benchmarks")


def holders(text: str) -> list[str]:
    """Return the files of the sources that hold a text."""
    return [str(path.relative_to(ROOT)) for folder in SOURCES
            for path in sorted((ROOT / folder).rglob("*.py"))
            if text in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_named_by_its_own_file_alone(family):
    """Its name as a string, its synthesis, its packer: whoever needs them asks the family."""
    own = [f"boards/celosia_boards/families/{family.name}.py"]
    assert holders(f'"{family.name}"') == own
    assert holders(f"synth_{family.name}") == own
    assert holders(f'"{family.packer}"') == own


def test_one_file_calls_yosys():
    """What is simulated after synthesis is what bitstreams are made of."""
    assert holders('run_tool("yosys"') == ["boards/celosia_boards/synthesis.py"]
    assert holders("synthesis import script, synthesise") == [
        "boards/celosia_boards/stages.py", "benchmarks/harness/netlist.py"]


def test_families_differ_in_what_tells_them_apart():
    for what in ("name", "title", "constraints", "placed", "packer", "bitstream", "sync"):
        assert len({getattr(family, what) for family in FAMILIES}) == len(FAMILIES), what
