"""What Celosia raises when it refuses something, in words meant for the user."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

QUOTED = 100
"""Longest name or line of source that a message quotes whole."""


def said(problem: BaseException) -> str:
    """Return the first line of what an exception says; its type where it says nothing."""
    return next(iter(str(problem).strip().splitlines()), type(problem).__name__)


class CelosiaError(Exception):
    """A refusal that the user can act on. The command line prints it and exits with status 1.

    code : lines of Python that are the way out, where it takes some; they are in the message too.
    """

    code: tuple[str, ...] = ()


class ArgumentError(CelosiaError, ValueError):
    """An argument is outside its range; says the rule and the value."""


class CacheError(CelosiaError):
    """The cache folder cannot be used; says why, and the way out."""


class SimulationError(CelosiaError):
    """A simulation could not be run, or the simulated machine did not do its work.

    The message is one line and names the tool, layer or tensor, and the way out.
    """


class CompileError(CelosiaError):
    """A model cannot be compiled: which layer, which operator, why, and the way out.

    node     : name of the layer (module path where the model has one) or tensor.
    operator : the operator, in the words of PyTorch.
    problem  : what is wrong, with numbers.
    remedy   : what the user can do.
    source   : the user's line that calls the layer, "net.py:12: x = self.act(x)"; None where it
               is not known.
    """

    def __init__(self, node: str, operator: str, problem: str, remedy: str,
                 source: str | None = None) -> None:
        where = "" if source is None else f" [{quoted(source)}]"
        super().__init__(f"{quoted(node)} ({quoted(operator)}): {problem}; {remedy}{where}")
        self.node = node
        self.operator = operator
        self.problem = problem
        self.remedy = remedy
        self.source = source

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.node, self.operator, self.problem, self.remedy, self.source)

    def at(self, source: str | None) -> "CompileError":
        """Return the same refusal with the user's source line."""
        return type(self)(self.node, self.operator, self.problem, self.remedy, source)


class Scarce(StrEnum):
    """What of an array a network may need more of than there is, in the words of `celosia check`
    and of the page on the machine."""

    MAIN_MEMORY = "main memory"
    TAPS = "taps"
    ROW_CONTROLS = "control words of a row"
    BANK_ROWS = "rows of the banks"
    ROW_WEIGHTS = "weights of a row"
    SUM_BITS = "bits of a sum"
    ADDED = "tensors to be added"
    FLASH = "flash"


@dataclass(frozen=True)
class Need:
    """How much a network needs of something, and how much there is.

    unit  : of both numbers, "KiB", "rows", "bits" ...   least : whether it may need still more.
    """

    what: Scarce
    needed: float
    available: float
    unit: str
    least: bool = False


class FitError(CompileError):
    """A network that is sound does not fit the array that it is compiled for; another may take it.

    ``remedy`` says what would have to shrink; `celosia.compile` puts in its place what it tried.
    need : the numbers of ``problem`` in units of the user's network; None where it has none.
    """

    def __init__(self, node: str, operator: str, problem: str, remedy: str,
                 source: str | None = None, need: Need | None = None) -> None:
        super().__init__(node, operator, problem, remedy, source)
        self.need = need

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.node, self.operator, self.problem, self.remedy, self.source,
                            self.need)

    def at(self, source: str | None) -> "FitError":
        """Return the same refusal with the user's source line."""
        return type(self)(self.node, self.operator, self.problem, self.remedy, source, self.need)


def quoted(text: str, length: int = QUOTED) -> str:
    """Return a name or a line on one line, with nothing in it that a terminal obeys.

    What is not printable is written as Python writes it; beyond ``length`` the middle is left out.
    """
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return plain if len(plain) <= length else f"{plain[:length // 2]}…{plain[1 - length // 2:]}"


@contextmanager
def located(sources: Mapping[str, str]) -> Iterator[None]:
    """Add the user's source line to a CompileError from within; sources: by the node's name."""
    try:
        yield
    except CompileError as refusal:
        if refusal.source is not None or refusal.node not in sources:
            raise
        raise refusal.at(sources[refusal.node]) from refusal.__cause__


@contextmanager
def refusals(*errors: type[Exception]) -> Iterator[None]:
    """Turn ``errors``, and ValueErrors of packages below, into one-line refusals; those that are
    meant for the user stay as they are."""
    refused: tuple[type[Exception], ...] = (ValueError, *errors)
    try:
        yield
    except CelosiaError:
        raise
    except refused as problem:
        raise CelosiaError("; ".join(str(problem).splitlines())) from None
