"""Criteria: one file each, and importing it here makes it known; `registry` says what one is."""

from __future__ import annotations

from celosia.compress.criteria import ae_lip, correlation, magnitude
from celosia.compress.criteria.filters import filter_scores
from celosia.compress.criteria.registry import criterion, methods, scores

__all__ = ["ae_lip", "correlation", "criterion", "filter_scores", "magnitude", "methods", "scores"]
