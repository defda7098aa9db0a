"""AE-LIP's criterion: how much a connection contributes, times how much it tells.

P1: Chen, Mao, Wang, "CNN model compression by activation-entropy layer-wise iterative pruning",
J. Computer Applications 40(5), 2020. Its other half, layer after layer in rounds with retraining,
is the schedule: ``prune(..., order="forward", rounds=I)``.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from celosia.compress.criteria.registry import Scores, Scoring, criterion
from celosia.compress.options import option
from celosia_spec.errors import ArgumentError

__all__ = ["FORMS", "SPANS", "AeLipOptions", "ae_lip"]

FORMS = ("product", "normalised_sum")
"""How contribution and entropy make one score."""

SPANS = ("own", "layer")
"""What range the intervals of a histogram divide."""


@dataclass(frozen=True, kw_only=True)
class AeLipOptions:
    """Options of "ae-lip"; ArgumentError where one is out of range.

    score      : "product": ``C * H``. "normalised_sum": ``C / max C + H / max H``, the maxima over
                 the layer. P1's own formula (7) is not available; both rise with C and with H.
    intervals  : D, at least 2; P1 does not give it.
    samples    : K, at least 1; P1 does not give it.
    span       : "own": the intervals divide the range of each product by itself, so that
                 H(w x) = H(x) for any w but 0, and an input has one entropy. "layer": they divide
                 the range of all products of the layer, so that a smaller weight has a smaller
                 entropy too; slower.
    batch_size : samples that the model gets at once.
    """

    score: str = option("product", choices=FORMS,
                        about="product, or normalised_sum of contribution and entropy")
    intervals: int = option(16, about="of the histograms, at least 2")
    samples: int = option(1000, about="drawn from the calibration inputs")
    span: str = option("own", choices=SPANS,
                       about="own, or layer: the range that the intervals divide")
    batch_size: int = option(64, about="samples that the network gets at once")

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.intervals < 2 or self.samples < 1:
            raise ArgumentError(f"intervals must be at least 2 and samples at least 1, not "
                                f"{self.intervals!r}, {self.samples!r}")


@criterion("ae-lip", of="weights", options=AeLipOptions)
def ae_lip(scoring: Scoring, options: AeLipOptions) -> Scores:
    """Score a weight by the mean and the entropy of its product with its input (P1 eq. 4 to 7).

    Over `samples` inputs drawn from the calibration set (at least 1; all are used if there are not
    more), weight w on input x has the contribution ``C = |E(w x)|`` and the entropy
    ``H = - sum_z p_z log p_z`` (natural), p_z the share of the products w x that lies in interval
    z. A weight of 0 and an input that is always 0 score 0.

    A convolution is our extension, P1 prunes linear layers: x is then an element of the patch that
    an output position sees, at one position drawn at random for each of the inputs drawn.

    Memory is `samples` numbers for each input of each layer. Scores are at least 0.

    Raises ArgumentError without inputs, and for a layer that never runs.
    """
    from celosia.compress.criteria.entropy import contribution_and_entropy

    return contribution_and_entropy(scoring, **asdict(options))
