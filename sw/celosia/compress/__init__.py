"""Making networks smaller: removing weights and filters, factorising, fusing, block floating point.

A method is made of parts that combine freely: a criterion (`scores`, `filter_scores`), a schedule
(arguments of `prune`, `prune_filters`, ...) and a training loop (`FineTune`, or any callable).
"""

TYPE_CHECKING = False       # typing takes longer to import than all of this
if TYPE_CHECKING:
    from celosia.compress.combined import CombinedReport, prune_combined
    from celosia.compress.cost import Cost, measure
    from celosia.compress.criteria.registry import criterion, methods
    from celosia.compress.criteria.scoring import filter_scores, scores
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
    from celosia.compress.precision.in_format import InFormat, in_format
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
    "InFormat",
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
    "in_format",
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

_HOMES = {name: home for home, names in {
    "celosia.compress.combined": "CombinedReport prune_combined",
    "celosia.compress.cost": "Cost measure",
    "celosia.compress.criteria.registry": "criterion methods",
    "celosia.compress.criteria.scoring": "filter_scores scores",
    "celosia.compress.filters.mask_layer":
        "add_masks fold_masks mask_penalty proximal_step prune_with_masks threshold_for",
    "celosia.compress.filters.prune": "FilterReport prune_filters",
    "celosia.compress.fusion.fold": "fold_average_pool fold_batchnorm",
    "celosia.compress.fusion.fuse": "FusionReport fuse",
    "celosia.compress.lowrank.evbmf": "evbmf",
    "celosia.compress.lowrank.factorise": "FactoriseReport FactoriseRound LayerRanks factorise",
    "celosia.compress.lowrank.svd": "rank_for_energy rank_for_speedup svd",
    "celosia.compress.lowrank.tucker": "tucker2 tucker_ranks",
    "celosia.compress.masks.weights": "make_permanent",
    "celosia.compress.precision.emulate": "emulate",
    "celosia.compress.precision.in_format": "InFormat in_format",
    "celosia.compress.precision.nsr": "NsrReport array_nsr nsr",
    "celosia.compress.precision.partition": "mean_bits",
    "celosia.compress.training.finetune": "FineTune flip_and_shift",
    "celosia.compress.training.journal": "Journal",
    "celosia.compress.training.rounds": "LayerDensity RoundRecord run_rounds",
    "celosia.compress.unread.drop": "drop_unread",
    "celosia.compress.weights.cycles": "CycleReport prune_to_cycles",
    "celosia.compress.weights.prediction": "cycle_costs",
    "celosia.compress.weights.prune": "PruneReport prune",
    "celosia.compress.weights.search": "RateSearch search_rates",
    "celosia_spec.block": "bfp",
}.items() for name in names.split()}

if not TYPE_CHECKING:
    def __getattr__(name):
        """Import what is there under a name when it is first used: most of it needs torch."""
        import importlib

        from celosia.extras import names_extra

        if name in _HOMES:
            return getattr(names_extra(importlib.import_module)(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
