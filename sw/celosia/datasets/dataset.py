"""Images and labels of two splits, and how images become network inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from celosia_spec.errors import ArgumentError, CelosiaError
from celosia_spec.preprocessing import of_pixels

__all__ = ["MAX_CLASSES", "Dataset", "DatasetError", "as_inputs", "damage", "input_rule"]

MAX_CLASSES = 1 << 20
"""Labels are below this."""


class DatasetError(CelosiaError, ValueError):
    """A data file is damaged or is not what its name says."""


@contextmanager
def damage() -> Iterator[None]:
    """Turn what `celosia.reading` and `celosia_spec.files` refuse into DatasetError."""
    try:
        yield
    except DatasetError:
        raise
    except CelosiaError as problem:
        raise DatasetError(str(problem)) from None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels, for training and for testing.

    name                      : what the set is called in results.
    train_images, test_images : uint8 (N, H, W) or (N, C, H, W); or float32 (N, ...), every value
                                finite, which are inputs already.
    train_labels, test_labels : int64 (N,), 0 to `MAX_CLASSES` - 1.
    classes                   : their names, where the set brings some; else ().

    Raises DatasetError if the parts are not that or do not belong together.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for split in ("train", "test"):
            images, labels = getattr(self, f"{split}_images"), getattr(self, f"{split}_labels")
            _check_split(f"{self.name}: {split}_images", images, f"{split}_labels", labels)
        train, test = self.train_images, self.test_images
        if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
            raise DatasetError(
                f"{self.name}: train_images are {train.dtype} {train.shape[1:]} each and "
                f"test_images {test.dtype} {test.shape[1:]}; both must be alike"
            )


def as_inputs(
    images: np.ndarray,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
) -> np.ndarray:
    """Turn images into network inputs.

    uint8 images without `mean` and `deviation` become ``pixel / 256``, as
    `celosia.datasets.preprocess` does and for its reasons; with them
    ``(pixel / 255 - mean) / deviation``, channel by channel, as most published networks want it.
    float32 images are inputs already: they stay, or become ``(value - mean) / deviation``.

    Parameters
    ----------
    images
        uint8 (N, H, W) or (N, C, H, W), or float32 (N, ...).
    mean, deviation
        A number for each channel, or one for all; deviations above 0. Both or neither.

    Returns
    -------
    float32 array (N, C, H, W), C-contiguous; C = 1 for uint8 (N, H, W). float32 images keep their
    shape.

    Raises
    ------
    TypeError
        The images are neither uint8 nor float32.
    ArgumentError
        Another shape; only one of `mean` and `deviation`; not as many as channels; a deviation
        that is not above 0.
    """
    images = np.asarray(images)
    if images.dtype not in (np.uint8, np.float32):
        raise TypeError(f"images must be uint8 or float32, not {images.dtype}")
    if images.dtype == np.uint8:
        if images.ndim not in (3, 4):
            raise ArgumentError(
                f"uint8 images must be (N, H, W) or (N, C, H, W), not {images.shape}"
            )
        images = images.reshape(len(images), -1, *images.shape[-2:])
    input_rule(images, mean, deviation)
    if images.dtype == np.uint8:
        return of_pixels(mean, deviation).inputs(images)
    values = images.astype(np.float32)
    if mean is None or deviation is None:
        return values
    shape = (-1,) + (1,) * (images.ndim - 2)
    values -= np.asarray(mean, np.float32).reshape(shape)
    values /= np.asarray(deviation, np.float32).reshape(shape)
    return values


def as_labels(where: object, array: np.ndarray) -> np.ndarray:
    """Return classes of inputs as int64 (N,); DatasetError unless they are whole and in range."""
    if not np.array_equal(array, np.floor(array)) or not (array < MAX_CLASSES).all():
        raise DatasetError(f"{where} must be whole numbers, the classes 0, 1, ..., below "
                           f"{MAX_CLASSES}")
    labels = array.astype(np.int64)
    _check_labels(where, labels)
    return labels


def input_rule(
    images: np.ndarray,
    mean: Sequence[float] | None = None,
    deviation: Sequence[float] | None = None,
) -> dict[str, str | list[float]]:
    """Return what `as_inputs` does to images, as JSON has it, for the record of a run.

    Parameters and ArgumentError as there.
    """
    if (mean is None) != (deviation is None):
        raise ArgumentError("give both mean and deviation, or neither")
    pixels = images.dtype == np.uint8
    if mean is None or deviation is None:
        return {"inputs": f"pixel / {_divisor()}" if pixels else "as given"}
    means, deviations = (np.atleast_1d(np.asarray(part, float)) for part in (mean, deviation))
    channels = images.shape[1] if images.ndim != 3 or not pixels else 1
    for name, part in (("mean", means), ("deviation", deviations)):
        if part.shape not in ((1,), (channels,)) or not np.isfinite(part).all():
            raise ArgumentError(f"{name} must be one finite number or {channels}, one for each "
                                f"channel, not {part.tolist()}")
    if not (deviations > 0).all():
        raise ArgumentError(f"deviation must be above 0, not {deviations.tolist()}")
    scaled = f"pixel / {_divisor(mean, deviation)}" if pixels else "value"
    return {"inputs": f"({scaled} - mean) / deviation", "mean": means.tolist(),
            "deviation": deviations.tolist()}


def _divisor(*rule: Any) -> int:
    """Return what pixels are divided by, given `of_pixels`' arguments."""
    scale = of_pixels(*rule).scale
    assert scale is not None
    return round(1 / scale)


def _check_split(where: str, images: np.ndarray, labels_name: str, labels: np.ndarray) -> None:
    """Raise DatasetError unless images and labels are as `Dataset` says."""
    if images.dtype == np.uint8:
        if images.ndim not in (3, 4):
            raise DatasetError(f"{where} must be (N, H, W) or (N, C, H, W) if uint8, not "
                               f"{images.shape}")
    elif images.dtype != np.float32 or images.ndim < 2:
        raise DatasetError(f"{where} must be uint8 pictures or float32 (N, ...), not "
                           f"{images.dtype} {images.shape}")
    elif not np.isfinite(images).all():
        raise DatasetError(f"{where} has values that are NaN or infinite; remove them first")
    if 0 in images.shape:
        raise DatasetError(f"{where} is empty, shape {images.shape}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise DatasetError(f"{where} has {len(images)} images, so {labels_name} must be int64 of "
                           f"shape ({len(images)},), not {labels.dtype} {labels.shape}")
    _check_labels(f"{where}: {labels_name}", labels)


def _check_labels(where: object, labels: np.ndarray) -> None:
    """Raise DatasetError unless labels are in range."""
    for label in (labels.min(initial=0), labels.max(initial=0)):
        if not 0 <= label < MAX_CLASSES:
            raise DatasetError(f"{where} has label {label}, which is "
                               f"{'below 0' if label < 0 else f'above {MAX_CLASSES - 1}'}")
