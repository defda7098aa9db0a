"""What a network's outputs say: classes with their scores, or maps with their statistics."""

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from celosia.program import Program
from celosia.results import RunResult
from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import compute

__all__ = ["Evaluation", "Statistics", "best", "check_truth", "chosen", "evaluate", "scores",
           "statistics", "tells_classes"]


def tells_classes(program: Program) -> bool:
    """Whether each answer is one of several classes, and not a map or a lone number."""
    scoring = program.scoring
    return scoring.classes > 1 and math.prod(scoring.shape) in (1, scoring.classes)


def scores(program: Program, result: RunResult) -> np.ndarray:
    """Return the values that an answer is chosen by, float64 (N, elements): before an argmax."""
    values = compute(program.scoring.layers, result.values)
    return values.reshape(len(values), -1)


def chosen(program: Program, result: RunResult) -> np.ndarray:
    """Return the class of each input, int64 (N,); of equal scores the lowest index.

    program : one that tells classes apart (`tells_classes`).
    """
    found, threshold = scores(program, result), program.scoring.threshold
    if threshold is not None:
        return (found[:, 0] > threshold).astype(np.int64)
    return np.asarray(found.argmax(axis=1), np.int64)


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


def check_truth(program: Program, truth: np.ndarray, inputs: int) -> None:
    """CelosiaError unless true classes, int64 (N,), can be compared with a program's answers."""
    classes = program.scoring.classes
    if not tells_classes(program):
        shape = program.scoring.shape
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
