"""How good a classification is."""

from __future__ import annotations

from typing import Any

import numpy as np

from celosia_spec.errors import ArgumentError

__all__ = ["accuracy"]


def accuracy(values: Any, labels: Any) -> float:
    """Return the share of inputs whose largest value is at the label's index.

    Ties go to the lowest index, as in the numerics' definition of arg-max.

    Parameters
    ----------
    values
        Logits, output values or output mantissas, (N, classes) or (N, classes, 1, 1), numpy array
        or torch tensor.
    labels
        Integers (N,), 0 to classes - 1.

    Returns
    -------
    A number from 0 to 1.

    Raises
    ------
    ArgumentError
        No inputs, shapes that do not fit each other, or a value that is not a number.
    """
    scores = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    wanted = np.asarray(labels)
    if scores.size == 0 or scores.ndim < 2 or wanted.shape != scores.shape[:1]:
        raise ArgumentError(
            f"values of shape {scores.shape} and labels of shape {wanted.shape} do not fit; "
            "expected (N, classes) and (N,) with N > 0"
        )
    scores = scores.reshape(len(scores), -1)
    if np.isnan(scores).any():
        raise ArgumentError("values hold NaN, so arg-max is undefined; check the network's output")
    return float(np.mean(scores.argmax(axis=1) == wanted))
