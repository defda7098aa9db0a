"""LeNet-300-100: LeCun et al., "Gradient-based learning applied to document recognition",
Proc. IEEE 86(11), 1998, with ReLU, as pruning is often reported on it."""

from __future__ import annotations

from torch import nn

__all__ = ["LeNet300"]


class LeNet300(nn.Sequential):
    """Two hidden linear layers, 300 and 100 wide; 266,610 parameters.

    Forward: float32 (N, 1, 28, 28) to float32 logits (N, classes).
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100),
                         nn.ReLU(), nn.Linear(100, classes))
