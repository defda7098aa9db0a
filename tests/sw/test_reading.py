"""Arrays, archives and compressed files of others: limits, and refusals before memory is taken."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from celosia import reading
from celosia.cli.common import read_array
from celosia.reading import FileError, ZipReader, gunzip, load_npy, load_safetensors, parse_json
from celosia_spec.errors import CelosiaError
from celosia_spec.files import open_file, read_file


def npy(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(text: str, version: bytes = b"\1\0", data: bytes = b"") -> bytes:
    length = struct.pack("<H" if version[0] == 1 else "<I", len(text))
    return b"\x93NUMPY" + version + length + text.encode() + data


def described(descr: object = "<f4", shape: object = (2,), data: int = 8) -> bytes:
    return header(repr({"descr": descr, "fortran_order": False, "shape": shape}),
                  data=bytes(data))


@pytest.mark.parametrize("array", [
    np.arange(6.0, dtype=np.float32).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(3, dtype=">f8"), np.array([True, False]), np.zeros((0, 3), np.uint8),
    np.array(3.5), np.arange(4, dtype=np.float16), np.zeros((1,) * 8, np.int8),
], ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_are_read_as_numpy_reads_them(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(npy(array))
    found = load_npy(path)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=") and found.flags.writeable
    np.testing.assert_array_equal(read_array(path), array)
    with path.open("wb") as file:
        np.lib.format.write_array(file, array, version=(2, 0))
    np.testing.assert_array_equal(load_npy(path), array)


@pytest.mark.parametrize(("content", "message"), [
    (npy(np.array([{}]), allow_pickle=True), "its elements are a pickle"),
    (npy(np.zeros(2, [("a", "f4")])), "its elements are [('a', '<f4')]"),
    (npy(np.array(["a"])), "its elements are <U1"),
    (npy(np.zeros(2, np.complex64)), "its elements are <c8"),
    (npy(np.array(["2020"], "M8")), "its elements are <M8"),
    (npy(np.zeros(2))[:-1], "shape (2,) of float64 needs 16 bytes, 15 follow the header"),
    (npy(np.zeros(2)) + b"\0", "needs 16 bytes, 17 follow"),
    (npy(np.array([True])).replace(b"\n\1", b"\n\2"), "neither 0 nor 1"),
    (b"", "not a .npy file of numbers; write it with numpy.save"),
    (b"PK\3\4", "not a .npy file of numbers"),
    (b"\x93NUMPY", "not a .npy file that is known"),
    (b"\x93NUMPY\x09\0", "version 9.0"),
    (header("{}"), "header is damaged"),
    (header("x" * 2000), "header is damaged"),
    (header("-" * 900 + "1"), "header is damaged"),
    (header("{" * 900), "header is damaged"),
    (header("{'descr': '<f4'", data=b"}"), "header is damaged"),
    (b"\x93NUMPY\2\0\xff\xff\xff\xff", "header is damaged"),
    (described(shape=(2**40,)), "shape (1099511627776,)"),
    (described(shape=(1 << 20,) * 3), "needs 4611686018427387904 bytes, 8 follow"),
    (described(shape=(1,) * 40, data=4), "shape (1, 1,"),
    (described(shape=(-2,)), "shape (-2,)"),
    (described(shape=(2.0,)), "shape (2.0,)"),
    (described(shape=[2]), "shape [2]"),
    (described(shape=(True, 2)), "shape (True, 2)"),
    (described(shape=(10**900,)), "shape (1000"),
    (described(descr="<f3"), "its elements are <f3"),
    (described(descr="<f99999999"), "its elements are <f99999999"),
    (described(descr="|V4"), "its elements are |V4"),
    (described(descr=["<f4"]), "its elements are ['<f4']"),
])
def test_arrays_that_are_not_sound_are_refused(tmp_path: Path, content: bytes, message: str
                                               ) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        load_npy(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_what_is_not_a_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in (("pipe", "is a pipe"), ("link", "is a pipe"), (".", "is a folder")):
        with pytest.raises(CelosiaError, match=message):
            load_npy(tmp_path / name)
    with pytest.raises(CelosiaError, match="is a device"):
        load_npy(Path("/dev/zero"))
    with pytest.raises(CelosiaError, match="null byte"):
        load_npy(Path("a\0b"))
    for name in ("gone", "loop"):
        with pytest.raises(OSError):
            load_npy(tmp_path / name)


def test_files_and_their_limits(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(10))
    (tmp_path / "link").symlink_to(path)
    assert read_file(tmp_path / "link", 10) == bytes(10)
    with pytest.raises(CelosiaError, match="too large for such a file"):
        read_file(path, 9)
    with path.open("r+b") as file:
        file.truncate(reading.MAX_BYTES + 1)        # takes no room on the disk
    with pytest.raises(CelosiaError, match="larger than 4096 MiB"):
        open_file(path, reading.MAX_BYTES)


def test_gzip_is_unpacked_as_far_as_the_limit() -> None:
    packed = gzip.compress(bytes(1000))
    assert gunzip(packed, "x", 1000) == bytes(1000)
    assert gunzip(packed + packed, "x", 2000) == bytes(2000)
    for content, message in ((packed, "more than 999 bytes"), (packed[:-9], "damaged gzip"),
                             (packed[:-8] + bytes(8), "damaged gzip"), (b"\x1f\x8b", "damaged"),
                             (packed[:12] + b"\xff" * 9, "damaged gzip"),
                             (packed + b"x", "damaged gzip")):
        with pytest.raises(FileError, match=f"^x: .*{message}"):
            gunzip(content, "x", 999 if message.startswith("more") else 5000)


def test_json_is_read_whole_once_and_finite() -> None:
    assert parse_json(b'{"a": [1, 2.5, null]}', "x") == {"a": [1, 2.5, None]}
    for text in (b"", b"{", b'{"a": 1, "a": 2}', b"[NaN]", b"[Infinity]", b"[" * 100_000,
                 b"\xff", b"1 2", b"9" * 5000):
        with pytest.raises(FileError, match="^x: not sound JSON"):
            parse_json(text, "x")


def archive(path: Path, *, method: int = zipfile.ZIP_DEFLATED, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def test_zip_archives(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.zip", a=npy(np.arange(3)), b=b"text")
    with path.open("rb") as stream:
        reader = ZipReader(stream, path, packed=True)
        assert reader.names == ["a", "b"] and reader.size("b") == 4
        assert reader.read("b") == b"text"
        np.testing.assert_array_equal(reader.array("a"), np.arange(3))
        with pytest.raises(FileError, match="x.zip: b: not a .npy file of numbers"):
            reader.array("b")


@pytest.mark.parametrize(("change", "message"), [
    (lambda raw: raw[:-5], "damaged zip archive"),
    (lambda raw: raw[:40] + raw[45:], "damaged zip archive"),
    (lambda raw: raw[:40] + bytes(5) + raw[40:], "damaged zip archive"),
    (lambda raw: b"", "damaged zip archive"),
    (lambda raw: raw.replace(b"PK\1\2", b"PK\1\3"), "damaged zip archive"),
    (lambda raw: raw.replace(b"PK\3\4", b"PK\3\5"), "does not lie where"),
    (lambda raw: flags(raw, 8, 1), "it is encrypted"),
    (lambda raw: flags(raw, 8, 0x2000), "it is encrypted"),
    (lambda raw: flags(raw, 10, 12), "packed by a method other than deflate"),
    (lambda raw: flags(raw, 42, 5), "does not lie where"),
    (lambda raw: flags(raw, 6, 99), "damaged zip archive"),
    (lambda raw: raw.replace(b"PK\5\6" + bytes(6), b"PK\5\6" + b"\0\0\0\0\xff\xff"), None),
])
def test_zip_archives_that_are_not_sound_are_refused(
        tmp_path: Path, change, message: str | None) -> None:
    path = archive(tmp_path / "x.zip", a=bytes(50), b=bytes(60))
    path.write_bytes(change(path.read_bytes()))
    with path.open("rb") as stream:
        if message is None:     # the number of entries is counted, not believed
            assert ZipReader(stream, path, packed=True).names == ["a", "b"]
            return
        with pytest.raises(FileError, match=message) as caught:
            ZipReader(stream, path, packed=True).read("b")
    assert "\n" not in str(caught.value)


def flags(raw: bytes, at: int, value: int) -> bytes:
    """Return an archive with a field of its last entry's line in the directory changed."""
    found = bytearray(raw)
    struct.pack_into("<H", found, raw.rindex(b"PK\1\2") + at, value)
    return bytes(found)


