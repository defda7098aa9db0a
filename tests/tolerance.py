"""How far two right results may lie apart, from the number format: nothing is tuned to a machine.

Another processor sums in another order and fuses other operations. In the usual model (Higham,
"Accuracy and Stability of Numerical Algorithms", 2nd edition, 2.2 and 3.1) each operation errs by
at most u, half the format's epsilon, relatively, and a sum of n products, in any order, by at most
n u / (1 - n u) of the sum of their absolute values.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def rounding(operations: int, dtype: torch.dtype | type[np.floating] = np.float64) -> float:
    """Return how far two results of so many operations each may differ, in any order of them.

    operations : additions and roundings on the way to one number: the terms of a sum of products,
                 and one for each rounding more.
    dtype      : format of every step, numpy's or torch's.

    It is relative to the sum of the absolute values of what is added; to the result itself where
    nothing cancels.
    """
    u = float((torch if isinstance(dtype, torch.dtype) else np).finfo(dtype).eps) / 2
    return 2 * operations * u / (1 - operations * u)


def operations(model: nn.Module) -> int:
    """Return the operations of all layers of a network, one behind another, for `rounding`.

    A weight layer adds as many products as a row has weights, and a bias; a normalisation rounds
    four times. A layer is taken not to enlarge the relative error that reaches it, which holds
    where maps keep their size; counting terms, where errors of either sign add up to the root of
    their number only, leaves room for that.
    """
    total = 0
    for part in model.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            total += part.weight[0].numel() + 1
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            total += 4
    return total
