"""Reference networks, with the trained weights that come with the package."""

from celosia.models.alexnet import AlexNet
from celosia.models.lenet5 import LENET5_PREPROCESSING, LeNet5, lenet5_metadata, load_lenet5
from celosia.models.resnet import ResNet
from celosia.models.restoration import VDSR, DnCNN
from celosia.models.vgg import VGG16, VGG16_PRUNED_A, VGG16_WIDTHS

__all__ = [
    "LENET5_PREPROCESSING",
    "VDSR",
    "VGG16",
    "VGG16_PRUNED_A",
    "VGG16_WIDTHS",
    "AlexNet",
    "DnCNN",
    "LeNet5",
    "ResNet",
    "lenet5_metadata",
    "load_lenet5",
]
