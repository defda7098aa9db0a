"""Neuron correlation: a connection matters as much as its two ends move together.

Sun, Wang, Tang, "Sparsifying neural network connections for face recognition", CVPR 2016,
arXiv 1512.01891; used by P0, P1 (as a baseline) and P3.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from celosia.compress.criteria.registry import ACTIVATIONS, Scores, Scoring, criterion
from celosia.compress.options import option
from celosia_spec.errors import ArgumentError

__all__ = ["CorrelationOptions", "correlation"]


@dataclass(frozen=True, kw_only=True)
class CorrelationOptions:
    """Options of "correlation"; ArgumentError where one is out of range.

    activation : the neuron's activation: "post" the activation function, or "pre"; see
                 `celosia.compress.criteria.statistics.observe`.
    signed     : True keeps the sign of r in Linear layers, as `select="sun2016"` wants it. A
                 convolution's score is a mean of absolute values in any case.
    positions  : work on at most so many output positions of a convolution, drawn at random; None
                 is all.
    batch_size : samples that the model gets at once; no influence on the scores beyond rounding.
    """

    activation: str = option("post", choices=ACTIVATIONS,
                             about="post, or pre the activation function")
    signed: bool = option(False, about="keep the sign of linear layers' correlations")
    positions: int | None = option(None, about="most output positions of a convolution; all")
    batch_size: int = option(64, about="samples that the network gets at once")

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.positions is not None and self.positions < 1:
            raise ArgumentError(f"positions must be None or at least 1, not {self.positions!r}")


@criterion("correlation", of="weights", options=CorrelationOptions)
def correlation(scoring: Scoring, options: CorrelationOptions) -> Scores:
    """Score a weight by the correlation of the neuron with its input (Sun et al., eq. 1 and 2).

    Linear: ``|r_ik|``, r Pearson's correlation coefficient of neuron i's activation and its k-th
    input over the samples. Convolution: the mean of ``|r|`` over the output positions, each
    position with its own means and deviations; k counts the elements of the patch that it sees. A
    deviation of zero (a dead neuron, a tap in the padding) gives r = 0. Scores are in [0, 1], or
    in [-1, 1] if signed.

    It takes at least 2 inputs; some hundred are needed for figures that mean something.

    Memory for sums is 8 bytes for each weight and, in a convolution, output position; where that
    exceeds `pearson.ACCUMULATOR_BYTES` (512 MiB) the inputs are run through the model several
    times.

    Raises ArgumentError for fewer than 2 inputs, and for a layer that never runs, or runs on maps
    of several sizes.
    """
    from celosia.compress.criteria.pearson import correlations

    return correlations(scoring, **asdict(options))
