"""Inputs for a program from files as people have them: pictures, arrays, data sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from celosia.datasets import load_dataset, load_fashion_mnist
from celosia.datasets.dataset import as_labels
from celosia.datasets.pictures import SUFFIXES, open_picture, pictures_in, pillow
from celosia.reading import MAX_BYTES, ZipReader, load_npy
from celosia.results import as_images
from celosia_spec.errors import CelosiaError
from celosia_spec.files import open_file
from celosia_spec.preprocessing import of_pictures, scaled_by

if TYPE_CHECKING:
    from celosia.program import Program

__all__ = ["Samples", "from_array", "from_picture", "read_samples"]

_FASHION_MNIST = "fashion-mnist"
_PICTURE = (b"\x89PNG", b"\xff\xd8\xff")
_TAKES = "give pictures (PNG or JPEG), a .npy or .npz file of inputs, or a data set"
_SPLIT = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False, kw_only=True)
class Samples:
    """What a program is run on.

    inputs  : float32 (N, ...), of the network's input shape.   names : of N pictures, or ().
    truth   : int64 (N,), the class of each input, or None.
    classes : what their source calls the classes that truth counts, or ().
    """

    inputs: np.ndarray
    names: tuple[str, ...] = ()
    truth: np.ndarray | None = None
    classes: tuple[str, ...] = ()


def read_samples(sources: Sequence[Path], program: Program, limit: int | None = None) -> Samples:
    """Return the inputs in files, told by their content, and their classes where these are there.

    sources : several pictures; or one folder of pictures, ``.npy`` file, ``.npz`` file with an
              array ``images`` and perhaps ``labels`` (of a network that takes several tensors
              an array of each, by its name), or data set (`celosia.datasets`), whose test
              images are taken.
    limit   : take only the first so many.

    Pictures are stretched to the network's height and width (bilinear), made grey or RGB as it has
    one channel or three, and become inputs as ``program.preprocessing`` says; so do arrays of
    uint8, unless the network takes what has their shape and is no picture. CelosiaError where a
    file is not sound, does not fit the network, or is of pixels and nothing says how they become
    inputs.
    """
    if len(sources) > 1 or sources[0].is_dir():
        files = _pictures(sources)
        if files:
            return _from_pictures(files[:limit], program)
        return _from_dataset(sources[0], program, limit)
    path = sources[0]
    if str(path) == _FASHION_MNIST and not path.exists():
        return _from_arrays(path, *load_fashion_mnist("test"), program, limit)
    with open_file(path, MAX_BYTES) as stream:
        head = stream.read(8)
    if head.startswith(_PICTURE):
        return _from_pictures([path], program)
    if head.startswith(b"PK\3\4"):
        return _from_archive(path, program, limit)
    if head.startswith(b"\x93NUMPY") or path.suffix.lower() == ".npy":
        return _from_arrays(path, load_npy(path), None, program, limit)
    raise CelosiaError(f"{path}: neither a picture nor an array; {_TAKES}")


def _pictures(sources: Sequence[Path]) -> list[Path]:
    """Return the pictures that are named, or in the one folder; [] where that has another form."""
    if len(sources) > 1:
        folders = [path for path in sources if path.is_dir()]
        if folders:
            raise CelosiaError(f"{folders[0]}: a folder among several inputs; give it alone")
        return list(sources)
    held = [entry for entry in sources[0].iterdir() if entry.suffix.lower() in SUFFIXES]
    return pictures_in(sources[0]) if any(entry.is_file() for entry in held) else []


def _from_dataset(path: Path, program: Program, limit: int | None) -> Samples:
    data = load_dataset(path)
    found = _from_arrays(path, data.test_images, data.test_labels, program, limit)
    return replace(found, classes=data.classes)


def _from_archive(path: Path, program: Program, limit: int | None) -> Samples:
    with open_file(path, MAX_BYTES) as stream:
        archive = ZipReader(stream, path, packed=True)
        names = [name.removesuffix(".npy") for name in archive.names]
        if program.takes:
            return _of_several(path, archive, names, program, limit)
        if any(name in names for name in _SPLIT):
            return _from_dataset(path, program, limit)
        if "images" not in names:
            raise CelosiaError(f"{path}: has no array images; write it with numpy.savez(file, "
                               f"images=..., labels=...), or as a data set")
        images = archive.array("images.npy")
        labels = archive.array("labels.npy") if "labels" in names else None
    return _from_arrays(path, images, labels, program, limit)


def _of_several(path: Path, archive: ZipReader, names: Sequence[str], program: Program,
                limit: int | None) -> Samples:
    """Return the inputs of a network that takes several tensors, each under its name."""
    wanted = [one.name for one in program.takes]
    if missing := [name for name in wanted if name not in names]:
        raise CelosiaError(f"{path}: has no array {', '.join(missing)}; write it with "
                           f"numpy.savez(file, {'=..., '.join(wanted)}=...)")
    inputs = as_images(program, {name: archive.array(f"{name}.npy") for name in wanted})
    labels = archive.array("labels.npy") if "labels" in {*names} - {*wanted} else None
    truth = None if labels is None else as_labels(f"{path}: labels", labels)
    return Samples(inputs=inputs[:limit], truth=None if truth is None else truth[:limit])


def _from_arrays(path: Path | str, images: np.ndarray, labels: np.ndarray | None, program: Program,
                 limit: int | None) -> Samples:
    """Return images as inputs; those of uint8 are pixels, unless the network takes what has their
    shape and is no picture."""
    truth = None
    if labels is not None:
        truth = as_labels(f"{path}: labels", labels)
        if truth.shape != images.shape[:1]:
            raise CelosiaError(f"{path}: labels of the shape {truth.shape} for images of the shape "
                               f"{images.shape}; give one for each image")
    images = images[:limit] if images.ndim else images
    if images.dtype == np.uint8 and images.ndim in (3, 4) and not program.takes and (
            images.shape[1:] != (wanted := _takes(program))
            or of_pictures(wanted, program.preprocessing)):
        images = _pixels(path, images, program)
    return Samples(inputs=as_images(program, images),
                   truth=None if truth is None else truth[:limit])


def _from_pictures(files: Sequence[Path], program: Program) -> Samples:
    first = open_picture(files[0])
    size = _size(files[0], first, program)
    stack = np.empty((len(files), *size), np.uint8)
    for at, file in enumerate(files):
        stack[at] = _fitted(open_picture(file) if at else first, size)
    return Samples(inputs=as_images(program, _pixels(files[0], stack, program)),
                   names=tuple(file.name for file in files))


def from_picture(where: Path | str, picture: Any, program: Program) -> np.ndarray:
    """Return one picture of Pillow's, in mode L or RGB, as an input, float32 (1, ...).

    where : what a refusal calls it.   CelosiaError as `read_samples`.
    """
    pixels = _fitted(picture, _size(where, picture, program))
    return as_images(program, _pixels(where, pixels[None], program))


def from_array(where: Path | str, images: np.ndarray, program: Program) -> np.ndarray:
    """Return an array (N, ...) as inputs, float32: of uint8, which are pixels, as the program says,
    of other types as they are. Errors as `read_samples`."""
    return _from_arrays(where, images, None, program, None).inputs


def _takes(program: Program) -> tuple[int, ...]:
    return tuple(program.graph.tensors[program.graph.input].user_shape)


def _fitted(picture: Any, size: tuple[int, int, int]) -> np.ndarray:
    """Return a picture's pixels, uint8 (C, H, W), stretched to a size."""
    channels, height, width = size
    picture = picture.convert("L" if channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), pillow().Resampling.BILINEAR)
    return np.asarray(picture).reshape(height, width, channels).transpose(2, 0, 1)


