"""Reference networks, with the trained weights that come with the package."""

from celosia.models.lenet5 import LeNet5, lenet5_metadata, load_lenet5

__all__ = ["LeNet5", "lenet5_metadata", "load_lenet5"]
