"""How pixels become a network's inputs, and what its outputs are called; stored with a program."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from celosia_spec.errors import ArgumentError
from celosia_spec.isa.numbers import EXPONENT_MAX

__all__ = ["LABELS_MAX", "LABEL_LENGTH", "Preprocessing", "of_pictures", "of_pixels", "scaled_by",
           "unscaled"]

LABELS_MAX = 10_000
"""Most names of outputs."""
LABEL_LENGTH = 200
"""Most characters of a name."""
INPUT_MAX = 2.0 ** (EXPONENT_MAX + 1)
"""Inputs are below this."""
_CHANNELS_MAX = 1 << 16
_PIXEL_MAX = 255
_MAP_AXES = 3
_CHANNELS = 1, 3, 4     # of pictures: grey, colours, and how opaque these are
_UNLIKE_MEAN = 2            # times as large as any pixel: no mean of these
_UNLIKE_DEVIATION = 8       # hardly a deviation; one of 2 or 3 makes inputs small on purpose
_FAR = 16           # times as large as inputs may be: numbers that are meant to be others


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """``x = (pixel * scale - mean) / deviation``, pixel by pixel, 0 to 255; and names of outputs.

    scale           : above 0; None where nothing is known of pixels: pictures are then refused.
    mean, deviation : a number for all channels, or one for each; deviations above 0.
    labels          : names of the outputs, the classes, in their order; () for none.

    What the networks that `celosia prune --data` trains take is `of_pixels`; torchvision's
    ``ToTensor`` is ``scale=1/255``. ArgumentError where a number is not finite, or an input would
    be `INPUT_MAX` or more, and for names that are empty, not printable, longer than `LABEL_LENGTH`
    or more than `LABELS_MAX`.
    """

    scale: float | None = None
    mean: tuple[float, ...] = (0.0,)
    deviation: tuple[float, ...] = (1.0,)
    labels: tuple[str, ...] = ()

    @property
    def unsigned(self) -> bool:
        """Whether it says that no input is below 0."""
        return self.scale is not None and max(self.mean) <= 0

    @property
    def largest(self) -> float:
        """The largest magnitude that a pixel has as an input; 0 where there is no scale."""
        return 0.0 if self.scale is None else float(np.abs(self._table()).max())

    def __post_init__(self) -> None:
        _check_labels(self.labels)
        scale = None if self.scale is None else _numbers("scale", self.scale)
        if scale is not None and (len(scale) != 1 or scale[0] <= 0):
            raise ArgumentError(f"scale must be one number above 0, such as 1/255, not "
                                f"{self.scale!r}")
        mean, deviation = _numbers("mean", self.mean), _numbers("deviation", self.deviation)
        if min(deviation) <= 0:
            raise ArgumentError(f"deviation must be above 0, not {min(deviation):g}")
        if len({len(mean), len(deviation)} - {1}) > 1:
            raise ArgumentError(f"mean has {len(mean)} numbers and deviation {len(deviation)}; "
                                f"give each one, or one for each channel")
        if scale is None and (mean, deviation) != ((0.0,), (1.0,)):
            raise ArgumentError("mean and deviation without a scale; give scale=1/255 where they "
                                "are those of pixels between 0 and 1")
        values = {"scale": None if scale is None else scale[0], "mean": mean,
                  "deviation": deviation, "labels": tuple(self.labels)}
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if scale is not None and not (np.abs(self._table()) < INPUT_MAX).all():
            raise ArgumentError(f"scale {scale[0]:g}, mean and deviation lead to inputs of "
                                f"{INPUT_MAX:g} and more, which no array takes; use numbers nearer "
                                f"to 1")

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is told of a mean and a deviation that seem to be of pixels before they are scaled.
        """
        if self.scale is None:
            return ()
        most = self.scale * _PIXEL_MAX
        wrong = [(name, largest) for name, largest, times in (
            ("mean", max(self.mean, key=abs), _UNLIKE_MEAN),
            ("deviation", max(self.deviation), _UNLIKE_DEVIATION))
            if times * most < abs(largest) and largest != 1]
        if not wrong:
            return ()
        said = " and ".join(f"{name} {largest:g}" for name, largest in wrong)
        if any(not 0 < largest <= _PIXEL_MAX for _, largest in wrong):
            return (f"{said}: scaled pixels are {most:.3g} at most; give what was found of such",)
        return (f"{said}: scaled pixels are {most:.3g} at most; what was found of "
                f"pixels up to {_PIXEL_MAX} has to be divided by {1 / self.scale:.4g}, as they "
                f"are, or scale is 1",)

    def inputs(self, pixels: Any) -> np.ndarray:
        """Return pixels, uint8 (N, C, H, W) or (N, H, W), as inputs float32 (N, C, H, W).

        They are computed in float64 and rounded once. ArgumentError for another type or shape, for
        another number of channels than of means, and where there is no scale.
        """
        pixels = np.asarray(pixels)
        if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
            raise ArgumentError(f"pixels must be uint8 (N, C, H, W) or (N, H, W), not "
                                f"{pixels.dtype} {pixels.shape}")
        if self.scale is None:
            raise ArgumentError("nothing says how pixels become inputs; give Preprocessing a scale")
        pixels = pixels.reshape(len(pixels), -1, *pixels.shape[-2:])
        self._check_channels(pixels.shape[1])
        table = self._table()
        result = np.empty(pixels.shape, np.float32)
        for channel in range(pixels.shape[1]):
            result[:, channel] = table[channel % len(table)][pixels[:, channel]]
        return result

    def check(self, channels: int, *classes: int) -> None:
        """ArgumentError unless it suits a network of so many input channels, whose outputs tell so
        many classes apart, each by itself."""
        self._check_channels(channels)
        if len(self.labels) not in (0, *classes):
            raise ArgumentError(f"{len(self.labels)} labels, and the network tells "
                                f"{' or '.join(map(str, classes))} classes apart; give each output "
                                f"one name, in their order")

    def __str__(self) -> str:
        if self.scale is None:
            return "nothing is known of pixels"
        mean, deviation = (
            f"{numbers[0]:.4g}" if len(numbers) == 1
            else "[" + " ".join(f"{number:.4g}" for number in numbers[:4])
            + (" ..." if len(numbers) > 4 else "") + "]" for numbers in (self.mean, self.deviation))
        whole = 1 / self.scale
        pixel = f"pixel / {whole:.0f}" if whole == round(whole) else f"pixel * {self.scale:.6g}"
        if (self.mean, self.deviation) == ((0.0,), (1.0,)):
            return f"x = {pixel}"
        return f"x = ({pixel} - {mean}) / {deviation}"

    def _check_channels(self, channels: int) -> None:
        own = max(len(self.mean), len(self.deviation))
        if own not in (1, channels):
            raise ArgumentError(f"mean and deviation of {own} channels, and there are {channels}; "
                                f"give one number, or one for each channel")

    def _table(self) -> np.ndarray:
        """Return the input of each pixel, float32 (1 or C, 256)."""
        mean, deviation = (np.array(numbers)[:, None] for numbers in (self.mean, self.deviation))
        with np.errstate(over="ignore", invalid="ignore"):
            values = (np.arange(256.0)[None] * (self.scale or 0.0) - mean) / deviation
            return np.asarray(values.astype(np.float32))


