"""Lowering: a quantised graph into the memory images of one array."""

from celosia.lower.lowering import lower

__all__ = ["lower"]
