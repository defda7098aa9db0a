"""A network in steps of time: what a step makes, what of earlier steps is kept, what nodes read.

Time runs along the lines of every map. The graph of a step is a `QGraph` whose nodes make the lines
that are new and read `View`s of what is there; golden model and compiler take it as it stands.
"""

from dataclasses import dataclass

from celosia_spec.qgraph import QGraph, QTensor


@dataclass(frozen=True, kw_only=True)
class Ring(QTensor):
    """A tensor of which lines of earlier steps are kept.

    shape : of what a step makes.
    lines : that there is room for, a multiple of those that a step makes. Step n writes them behind
            those of step n - 1, and the first ones again behind the last ones.
    """

    lines: int

    @property
    def turns(self) -> int:
        """Steps after which the same lines are written again."""
        return self.lines // self.shape[1]

    def newest(self, step: int) -> int:
        """Return the line that a step writes first."""
        return step % self.turns * self.shape[1]


@dataclass(frozen=True, kw_only=True)
class View(QTensor):
    """Lines of a stored tensor, as a node reads them.

    of   : the tensor.   back : lines from the first one that is read to behind the newest one.
    """

    of: str
    back: int


def stored_name(tensors: dict[str, QTensor], name: str) -> str:
    """Return the name of the tensor that is stored where a node reads."""
    tensor = tensors[name]
    return tensor.of if isinstance(tensor, View) else name


def first_line(tensors: dict[str, QTensor], name: str, step: int) -> int:
    """Return the stored line at which what a node reads, or what it makes, begins in a step."""
    tensor = tensors[name]
    held = tensors[stored_name(tensors, name)]
    back = tensor.back if isinstance(tensor, View) else tensor.shape[1]
    if isinstance(held, Ring):
        return (held.newest(step) + held.shape[1] - back) % held.lines
    return held.shape[1] - back


@dataclass(frozen=True, eq=False, kw_only=True)
class Steps:
    """A network that takes a step whenever ``hop`` new lines of its input are there.

    window : the network over a whole window, static exponents.   graph : of one step.
    period : steps after which all rings are written at the same lines again.
    lines  : of a window.

    The result of a step are the newest lines of the result of the window that ends with it; of a
    window with one line of results, that one.
    """

    window: QGraph
    graph: QGraph
    hop: int
    period: int

    @property
    def lines(self) -> int:
        """Lines of the input that a window has."""
        return self.window.tensors[self.window.input].shape[1]

    @property
    def first(self) -> int:
        """Steps until there is a whole window, and with it a first result."""
        return -(-self.lines // self.hop)
