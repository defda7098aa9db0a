"""What a network's outputs say: classes with their scores, or maps with their statistics."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from celosia.program import Program
from celosia.results import RunResult
from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import compute
from celosia_spec.outputs import Output

__all__ = ["Evaluation", "Statistics", "best", "check_truth", "chosen", "evaluate", "labels_of",
           "scores", "statistics", "tells_classes"]


def tells_classes(output: Output) -> bool:
    """Whether each answer is one of several classes, and not a map or a lone number."""
    scoring = output.scoring
    return scoring.classes > 1 and math.prod(scoring.shape) in (1, scoring.classes)


def scores(program: Program, result: RunResult, name: str | None = None) -> np.ndarray:
    """Return the values that an answer is chosen by, float64 (N, elements): before an argmax.

    name : of the output, as `Program.output` takes it.
    """
    output = program.output(name)
    values = compute(output.scoring.layers, output.part(program.returned(result.values)))
    return values.reshape(len(values), -1)


def chosen(program: Program, result: RunResult, name: str | None = None) -> np.ndarray:
    """Return the class of each input, int64 (N,); of equal scores the lowest index.

    name : of an output that tells classes apart (`tells_classes`), as `Program.output` takes it.
    """
    found, threshold = scores(program, result, name), program.output(name).scoring.threshold
    if threshold is not None:
        return (found[:, 0] > threshold).astype(np.int64)
    return np.asarray(found.argmax(axis=1), np.int64)


def labels_of(program: Program, output: Output,
              names: Sequence[str] | None = None) -> Sequence[str]:
    """Return the names of an output's classes, or none: of a network with several outputs they are
    of those that tell as many apart.

    names : instead of those that are stored with the program.
    """
    if names is None:
        names = program.preprocessing.labels if program.preprocessing else ()
    return names if len(names) == output.scoring.classes else ()


def best(found: np.ndarray, most: int = 5) -> np.ndarray:
    """Return the indices of the largest scores, the largest first, int64 (N, most at most)."""
    return np.argsort(-found, axis=1, kind="stable")[:, :most]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How often N answers were right.

    accuracy : share of right ones.
    counts   : (true class, answer) to how many inputs.
    """

    accuracy: float
    counts: dict[tuple[int, int], int]

    @property
    def confusions(self) -> list[tuple[int, int, int]]:
        """(true class, wrong answer, inputs), the most frequent first."""
        return sorted(((true, answer, count) for (true, answer), count in self.counts.items()
                       if true != answer), key=lambda wrong: (-wrong[2], wrong))


def evaluate(answers: np.ndarray, truth: np.ndarray) -> Evaluation:
    """Compare answers and true classes, int64 (N,) each."""
    counts = Counter(zip(truth.tolist(), answers.tolist(), strict=True))
    return Evaluation(accuracy=float(np.mean(answers == truth)), counts=dict(counts))


def check_truth(output: Output, truth: np.ndarray, inputs: int) -> None:
    """CelosiaError unless true classes, int64 (N,), can be compared with an output's answers."""
    classes = output.scoring.classes
    if not tells_classes(output):
        shape = output.scoring.shape
        what = ("one number, which a Sigmoid at its end would make a class"
                if math.prod(shape) == 1 else f"a map of the shape {shape}")
        raise CelosiaError(f"the network answers with {what}: it has no classes to compare with "
                           f"the true ones")
    if truth.shape != (inputs,):
        raise CelosiaError(f"true classes of the shape {truth.shape} for {inputs} inputs; give one "
                           f"for each")
    if truth.max() >= classes:
        raise CelosiaError(f"a true class is {int(truth.max())}, and the network tells {classes} "
                           f"apart, 0 to {classes - 1}")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of some values: least, mean and largest."""

    min: float
    mean: float
    max: float


def statistics(values: np.ndarray) -> Statistics:
    """Return the statistics of an array that is not empty."""
    return Statistics(min=float(values.min()), mean=float(values.mean()), max=float(values.max()))