def _size(file: Path | str, picture: Any, program: Program) -> tuple[int, int, int]:
    """Return the (C, H, W) that pictures get; of a vector that has as many elements as the first
    picture, or three times as many, that picture's."""
    takes = program.graph.tensors[program.graph.input].user_shape
    if program.takes:
        raise CelosiaError(f"{file}: a picture, and the network takes "
                           f"{', '.join(one.name for one in program.takes)}; give them by these "
                           f"names in a .npz file")
    area = picture.width * picture.height
    if len(takes) == 3 and takes[0] in (1, 3):
        return takes[0], takes[1], takes[2]
    if len(takes) == 1 and takes[0] in (area, 3 * area):
        return takes[0] // area, picture.height, picture.width
    raise CelosiaError(f"{file}: a picture, and the network takes inputs of the shape {takes}; "
                       f"give them as a .npy file")


def _pixels(path: Path | str, pixels: np.ndarray, program: Program) -> np.ndarray:
    """Return pixels (N, ...) as inputs, float32; a vector's in the order c, y, x."""
    preprocessing = program.preprocessing
    if preprocessing is None or preprocessing.scale is None:
        raise CelosiaError(f"{path}: {scaled_by(None)}")
    inputs = preprocessing.inputs(pixels)
    wanted = program.graph.tensors[program.graph.input].user_shape
    flat = len(wanted) == 1 and math.prod(inputs.shape[1:]) == wanted[0]
    return inputs.reshape(len(inputs), -1) if flat else inputs


