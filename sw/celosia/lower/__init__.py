"""Lowering: a quantised graph into the memory images of one array."""

from celosia.lower.lowering import Lowered, check_depths, lower, plan

__all__ = ["Lowered", "check_depths", "lower", "plan"]