def of_pixels(mean: Any = None, deviation: Any = None) -> Preprocessing:
    """Return what networks take that are trained on a data set's pixels: ``pixel / 256``, which is
    exact; with both mean and deviation, ``(pixel / 255 - mean) / deviation``."""
    if mean is None or deviation is None:
        return Preprocessing(scale=1 / 256)
    return Preprocessing(scale=1 / 255, mean=mean, deviation=deviation)


def of_pictures(shape: Sequence[int], known: Preprocessing | None = None) -> bool:
    """Whether an input of a shape, without the batch axis, is a picture, so that uint8 are pixels:
    a map of 1, 3 or 4 channels; of any number where it is known how pixels become inputs.

    What is no picture takes uint8 as the numbers that they are.
    """
    if len(shape) != _MAP_AXES or min(shape[1:]) < 2:
        return False
    return shape[0] in _CHANNELS or (known is not None and known.scale is not None)


def scaled_by(known: Preprocessing | None, name: str = "program.preprocessing") -> str:
    """Return what is said of pixels that are given where a network's inputs are wanted.

    known : what a program knows of them.   name : how users write that.
    """
    if known is not None and known.scale is not None:
        return (f"pixels, and the program says how they become inputs; give {name}.inputs(pixels), "
                f"or numbers of another type")
    return ("pixels, and the program does not say how they become inputs; compile it with --scale "
            "1/255, --mean and --deviation as it was trained (preprocessing= in Python), or give "
            "inputs of float32")


def unscaled(values: np.ndarray, largest: float) -> bool:
    """Return whether inputs seem to be pixels as they are, 0 to 255, where inputs are no larger
    than ``largest`` by far."""
    if not values.size or not largest:
        return False
    most = float(values.max())
    return _FAR * largest < most <= _PIXEL_MAX and float(values.min()) >= 0


def _numbers(name: str, given: Any) -> tuple[float, ...]:
    """Return one number or several as floats; ArgumentError where one is none."""
    parts = [given] if np.ndim(given) == 0 else list(given)
    kinds = (int, float, np.integer, np.floating)
    if (not 0 < len(parts) <= _CHANNELS_MAX
            or not all(isinstance(part, kinds) and not isinstance(part, bool) for part in parts)
            or not all(math.isfinite(part) for part in parts)):
        raise ArgumentError(f"{name} must be one finite number, or one for each channel, not "
                            f"{str(given)[:60]}")
    return tuple(float(part) for part in parts)


def _check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str):
        raise ArgumentError("labels must be a sequence of names, not one string")
    if len(labels) > LABELS_MAX:
        raise ArgumentError(f"{len(labels)} labels, at most {LABELS_MAX} are stored")
    for label in labels:
        if (not isinstance(label, str) or not 0 < len(label) <= LABEL_LENGTH
                or not label.isprintable() or label != label.strip()):
            raise ArgumentError(f"label {str(label)[:40]!a} must be 1 to {LABEL_LENGTH} printable "
                                f"characters, without spaces around them")
