"""Celosia: sparse block-floating-point accelerators for small FPGAs, compiled from PyTorch.

``compile`` a trained network, ``run`` it on the golden model or on the simulated gateware,
``build`` a bitstream, and ``connect`` to the board that was flashed with it. Every backend gives
the same bits; ``docs/numerics.md`` says which.
"""

TYPE_CHECKING = False       # typing takes longer to import than all of this
if TYPE_CHECKING:
    from celosia import compress
    from celosia.api import build, compile, load
    from celosia.backends import run, stream
    from celosia.board import Board, connect
    from celosia.fit import check
    from celosia.program import Program
    from celosia.results import RunResult
    from celosia.stepwise import Stream
    from celosia_spec.errors import CelosiaError, CompileError
    from celosia_spec.preprocessing import Preprocessing

__all__ = ["Board", "CelosiaError", "CompileError", "Preprocessing", "Program", "RunResult",
           "Stream", "build", "check", "compile", "compress", "connect", "load", "run", "stream"]
__version__ = "0.1.0"

_HOMES = {"CelosiaError": "celosia_spec.errors", "CompileError": "celosia_spec.errors",
          "Board": "celosia.board", "connect": "celosia.board",
          "Preprocessing": "celosia_spec.preprocessing", "Program": "celosia.program",
          "RunResult": "celosia.results", "build": "celosia.api", "check": "celosia.fit",
          "compile": "celosia.api", "load": "celosia.api", "run": "celosia.backends",
          "Stream": "celosia.stepwise", "stream": "celosia.backends"}

if not TYPE_CHECKING:
    def __getattr__(name):
        """Import what is slow to import when it is first used: NumPy, SciPy."""
        import importlib

        if name == "compress":
            return importlib.import_module("celosia.compress")
        if name in _HOMES:
            return getattr(importlib.import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
