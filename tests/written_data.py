"""Data sets, written as their formats have them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def write_split(folder: Path, images: np.ndarray, labels: np.ndarray, stem: str = "train") -> None:
    (folder / f"{stem}-images-idx3-ubyte").write_bytes(idx(images))
    (folder / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def random_set(shape: tuple[int, ...] = (3, 32, 32)) -> tuple[np.ndarray, ...]:
    """Return train images and labels (12 of them) and test images and labels (4), uint8."""
    rng = np.random.default_rng(8)
    return tuple(part for count in (12, 4) for part in (
        rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count, dtype=np.uint8) % 10))
