"""Making networks smaller: removing weights and filters, factorising, fusing, block floating point.

A method is made of parts that combine freely: a criterion (`scores`, `filter_scores`), a schedule
(arguments of `prune`, `prune_filters`, ...) and a training loop (`FineTune`, or any callable).
"""

from __future__ import annotations

from celosia.compress.ae_lip import ae_lip as _ae_lip
from celosia.compress.bfp import bfp
from celosia.compress.combined import CombinedReport, prune_combined
from celosia.compress.correlation import correlation as _correlation
from celosia.compress.cost import Cost, measure
from celosia.compress.criteria import criterion, methods, scores
from celosia.compress.cycles import CycleReport, prune_to_cycles
from celosia.compress.emulate import emulate
from celosia.compress.evbmf import evbmf
from celosia.compress.factorise import FactoriseReport, FactoriseRound, LayerRanks, factorise
from celosia.compress.filters import filter_scores
from celosia.compress.finetune import FineTune, flip_and_shift
from celosia.compress.fold import fold_average_pool, fold_batchnorm
from celosia.compress.fusion import FusionReport, fuse
from celosia.compress.journal import Journal
from celosia.compress.mask_layer import (
    add_masks,
    fold_masks,
    mask_penalty,
    proximal_step,
    prune_with_masks,
    threshold_for,
)
from celosia.compress.masks import make_permanent
from celosia.compress.nsr import NsrReport, array_nsr, nsr
from celosia.compress.partition import mean_bits
from celosia.compress.prediction import cycle_costs
from celosia.compress.prune import PruneReport, prune
from celosia.compress.rounds import LayerDensity, RoundRecord, run_rounds
from celosia.compress.search import RateSearch, search_rates
from celosia.compress.structured import FilterReport, prune_filters
from celosia.compress.svd import rank_for_energy, rank_for_speedup, svd
from celosia.compress.tucker import tucker2, tucker_ranks

del _ae_lip, _correlation      # importing them made their methods known

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
