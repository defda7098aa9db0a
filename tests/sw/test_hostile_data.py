"""Data sets made to do harm: too large, without end, of another type than their name says."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from celosia import reading
from celosia.cli.common import load_weights
from celosia.datasets import DatasetError, cifar10, fashion_mnist, load_dataset, read_idx
from celosia.datasets import pictures as picture_folder
from celosia_spec.errors import CelosiaError


def idx(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


@pytest.mark.parametrize(("raw", "message"), [
    (idx((1,) * 255, b"\0"), "255 dimensions is incomplete, or not of 1 to 32"),
    (idx((1,) * 33, b"\0"), "33 dimensions"),
    (idx((0xFFFFFFFF,) * 32), "needs"),
    (idx((60_000, 28, 28), bytes(100)), "needs 47040000 bytes of data, the file has 100"),
    (gzip.compress(idx((2, 2), bytes(4)), mtime=0)[:-3], "damaged gzip stream"),
    (gzip.compress(idx((2, 2), bytes(4)), mtime=0) + b"tail", "damaged gzip stream"),
])
def test_idx_files_that_lie(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(raw)
    with pytest.raises(DatasetError, match=message) as caught:
        read_idx(path)
    assert "\n" not in str(caught.value)


def test_gzip_bombs_stop_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(idx((1 << 20,), bytes(1 << 20))))
    assert path.stat().st_size < 2000
    assert read_idx(path).shape == (1 << 20,)
    monkeypatch.setattr(reading, "MAX_BYTES", 1 << 20)
    monkeypatch.setattr(reading.gunzip, "__defaults__", (1 << 20,))
    with pytest.raises(DatasetError, match="unpacks to more than 1048576 bytes"):
        read_idx(path)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DatasetError, match="is a pipe"):
        read_idx(pipe)
    with pytest.raises(DatasetError, match="not a known data set"):
        load_dataset(pipe)
    with pytest.raises(DatasetError, match="not a known data set"):
        load_dataset("/dev/zero")
    with pytest.raises(DatasetError, match="is a pipe"):
        picture_folder.open_picture(pipe)
    with pytest.raises(FileNotFoundError, match="is missing"):
        cifar10._read(pipe)
    assert not fashion_mnist.FashionMnist.recognises(pipe)


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "SET.TGZ", "a.tar", "a.tar.xz"])
def test_packed_archives_are_to_be_unpacked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b")
    with pytest.raises(DatasetError, match="a packed archive; unpack it and give the folder"):
        load_dataset(tmp_path / name)


@pytest.mark.parametrize(("labels", "message"), [
    (np.array([0.0, np.nan]), "must be whole numbers"), (np.array([0.0, np.inf]), "whole numbers"),
    (np.array([0.0, 1e300]), "whole numbers"), (np.array([0, 2**63], np.uint64), "whole numbers"),
    (np.array([0, 1 << 20]), "below 1048576"), (np.array([0, -5]), "label -5, which is below 0"),
])
def test_labels_beyond_all_classes(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    images = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=labels, test_images=images,
             test_labels=np.zeros(2))
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path / "x.npz")


def test_images_beyond_float32(tmp_path: Path) -> None:
    images = np.full((2, 4), 1e300)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.zeros(2), test_images=images,
             test_labels=np.zeros(2))
    with pytest.raises(DatasetError, match="NaN or infinite; remove them first"):
        load_dataset(tmp_path / "x.npz")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (struct.pack(">I", len(data)) + kind + data
                + struct.pack(">I", zlib.crc32(kind + data)))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
            + b"".join(chunk(*each) for each in chunks) + chunk(b"IEND", b""))


GOOD = png(2, 2, (b"IDAT", zlib.compress(bytes(6))))
BOMB = png(8193, 8193, (b"IDAT", zlib.compress(bytes(8193 * 8194), 9)))
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\nshowpage\n"


@pytest.mark.parametrize(("content", "message"), [
    (BOMB, "8193 x 8193 pixels; at most 67108864 are read"),
    (png(1 << 30, 1 << 30), "not a readable picture"),
    (png(20_000, 20_000), "not a readable picture"),
    (POSTSCRIPT, "not a readable picture"),
    (b"GIF89a" + bytes(20), "not a readable picture"),
    (b"BM" + bytes(60), "not a readable picture"),
    (b"", "not a readable picture"),
    (GOOD[:50], "not a readable picture"), (GOOD[:-12], "not a readable picture"),
    (GOOD[:45] + b"\x01" + GOOD[46:], "not a readable picture"),
    (GOOD.replace(b"IDAT", b"IDAX"), "not a readable picture"),
    (png(2, 2, (b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 27)))), "not a readable picture"),
    (png(2, 2, (b"IDAT", b"\0")), "not a readable picture"),
])
def test_pictures_that_harm(tmp_path: Path, content: bytes, message: str) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.png").write_bytes(GOOD)
    assert load_dataset(tmp_path).train_images.shape == (1, 2, 2)
    (tmp_path / "train" / "a" / "2.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a/2\.png: ") as caught:
        load_dataset(tmp_path)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_many_pictures_stop_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(3):
            (tmp_path / split / "a" / f"{number}.png").write_bytes(GOOD)
    monkeypatch.setattr(picture_folder, "MAX_BYTES", 11)
    with pytest.raises(CelosiaError, match="too large for such a file|more than 11 bytes"):
        load_dataset(tmp_path)


def test_links_to_pictures_are_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "1.png"
    elsewhere.write_bytes(GOOD)
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        (tmp_path / "set" / split / "a" / "1.png").symlink_to(elsewhere)
    assert load_dataset(tmp_path / "set").test_images.shape == (1, 2, 2)
    (tmp_path / "set" / "train" / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises((DatasetError, FileNotFoundError), match=r"2\.png"):
        load_dataset(tmp_path / "set")


def test_weights_of_another_type_are_refused(tmp_path: Path) -> None:
    import safetensors.torch
    import torch
    from torch import nn

    module, path = nn.Linear(2, 2), tmp_path / "x.safetensors"
    right = {name: torch.ones_like(value) for name, value in module.state_dict().items()}
    safetensors.torch.save_file(right, path)
    load_weights(module, path)
    assert module.weight.tolist() == [[1, 1], [1, 1]]
    for wrong in ({"bias": torch.ones(2, dtype=torch.int64)}, {"bias": torch.ones(3)},
                  {"more": torch.ones(1)}):
        safetensors.torch.save_file(right | wrong, path)
        with pytest.raises(CelosiaError, match="does not fit the model: .* give the weights of"):
            load_weights(module, path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CelosiaError, match="is a pipe"):
        load_weights(module, path)
