"""What stands once stays once: the files that may name a single memory, with the reason of each.

All others ask the table (`celosia_spec.isa.memories`), so that no second list of memories grows.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ("hw", "boards", "sim", "sw", "benchmarks")

MEMORIES = {
    "hw/celosia_spec/isa/memories.py": "the table",
    "hw/celosia_spec/graph_rules.py": "least words that any program of a graph takes",
    "hw/celosia_hw/control/program.py": "the block that owns it; exponents stand behind its words",
    "hw/celosia_hw/control/sequencer.py": "descriptors that it can hold",
    "boards/celosia_boards/legality.py": "weights may lie in other blocks than block memories",
    "boards/celosia_boards/description.py": "what users are told of a target: weights, maps, sums",
    "boards/celosia_boards/host/driver.py": "registers are not as memories; programs are read back",
    "boards/celosia_boards/host/requests.py": "requests for registers",
    "boards/celosia_boards/host/session.py": "banks are cleared; exponents and counters go along",
    "sim/celosia_sim/word_machine.py": "what the machine does with each, a second time",
    "sw/celosia/board.py": "the register that selects what is counted",
    "sw/celosia/board_memory.py": "zeros around maps, where taps point",
    "sw/celosia/disassembly.py": "the words of a layer",
    "sw/celosia/explain.py": "the parts of a layer in each image; exponents",
    "sw/celosia/emit/program.py": "fills the images",
    "sw/celosia/emit/places.py": "gives tensors their addresses",
    "sw/celosia/fit_search.py": "which refusals pruning and smaller maps help",
    "sw/celosia/schedule/candidates.py": "sums that the accumulator store must hold",
    "sw/celosia/schedule/check.py": "exponents that a graph needs",
    "sw/celosia/schedule/row_groups.py": "what fewer row groups save; maps and residual operands",
    "sw/celosia/schedule/schedule.py": "words that a schedule takes of each image",
    "sw/celosia/schedule/shortages.py": "least weights, rows and maps",
}
"""Files that name a memory, as `Space.BANKS`, and what for."""


def naming(name: str) -> set[str]:
    """The files of the sources that name a member of a class."""
    return {str(path.relative_to(ROOT)) for folder in SOURCES
            for path in (ROOT / folder).rglob("*.py")
            if any(isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
                   and node.value.id == name and node.attr.isupper()
                   for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))}


def test_single_memories_are_named_by_their_owners_alone() -> None:
    found = naming("Space")
    assert found - MEMORIES.keys() == set(), "ask celosia_spec.isa.MEMORIES, or say why here"
    assert MEMORIES.keys() - found == set(), "name no memory any more: take them off the list"