def test_zip_bombs_are_refused_before_they_unpack(tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "x.zip", a=bytes(1000), b=bytes(1000))
    monkeypatch.setattr(reading, "MAX_BYTES", 1999)
    with path.open("rb") as stream, pytest.raises(FileError, match="unpacks to more than 1999"):
        ZipReader(stream, path, packed=True)
    monkeypatch.setattr(reading, "MAX_ENTRIES", 1)
    with path.open("rb") as stream, pytest.raises(FileError, match="has 2 entries, at most 1"):
        ZipReader(stream, path, packed=True)
    monkeypatch.undo()
    with path.open("rb") as stream, pytest.raises(FileError, match="compressed"):
        ZipReader(stream, path, packed=False)

    raw = bytearray(archive(path, method=zipfile.ZIP_STORED, a=bytes(99), b=bytes(99)).read_bytes())
    struct.pack_into("<I", raw, raw.rindex(b"PK\1\2") + 42, 0)     # both entries the same bytes
    path.write_bytes(raw)
    with path.open("rb") as stream, pytest.raises(FileError, match="does not lie where"):
        ZipReader(stream, path, packed=False)


def test_safetensors_that_are_not_sound_are_refused(tmp_path: Path) -> None:
    def file(description: object, data: bytes = bytes(8)) -> bytes:
        text = json.dumps(description).encode()
        return struct.pack("<Q", len(text)) + text + data

    path = tmp_path / "x.safetensors"
    good = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    path.write_bytes(file(good))
    assert load_safetensors(path)["w"].tolist() == [0, 0]
    for content in (b"", b"\xff" * 8, file(good)[:-1], file(good) + b"\0", file([]),
                    file({"w": good["w"] | {"shape": [3]}}),
                    file({"w": good["w"] | {"shape": [2**40, 2**40]}}),
                    file({"w": good["w"] | {"dtype": "P8"}}),
                    file({"w": good["w"] | {"data_offsets": [4, 12]}}),
                    file({"w": good["w"], "v": good["w"]}), struct.pack("<Q", 4) + b"\xff" * 4):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"x\.safetensors: not a readable .*; save the weights"):
            load_safetensors(path)
