"""PyTorch in, float graph out. The only part of the compiler that imports torch."""

from celosia.frontend.importer import import_model

__all__ = ["import_model"]
