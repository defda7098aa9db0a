"""Criteria: one file each, and importing it here makes it known; `registry` says what one is."""

from celosia.compress.criteria import ae_lip, correlation, filters, magnitude

__all__ = ["ae_lip", "correlation", "filters", "magnitude"]
