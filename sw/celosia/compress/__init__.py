"""Making networks smaller: removing weights and filters, factorising, fusing, block floating point.

A method is made of parts that combine freely: a criterion (`scores`, `filter_scores`), a schedule
(arguments of `prune`, `prune_filters`, ...) and a training loop (`FineTune`, or any callable).
"""

from __future__ import annotations

from celosia.compress.combined import CombinedReport, prune_combined
from celosia.compress.cost import Cost, measure
from celosia.compress.criteria import criterion, filter_scores, methods, scores
from celosia.compress.filters.mask_layer import (
    add_masks,
    fold_masks,
    mask_penalty,
    proximal_step,
    prune_with_masks,
    threshold_for,
)
from celosia.compress.filters.prune import FilterReport, prune_filters
from celosia.compress.fusion.fold import fold_average_pool, fold_batchnorm
from celosia.compress.fusion.fuse import FusionReport, fuse
from celosia.compress.lowrank.evbmf import evbmf
from celosia.compress.lowrank.factorise import (
    FactoriseReport,
    FactoriseRound,
    LayerRanks,
    factorise,
)
from celosia.compress.lowrank.svd import rank_for_energy, rank_for_speedup, svd
from celosia.compress.lowrank.tucker import tucker2, tucker_ranks
from celosia.compress.masks.weights import make_permanent
from celosia.compress.precision.emulate import emulate
from celosia.compress.precision.nsr import NsrReport, array_nsr, nsr
from celosia.compress.precision.partition import mean_bits
from celosia.compress.training.finetune import FineTune, flip_and_shift
from celosia.compress.training.journal import Journal
from celosia.compress.training.rounds import LayerDensity, RoundRecord, run_rounds
from celosia.compress.unread.drop import drop_unread
from celosia.compress.weights.cycles import CycleReport, prune_to_cycles
from celosia.compress.weights.prediction import cycle_costs
from celosia.compress.weights.prune import PruneReport, prune
from celosia.compress.weights.search import RateSearch, search_rates
from celosia_spec.block import bfp

__all__ = [
    "CombinedReport",
    "Cost",
    "CycleReport",
    "FactoriseReport",
    "FactoriseRound",
    "FilterReport",
    "FineTune",
    "FusionReport",
    "Journal",
    "LayerDensity",
    "LayerRanks",
    "NsrReport",
    "PruneReport",
    "RateSearch",
    "RoundRecord",
    "add_masks",
    "array_nsr",
    "bfp",
    "criterion",
    "cycle_costs",
    "drop_unread",
    "emulate",
    "evbmf",
    "factorise",
    "filter_scores",
    "flip_and_shift",
    "fold_average_pool",
    "fold_batchnorm",
    "fold_masks",
    "fuse",
    "make_permanent",
    "mask_penalty",
    "mean_bits",
    "measure",
    "methods",
    "nsr",
    "proximal_step",
    "prune",
    "prune_combined",
    "prune_filters",
    "prune_to_cycles",
    "prune_with_masks",
    "rank_for_energy",
    "rank_for_speedup",
    "run_rounds",
    "scores",
    "search_rates",
    "svd",
    "threshold_for",
    "tucker2",
    "tucker_ranks",
]
