"""Data sets as people have them: Fashion-MNIST, CIFAR-10, folders of pictures, .npz files.

`load_dataset` tells by the content which it is. Another kind joins as one small class with the
decorator `loader`.
"""

from __future__ import annotations

from celosia.datasets.archive import Archive
from celosia.datasets.cifar10 import Cifar10
from celosia.datasets.dataset import MAX_CLASSES, Dataset, DatasetError, as_inputs, input_rule
from celosia.datasets.fashion_mnist import (
    CLASSES,
    SYSTEM_FOLDER,
    FashionMnist,
    load_fashion_mnist,
    preprocess,
    read_idx,
    shipped_test_images,
)
from celosia.datasets.kinds import Loader, loader
from celosia.datasets.loading import load_dataset
from celosia.datasets.pictures import Pictures

__all__ = [
    "CLASSES",
    "MAX_CLASSES",
    "SYSTEM_FOLDER",
    "Archive",
    "Cifar10",
    "Dataset",
    "DatasetError",
    "FashionMnist",
    "Loader",
    "Pictures",
    "as_inputs",
    "input_rule",
    "load_dataset",
    "load_fashion_mnist",
    "loader",
    "preprocess",
    "read_idx",
    "shipped_test_images",
]
