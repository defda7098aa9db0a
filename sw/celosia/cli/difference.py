"""The first value that a backend has otherwise than the golden model, in words."""

from celosia import backends
from celosia.program import Program
from celosia.verify import Mismatch


def difference(program: Program, backend: str, first: Mismatch) -> str:
    """Return where it is, what it is, and what to do about it."""
    return (f"{_layer(program, first.tensor)}, image {first.image}, element {first.element}: "
            f"expected {first.expected}, got {first.got}; {_blame(backend)}")


def _layer(program: Program, tensor: str) -> str:
    """Return, in words, the layer that computes a tensor, and the tensor."""
    names = [node.name for node in program.graph.nodes if node.output == tensor]
    if not names:
        return f"tensor {tensor!r}"
    return f"layer {names[0]!r}" + (f", tensor {tensor!r}" if tensor != names[0] else "")


def _blame(backend: str) -> str:
    if isinstance(backends.named(backend), backends.BoardAt):
        return ("the board does not compute what the golden model does; check its power, build for "
                "a lower clock (--clock), and if --backend verilator agrees with the golden model, "
                "report it")
    return "the gateware and the golden model disagree, report it with the program"
