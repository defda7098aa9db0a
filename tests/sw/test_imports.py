"""The direction of imports between the four packages, read from their source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = {"celosia.errors", "celosia.program", "celosia.qgraph"}
ALLOWED = {     # package: what it may import of the four, by name or with all below
    "hw/celosia_hw": {"celosia_hw"},
    "boards/celosia_boards": {"celosia_boards", "celosia_hw"},
    "sim/celosia_sim/golden": {"celosia_sim.golden", "celosia_hw.isa", "celosia.qgraph",
                               "celosia.errors"},
    "sim/celosia_sim": {"celosia_sim", "celosia_hw", "celosia_boards"} | LIBRARY,
    "sw/celosia/frontend": {"celosia"},
    "sw/celosia/passes": {"celosia", "celosia_sim.golden"},
    "sw/celosia": {"celosia", "celosia_sim", "celosia_boards", "celosia_hw.isa",
                   "celosia_hw.timing"},
}
FOUR = ("celosia", "celosia_hw", "celosia_sim", "celosia_boards")


def imported(source: str) -> set[str]:
    """Return every absolute module name that ``source`` imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_point_one_way(folder: str) -> None:
    wrong = []
    for path in (ROOT / folder).rglob("*.py"):
        relative = path.relative_to(ROOT).as_posix()
        nearest = max((known for known in ALLOWED if relative.startswith(known + "/")), key=len)
        if nearest != folder:
            continue
        for name in imported(path.read_text()):
            if name.split(".")[0] in FOUR and not any(
                    name == ok or name.startswith(ok + ".") for ok in ALLOWED[folder]):
                wrong.append(f"{relative} imports {name}")
    assert not wrong


def test_celosia_imports_without_torch_amaranth_or_a_simulator() -> None:
    heavy = ("torch", "amaranth", "cocotb", "celosia_boards.build")
    code = f"import sys, celosia; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
