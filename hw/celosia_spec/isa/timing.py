"""Latencies and fixed costs of the machine, in cycles. Plain Python: the gateware builds what
stands here, the cycle model adds it up."""

from dataclasses import dataclass

from celosia_spec.isa.array import ArrayConfig
from celosia_spec.isa.descriptor import DESCRIPTOR_WORDS, PREFETCH_WORDS

MIN_PASS = 4
"""A pass takes at least so many cycles: the next tile and batch length are fetched meanwhile."""

LOAD, CHECK, LENGTH, EXPONENT = DESCRIPTOR_WORDS + 3, 1, 1, 3
"""Cycles of the sequencer's states before and behind the steps of a layer. During a normalising
walk of n cycles, ``min(n, Timing.prefetch)`` cycles of the next layer's LOAD are done already."""

MULTIPLY = 2
"""Operands to product."""

ACCUMULATE = MULTIPLY + 2
"""Operands with the last flag to the pass's sums in the shadow registers."""

BLOCK_EXPONENT = 4
"""An element to its effect on the block exponent."""

REPORT = 1
"""The last beat of a walk to the output stage's report of it."""

WALK_AHEAD = 4
"""Cycles of the normalising walk that pass before the block exponent is ready: its first beat
reaches the rounding just then."""


@dataclass(frozen=True)
class Timing:
    """Latencies of one array.

    stream    : weight address to decoded operand.   banks : decoded operand to lane operands.
    align     : bias mantissa to aligned bias.       requantise : accumulator to mantissa.
    store     : address of the accumulator store to its data.
    sum_stage, round_stage, end_stage : stages of the output pipeline, counted from the walker's:
                sums enter, accumulators leave for rounding, mantissas leave.
    """

    stream: int
    banks: int
    align: int
    requantise: int
    store: int
    sum_stage: int
    round_stage: int
    end_stage: int
    prefetch: int

    @classmethod
    def of(cls, array: ArrayConfig) -> "Timing":
        deep = int(array.deep)
        align, requantise = 2 + deep, 1 + 2 * deep
        sum_stage = 1 + deep + align
        # An array that replicates has no multiplexer behind the weight memory.
        return cls(stream=5 + 2 * deep - (array.replicate and not deep), banks=1 + 4 * deep,
                   align=align, requantise=requantise, store=1 + deep, sum_stage=sum_stage,
                   round_stage=sum_stage + 2,
                   end_stage=sum_stage + 2 + requantise,
                   prefetch=PREFETCH_WORDS - 3 * deep)

    @property
    def drain_lead(self) -> int:
        """Cycles from the drain strobe to the first beat of sums."""
        return self.sum_stage + 1

    @property
    def drain(self) -> int:
        """Cycles from the step with the last flag to its drain strobe."""
        return self.stream + self.banks + ACCUMULATE - self.drain_lead

    @property
    def flush(self) -> int:
        """Cycles from the report of a walk's end until the block exponent is complete."""
        return self.round_stage + BLOCK_EXPONENT - REPORT

    @property
    def settle(self) -> int:
        """Cycles from the report of a walk's end until its last effect."""
        return self.end_stage + 3 - REPORT
