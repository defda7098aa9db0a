"""Reference networks, with the trained weights that come with the package."""

from celosia.models.alexnet import AlexNet
from celosia.models.autoencoder import ConvAutoencoder
from celosia.models.ecg import ECGNet
from celosia.models.lenet5 import LENET5_PREPROCESSING, LeNet5, lenet5_metadata, load_lenet5
from celosia.models.mlperf_tiny import DSCNN, FCAutoencoder, MobileNetV1, Wakeword
from celosia.models.mobilenet_v2 import MobileNetV2
from celosia.models.perceptron import LeNet300
from celosia.models.resnet import ResNet
from celosia.models.restoration import VDSR, DnCNN
from celosia.models.squeezenet import SqueezeNet
from celosia.models.unet import UNet
from celosia.models.vgg import VGG16, VGG16_PRUNED_A, VGG16_WIDTHS
from celosia.models.yolo import TinyYOLO

__all__ = [
    "DSCNN",
    "LENET5_PREPROCESSING",
    "VDSR",
    "VGG16",
    "VGG16_PRUNED_A",
    "VGG16_WIDTHS",
    "AlexNet",
    "ConvAutoencoder",
    "DnCNN",
    "ECGNet",
    "FCAutoencoder",
    "LeNet5",
    "LeNet300",
    "MobileNetV1",
    "MobileNetV2",
    "ResNet",
    "SqueezeNet",
    "TinyYOLO",
    "UNet",
    "Wakeword",
    "lenet5_metadata",
    "load_lenet5",
]
