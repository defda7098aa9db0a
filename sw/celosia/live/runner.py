"""What inputs run on one at a time, with what each took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from celosia import backends, results
from celosia.answers import chosen, labels_of, scores, tells_classes
from celosia.show import clock_of, rate
from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import MOVES

if TYPE_CHECKING:
    from celosia.board import Board
    from celosia.live.shots import Shot
    from celosia.program import Program
    from celosia_spec.outputs import Output

__all__ = ["Answer", "OnBoard", "OnModel", "Runner", "Scale", "answer", "check_answers",
           "prepare", "scale_of"]


class Runner(Protocol):
    """What runs inputs. name : in words, "icebreaker at /dev/ttyUSB1".   linked : over a line."""

    name: str
    linked: bool

    def run(self, inputs: np.ndarray) -> results.RunResult:
        """Run float32 (1, ...)."""


class OnBoard:
    """A board that has the program."""

    linked = True

    def __init__(self, board: Board) -> None:
        self._board = board
        self.name = f"{board.program.target} at {board.name}"

    def run(self, inputs: np.ndarray) -> results.RunResult:
        return self._board.run(inputs)


class OnModel:
    """The golden model or the simulated gateware: no board, for those who have none."""

    linked = False

    def __init__(self, program: Program, backend: backends.GoldenModel | backends.Simulator,
                 stages: results.Stages | None = None,
                 notice: results.Notice = results.warned) -> None:
        self._program, self._backend, self._stages = program, backend, stages
        self._notice = results.once(notice)
        self.name = f"{backend.about}, no board"

    def run(self, inputs: np.ndarray) -> results.RunResult:
        return backends.run(self._program, inputs, self._backend.name, stages=self._stages,
                            notice=self._notice)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a network's scores are.

    kind  : the operator that ends it ("softmax", "sigmoid", ...), "logits" where none does, or
            "value" for a lone number, which is no score.
    about : in words, of the shares; "" where there are none.
    """

    kind: str
    about: str


_ABOUT = {
    "softmax": "the network's own softmax",
    "log_softmax": "the network's log-softmax, as shares",
    "sigmoid": "the network's own sigmoid, each class by itself",
    "hardsigmoid": "the network's own hardsigmoid, each class by itself",
    "log_sigmoid": "the network's log-sigmoid, each class by itself",
    "logits": "softmax, computed here, of the network's logits",
}
"""Of what ends a network: what its shares are, where it has any (`_shares`)."""


def check_answers(output: Output) -> None:
    """CelosiaError unless an output is a class or one number."""
    if not tells_classes(output) and np.prod(output.scoring.shape) > 1:
        raise CelosiaError(f"the network answers with a map of the shape {output.scoring.shape}, "
                           f"and live shows classes; draw maps with celosia run -o maps.png")


def scale_of(output: Output) -> Scale:
    """Return what the scores of an output that `check_answers` takes are."""
    last = [layer.operator for layer in output.scoring.layers if layer.operator not in MOVES]
    kind = last[-1] if last else "logits"
    if not tells_classes(output):
        kind = "value"
    return Scale(kind=kind, about=_ABOUT.get(kind, ""))


def _shares(kind: str, found: np.ndarray) -> np.ndarray | None:
    """Return each class's share, 0 to 1, of scores (classes,); None where scores have none."""
    match kind:
        case "softmax" | "sigmoid" | "hardsigmoid":
            shares = found
        case "log_softmax" | "log_sigmoid":
            shares = np.exp(found)
        case "logits":
            shares = np.exp(found - found.max())
            shares = shares / shares.sum()
        case _:
            return None
    return shares


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """What one input came to.

    input     : its name.
    number    : its class, None where the network answers with a number.   label : that class's
                name, None where it has none.
    score     : the network's own value of that class, or the number.
    scores    : float64 (classes,), or (1,) of a number.   shares : likewise, 0 to 1, or None.
    cycles    : that the machine counted; None on the golden model, which has none.
    ms_board  : what these, or else the predicted ones, take at the target's clock.
    ms_link   : wall time of the exchange less that, at least 0; None without a line.
    saturated : whether a rounding or the input was clipped.
    """

    input: str
    number: int | None
    label: str | None
    score: float
    scores: np.ndarray
    shares: np.ndarray | None
    cycles: int | None
    ms_board: float
    ms_link: float | None
    saturated: bool

    @property
    def share(self) -> float | None:
        """Of the class."""
        if self.shares is None or self.number is None:
            return None
        return float(self.shares[self.number])

    def as_json(self) -> dict[str, Any]:
        """Return what a line of ``celosia live --json`` holds."""
        return {"input": self.input, "class": self.number, "label": self.label,
                "score": self.score, "share": self.share, "cycles": self.cycles,
                "ms_board": self.ms_board, "ms_link": self.ms_link, "saturated": self.saturated}


def prepare(program: Program, runner: Runner) -> None:
    """Run an input of zeros: a simulator is built, and SciPy imported, at the first one."""
    shape = program.graph.tensors[program.graph.input].user_shape
    found = runner.run(np.zeros((1, *shape), np.float32))
    for output in program.outputs:
        scores(program, found, output.name)


def answer(program: Program, runner: Runner, shot: Shot, name: str | None = None) -> Answer:
    """Run one input. name : of the output that is the answer, as `Program.output` takes it."""
    output = program.output(name)
    started = time.perf_counter()
    result = runner.run(shot.inputs)
    wall = 1e3 * (time.perf_counter() - started)
    cycles = None if result.cycles is None else int(result.cycles[0])
    ms_board = rate(cycles or program.predicted_cycles, clock_of(program)).milliseconds
    found, scale = scores(program, result, name)[0], scale_of(output)
    number = int(chosen(program, result, name)[0]) if scale.kind != "value" else None
    score, shares = float(found[0 if len(found) == 1 else number]), _shares(scale.kind, found)
    if output.scoring.threshold is not None:       # one score tells two classes apart
        assert shares is not None
        shares = np.array([1 - shares[0], shares[0]])
        found = np.array([1 - found[0], found[0]])
    names = labels_of(program, output)
    return Answer(
        input=shot.name, number=number,
        label=names[number] if names and number is not None else None, score=score,
        scores=found, shares=shares, cycles=cycles, ms_board=ms_board,
        ms_link=max(wall - ms_board, 0.0) if runner.linked else None,
        saturated=bool(result.saturated[0]))
