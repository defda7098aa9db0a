"""Celosia: sparse block-floating-point accelerators for small FPGAs, compiled from PyTorch.

``compile`` a trained network, ``run`` it on the golden model or on the simulated gateware, and
``build`` a bitstream. Every backend gives the same bits; ``docs/numerics.md`` says which.
"""

import importlib
from typing import TYPE_CHECKING, Any

from celosia.api import RunResult, build, compile, load, run
from celosia.errors import CelosiaError, CompileError

if TYPE_CHECKING:
    from celosia import compress
    from celosia.program import Program

__all__ = ["CelosiaError", "CompileError", "Program", "RunResult", "build", "compile", "compress",
           "load", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is slow to import when it is first used: compress needs torch, Program SciPy."""
    if name == "compress":
        return importlib.import_module("celosia.compress")
    if name == "Program":
        return importlib.import_module("celosia.program").Program
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
