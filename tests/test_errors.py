"""Every error that a user can meet is a `CelosiaError`: the command line prints it, and Python code
needs one ``except``."""

import ast
import builtins
import importlib
from functools import cache

import pytest
import typer

from celosia.cli import common
from celosia_spec.errors import ArgumentError, CelosiaError, refusals
from test_order import modules

SIGNALS = {
    "celosia.frontend.pt2.checks.Unsound": "celosia.frontend.pt2.archive",
    "celosia.compress.filters.tracks.Unfollowed": "celosia.compress.filters.follow",
    "celosia_boards.host.driver.Lost": "celosia_boards.host.driver",
    "celosia_boards.host.exchange.Busy": "celosia_boards.host.machine",
    "celosia_boards.host.exchange.Damage": "celosia_boards.host.machine",
    "celosia_boards.host.job.Stopped": "celosia.bands.simulate",
    "celosia_boards.host.wires.Gone": "celosia_boards.host.link",
}
"""Exceptions that no user meets, to the module that catches them. Those whose name begins with _
are caught where they are declared."""

ASKED_FOR = {"celosia_sim.virtual.line.Killed"}
"""What only ends a simulated host that was told to end so."""


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


@cache
def exceptions() -> frozenset[str]:
    """The dotted name of every exception class of the packages."""
    known = {name for name, value in vars(builtins).items()
             if isinstance(value, type) and issubclass(value, BaseException)}
    classes = [(f"{module}.{node.name}", {last_name(base) for base in node.bases})
               for module in modules() for node in ast.walk(tree(module))
               if isinstance(node, ast.ClassDef)]
    found: set[str] = set()
    while True:
        names = known | {name.rpartition(".")[2] for name in found}
        more = {name for name, bases in classes if bases & names}
        if more == found:
            return frozenset(found)
        found = more


def caught(module: str) -> set[str]:
    """The names of what a module's ``except`` clauses catch."""
    return {last_name(part) for node in ast.walk(tree(module))
            if isinstance(node, ast.ExceptHandler) and node.type is not None
            for part in ast.walk(node.type) if isinstance(part, ast.expr)}


@pytest.mark.parametrize("name", sorted(exceptions()))
def test_a_user_meets_celosia_errors(name: str) -> None:
    module, _, own = name.rpartition(".")
    if name in SIGNALS or own.startswith("_"):
        assert own in caught(SIGNALS.get(name, module))
    else:
        found = getattr(importlib.import_module(module), own)
        assert issubclass(found, CelosiaError) is (name not in ASKED_FOR)


def test_what_is_listed_is_there() -> None:
    assert SIGNALS.keys() | ASKED_FOR <= exceptions()
    assert {"celosia_spec.errors.FitError", "celosia_boards.stages.OverfullError",
            "celosia_boards.host.exchange.LineError"} <= exceptions()


@pytest.mark.parametrize("problem, kept", [
    (ArgumentError("a"), ArgumentError), (ValueError("a"), CelosiaError),
    (KeyError("a"), KeyError)])
def test_refusals_keep_what_is_meant_for_the_user(problem: Exception, kept: type) -> None:
    with pytest.raises(kept) as caught, refusals():
        raise problem
    assert type(caught.value) is kept


def test_the_command_line_says_a_tools_last_words_on_one_line(
        capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        common.refuse("yosys failed with status 1:\n  ERROR: no\nlog: a.log")
    assert capsys.readouterr().err == ("celosia: yosys failed with status 1:;   ERROR: no; "
                                       "log: a.log\n")
