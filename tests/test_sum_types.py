"""Who takes a sum type apart: the golden model alone. All others ask it.

Taken apart is what tells its alternatives from one another: ``match`` and ``isinstance`` with
their classes, and comparisons of ``kind`` with their names.
"""

import ast
from pathlib import Path
from typing import get_args

import pytest

from celosia_spec.epilogue import Activation, Exponent
from celosia_spec.qgraph import NodeKind

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("hw", "boards", "sim", "sw")
           for path in (ROOT / folder).rglob("*.py")]

OWNERS = {
    Activation: {"sim/celosia_sim/golden/epilogue.py"},
    Exponent: {"sim/celosia_sim/golden/epilogue.py"},
}
"""Sum type to the files that may take it apart."""

ASKED = {
    "hw/celosia_spec/graph_rules.py": "which rules a sound graph has",
    "hw/celosia_spec/qgraph.py": "goes from tensor to tensor that keep an exponent",
    "sim/celosia_sim/golden/model.py": "inputs have no sums",
    "sw/celosia/bands/layer_commands.py": "a command of its own sets an exponent that is kept",
}
"""Files that ask a rule whether its exponent is fixed or kept, and what for; all others let it say
what the exponent is."""

OTHER_KINDS = {"sw/celosia/compress/fusion/fold.py"}
"""Files whose ``kind`` is of something else: of torch's pools."""


def classes(sum_type: object) -> set[str]:
    return {part.__name__ for part in get_args(get_args(sum_type)[0])}


def kinds(sum_type: object) -> set[str]:
    return {part.__dataclass_fields__["kind"].default for part in get_args(get_args(sum_type)[0])}


def names(node: ast.AST) -> set[str]:
    """Every name and attribute within a node."""
    found = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return found | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def told_apart(source: str, imported: set[str]) -> set[str]:
    """The classes, of those that are imported, which a source matches or asks `isinstance` for."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.MatchClass):
            found |= names(node.cls)
        elif (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
              and node.func.id in ("isinstance", "issubclass", "type")):
            found |= names(node)
    return found & imported


def imported(source: str) -> set[str]:
    """What a source imports by name from where epilogues are declared."""
    return {alias.name for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.ImportFrom) and node.module == "celosia_spec.epilogue"
            for alias in node.names}


def compared(source: str) -> set[str]:
    """The texts that a source compares a ``kind`` with."""
    return {part.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Compare)
            if "kind" in names(node)
            for part in ast.walk(node)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)}


def asked(source: str) -> set[str]:
    """What a source asks of exponents' rules, that only some have."""
    return {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)
            and node.attr in ("fixed", "keeps")
            and ast.unparse(node.value).rpartition(".")[2] in ("rule", "exponent")}


@pytest.mark.parametrize("sum_type", OWNERS, ids=["activation", "exponent"])
def test_only_its_owners_take_a_sum_type_apart(sum_type: object) -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES
             if told_apart(source := path.read_text(), imported(source)) & classes(sum_type)}
    assert found == OWNERS[sum_type]


def test_few_ask_which_rule_an_exponent_has() -> None:
    found = {str(path.relative_to(ROOT)) for path in SOURCES if asked(path.read_text())}
    assert found == ASKED.keys()


def test_no_kind_is_compared_with_a_text() -> None:
    texts = set(NodeKind) | kinds(Activation) | kinds(Exponent)
    found = {str(path.relative_to(ROOT)) for path in SOURCES
             if compared(path.read_text()) & texts}
    assert found == OTHER_KINDS


def test_what_is_told_apart_is_seen() -> None:
    """The search itself."""
    source = ("from celosia_spec.epilogue import Clamp, Kept\n"
              "match rule:\n    case Kept(): isinstance(x, (int, Clamp))\n"
              "x = y.kind == 'copy' or 'relu' != kind")
    assert told_apart(source, imported(source)) == {"Kept", "Clamp"}
    assert told_apart(source, {"Kept"}) == {"Kept"}
    assert compared(source) == {"copy", "relu"}
    assert asked("rule.fixed or self.exponent.keeps or plan.fixed or rule.least") == {
        "fixed", "keeps"}
