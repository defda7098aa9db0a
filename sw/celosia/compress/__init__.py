"""Making networks smaller: scoring and removing weights, and block floating point."""

from __future__ import annotations

from celosia.compress.bfp import bfp
from celosia.compress.criteria import criterion, methods, scores
from celosia.compress.finetune import FineTune, flip_and_shift
from celosia.compress.masks import make_permanent
from celosia.compress.prune import LayerDensity, PruneReport, RoundRecord, prune

__all__ = [
    "FineTune",
    "LayerDensity",
    "PruneReport",
    "RoundRecord",
    "bfp",
    "criterion",
    "flip_and_shift",
    "make_permanent",
    "methods",
    "prune",
    "scores",
]
