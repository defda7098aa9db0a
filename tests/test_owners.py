"""What stands once stays once: the files that may name a single memory, and that may call a stage
of the compiler, with the reason of each.

All others ask the table (`celosia_spec.isa.memories`), so that no second list of memories grows,
and `celosia.compiler.Compiler`, so that no second chain of its stages does.
"""

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("hw", "boards", "sim", "sw", "benchmarks")

MEMORIES = {
    "hw/celosia_spec/isa/memories.py": "the table",
    "hw/celosia_hw/hosted_machine.py": "what the host reaches of the machine",
    "boards/celosia_boards/host/driver.py": "registers are not as memories; programs are read back",
    "boards/celosia_boards/host/requests.py": "requests for registers",
    "sim/celosia_sim/benches/program.py": "words of main memory are taken apart",
    "sim/celosia_sim/simulators/verilated.py": "likewise",
    "sw/celosia/bands/session.py": "reads maps",
    "sw/celosia/bands/simulate.py": "loads programs",
}
"""Files that name a memory, as `Space.MAIN`, and what for."""

COMPILER = "sw/celosia/compiler.py"
STAGES = {
    "celosia.frontend.import_model": {},
    "celosia.passes.optimise": {},
    "celosia.quantise.begin": {},
    "celosia.quantise.quantise": {
        "benchmarks/stream_cycles.py": "for an array that no target carries",
        "benchmarks/stream_steps.py": "likewise",
        "benchmarks/unsigned_mantissas.py": "mantissas with a sign beside those without",
    },
    "celosia.bands.schedule.schedule_with_room": {},
    "celosia.bands.schedule.stream_schedule": {
        "sw/celosia/cli/streams.py": "a window in one go, beside its steps",
        "sw/celosia/compare.py": "the array with deeper main memory",
        "sw/celosia/serialise.py": "the array in a file",
        "benchmarks/bad_inputs_programs.py": "the array of a program that is changed",
        "benchmarks/netlist.py": "an array that Icarus simulates in minutes",
        "benchmarks/speed.py": "measures it alone",
    },
    "celosia.bands.schedule.attempt": {},
    "celosia.program.program_of": {
        "sw/celosia/serialise.py": "the array in a file",
        "benchmarks/bad_inputs_programs.py": "the array of a program that is changed",
        "benchmarks/netlist.py": "an array that Icarus simulates in minutes",
    },
}
"""Functions that are stages, each with the files that import it beside `COMPILER`, and why."""


@cache
def sources() -> dict[str, ast.Module]:
    """Every file of the sources, by its path."""
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
            for folder in SOURCES for path in (ROOT / folder).rglob("*.py")}


def naming(name: str) -> set[str]:
    """The files that name a member of a class."""
    return {path for path, tree in sources().items()
            if any(isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                   and node.value.id == name and node.attr.isupper() for node in ast.walk(tree))}


def importing(function: str) -> set[str]:
    """The files that import a function from its module."""
    return {path for path, tree in sources().items()
            if any(f"{node.module}.{alias.name}" == function
                   for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                   for alias in node.names)}


FIGURES = {
    (4, 9): "hw/celosia_spec/isa/numbers.py", (4, 10): "hw/celosia_spec/isa/numbers.py",
    (24, 32): "hw/celosia_spec/isa/numbers.py",
    ("dynamic", "static"): "hw/celosia_spec/epilogue.py"}
"""Ends of a range, or all of a few, and the file where alone they stand side by side."""


def figures(tree: ast.Module) -> set[tuple[object, ...]]:
    """The constants of one tuple, call or comparison, in their order."""
    found = set()
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            parts = node.elts
        elif isinstance(node, ast.Call):
            parts = node.args
        elif isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        found.add(tuple(part.value for part in parts if isinstance(part, ast.Constant)))
    return found


def test_widths_and_kinds_of_exponents_stand_once() -> None:
    for path, tree in sources().items():
        if not path.startswith("benchmarks/"):
            assert {FIGURES[pair] for pair in figures(tree) & FIGURES.keys()} <= {path}, path


def test_single_memories_are_named_by_their_owners_alone() -> None:
    found = naming("Space")
    assert found - MEMORIES.keys() == set(), "ask celosia_spec.isa.MEMORIES, or say why here"
    assert MEMORIES.keys() - found == set(), "name no memory any more: take them off the list"


@pytest.mark.parametrize("stage", STAGES)
def test_stages_are_called_by_the_compiler(stage: str) -> None:
    found = importing(stage) - {"sw/celosia/frontend/__init__.py"}      # which hands one out
    assert found - {COMPILER} <= STAGES[stage].keys(), "call Compiler, or say why here"
    assert STAGES[stage].keys() <= found, "calls it no more: take it off the list"
    module, _, name = stage.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
