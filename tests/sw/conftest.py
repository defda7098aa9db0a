"""What the tests of the software share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks: a second thread would only wait for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def network_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Path]]:
    """Return a function of a module's name and source that makes the current folder.

    It holds the module and data.npz: 120 training and 40 test images of 8 x 8; which quarter is
    bright is the class.
    """
    modules = []

    def make(name: str, source: str) -> Path:
        (tmp_path / f"{name}.py").write_text(source)
        modules.append(name)
        rng = np.random.default_rng(0)
        arrays = {}
        for split, count in (("train", 120), ("test", 40)):
            labels = rng.integers(0, 4, count)
            images = rng.integers(0, 100, (count, 8, 8), np.uint8)
            for image, label in zip(images, labels, strict=True):
                image[label // 2 * 4:, label % 2 * 4:][:4, :4] += 100
            arrays |= {f"{split}_images": images, f"{split}_labels": labels}
        np.savez(tmp_path / "data.npz", **arrays)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    yield make
    for name in modules:
        sys.modules.pop(name, None)
