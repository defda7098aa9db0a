"""How important is each weight, or each filter? One file a method; importing it makes it known."""

from __future__ import annotations

from celosia.compress.criteria import ae_lip, correlation, magnitude
from celosia.compress.criteria.filters import filter_scores
from celosia.compress.criteria.registry import criterion, methods, scores

__all__ = ["ae_lip", "correlation", "criterion", "filter_scores", "magnitude", "methods", "scores"]
