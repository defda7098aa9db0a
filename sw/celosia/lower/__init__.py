"""Lowering: a quantised graph into the memory images of one array."""

from celosia.lower.lowering import Lowered, check_depths, lower, plan
from celosia.lower.shortages import Outcome, attempt, attempt_weights

__all__ = ["Lowered", "Outcome", "attempt", "attempt_weights", "check_depths", "lower", "plan"]
