"""What Celosia raises when it refuses something. Users import it from here."""

from celosia_spec.errors import (
    ArgumentError,
    CacheError,
    CelosiaError,
    CompileError,
    FitError,
    Need,
    SimulationError,
)

__all__ = ["ArgumentError", "CacheError", "CelosiaError", "CompileError", "FitError", "Need",
           "SimulationError"]
