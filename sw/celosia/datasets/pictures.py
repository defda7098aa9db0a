"""A data set as a folder of pictures, one folder a class."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from celosia.datasets.dataset import Dataset, DatasetError, damage
from celosia.datasets.kinds import loader
from celosia.reading import MAX_BYTES
from celosia_spec.errors import said
from celosia_spec.files import open_file

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["MAX_PIXELS", "SUFFIXES", "Pictures", "open_picture", "pictures_in", "pillow"]

_SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg")
"""Of the names of pictures in a folder."""
MAX_PIXELS = 1 << 26
"""Most pixels of one picture, 8,192 x 8,192."""
_FORMATS = ("PNG", "JPEG")      # others start other programs (EPS) or have weaker readers
_GREY, _COLOUR = ("1", "L", "LA"), ("P", "RGB", "RGBA")


@loader
class Pictures:
    """``train/<class>/<picture>`` and ``test/<class>/<picture>``, .png or .jpg.

    Classes are numbered from 0 in the alphabetical order of train's folders. All pictures must
    have the same size. If all are grey the images are (N, H, W), else all become (N, 3, H, W)
    in red, green, blue. Files whose names start with a dot are ignored.
    """

    files = "a folder with pictures train/<class>/*.png and test/<class>/*.png (or .jpg)"

    @staticmethod
    def recognises(path: Path) -> bool:
        """Return whether there is a folder of one of the splits."""
        return any((path / split).is_dir() for split in _SPLITS)

    @staticmethod
    def load(path: Path) -> Dataset:
        """Return the data set, or raise DatasetError, also without Pillow."""
        pillow()           # before the folders are searched
        classes = _folders(path / "train")
        parts = []
        for split in _SPLITS:
            unknown = sorted(set(_folders(path / split)) - set(classes))
            if unknown:
                raise DatasetError(f"{path / split}: class {unknown[0]!r} has no folder in "
                                   f"{path / 'train'}")
            files = [(file, number) for number, name in enumerate(classes)
                     for file in pictures_in(path / split / name)]
            if not files:
                raise DatasetError(f"{path / split}: no pictures in it; give {Pictures.files}")
            parts.append((list(_decoded([file for file, _ in files])),
                          np.array([number for _, number in files], np.int64)))
        colour = any(picture.mode != "L" for pictures, _ in parts for picture in pictures)
        size = parts[0][0][0].size
        stacks = [(_stack(pictures, colour, size), labels) for pictures, labels in parts]
        return Dataset(path.name, *stacks[0], *stacks[1], classes=tuple(classes))


def pillow() -> ModuleType:
    """Return Pillow's module Image; DatasetError where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise DatasetError("pictures need Pillow; install celosia's extra 'torch', or "
                           "pillow") from None
    return Image


def _folders(path: Path) -> list[str]:
    """Return the names of the class folders of a split, sorted."""
    if not path.is_dir():
        raise DatasetError(f"{path}: no such folder; give {Pictures.files}")
    return sorted(entry.name for entry in path.iterdir()
                  if entry.is_dir() and not entry.name.startswith("."))


def pictures_in(path: Path) -> list[Path]:
    """Return the pictures of a folder, sorted by name; DatasetError where it holds others."""
    if not path.is_dir():
        return []
    files = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    for file in files:
        if file.suffix.lower() not in SUFFIXES:
            raise DatasetError(f"{file}: not a picture; keep only {', '.join(SUFFIXES)} there")
    return files


def _decoded(files: list[Path]) -> Iterator[Image]:
    """Yield the pictures of a split, as many as `MAX_BYTES` hold."""
    total = 0
    for file in files:
        picture = open_picture(file)
        total += picture.width * picture.height * len(picture.getbands())
        if total > MAX_BYTES:
            raise DatasetError(f"{file.parents[1]}: pictures of more than {MAX_BYTES} bytes; use "
                               "fewer or smaller ones")
        yield picture


def open_picture(file: Path) -> Image:
    """Return a picture of Pillow's, decoded, in mode L or RGB; DatasetError if it is not sound."""
    opener = pillow()
    with damage(), open_file(file, MAX_BYTES) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with opener.open(stream, formats=_FORMATS) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise DatasetError(f"{file}: {width} x {height} pixels; at most {MAX_PIXELS} "
                                       "are read, scale it down")
                if picture.mode not in _GREY + _COLOUR:
                    raise DatasetError(f"{file}: colour mode {picture.mode}; convert it to 8-bit "
                                       "grey or RGB")
                picture.verify()    # checksums of PNG, which loading passes over
            stream.seek(0)
            with opener.open(stream, formats=_FORMATS) as picture:
                picture.load()
                if _shines_through(picture):
                    raise DatasetError(f"{file}: some of its pixels are transparent; put it on a "
                                       "background and save it without transparency")
                result: Image = picture.convert("L" if picture.mode in _GREY else "RGB")
        except DatasetError:
            raise
        except Exception as problem:    # Pillow raises whatever its parsers do
            words = re.sub(r" <_io\..*>", "", said(problem))     # the open file, as Python shows it
            raise DatasetError(f"{file}: not a readable picture ({words}); save it again as PNG or "
                               "JPEG") from problem
    result.info["file"] = file
    return result


def _shines_through(picture: Image) -> bool:
    """Whether a picture has pixels that are not opaque, whose colour nobody sees as it is."""
    if not picture.has_transparency_data:
        return False
    low, _ = picture.convert("RGBA").getchannel("A").getextrema()
    assert not isinstance(low, tuple)       # of one channel
    return low < 255


def _stack(pictures: list[Image], colour: bool, size: tuple[int, int]) -> np.ndarray:
    """Return pictures of one size (width, height) as uint8 (N, H, W) or (N, 3, H, W)."""
    for picture in pictures:
        if picture.size != size:
            raise DatasetError(
                f"{picture.info['file']}: {picture.size[0]} x {picture.size[1]} pixels, the first "
                f"picture has {size[0]} x {size[1]}; scale all to one size"
            )
    if not colour:
        return np.stack([np.asarray(picture) for picture in pictures])
    stack = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return np.ascontiguousarray(np.moveaxis(stack, -1, 1))
