"""Reading files that others wrote: regular files only, within limits, and nothing in them is run.

Every reader checks what a file says of itself against what it holds before it takes memory for
it, and refuses in one line. `docs/files.md` lists the types, the readers and these limits.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import numpy as np

from celosia_spec.errors import CelosiaError, said
from celosia_spec.files import open_file, read_file

if TYPE_CHECKING:
    import torch

__all__ = [
    "MAX_BYTES",
    "MAX_DIMENSIONS",
    "MAX_ENTRIES",
    "MAX_JSON_BYTES",
    "MAX_NODES",
    "FileError",
    "ZipReader",
    "gunzip",
    "load_json",
    "load_npy",
    "load_safetensors",
    "memory",
    "npy_images",
    "parse_json",
    "read_npy",
]

MAX_BYTES = 4 << 30
"""Most bytes of a file, and of what a compressed file unpacks to."""
MAX_ENTRIES = 65_536
"""Most entries of a zip archive."""
MAX_JSON_BYTES = 64 << 20
"""Most bytes of a JSON text."""
MAX_NODES = 100_000
"""Most operators of a network; ResNet-110 has about 350."""
MAX_DIMENSIONS = 32
"""Most dimensions of an array in a file; NumPy itself stops at 64."""

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 1024      # a plain array's header has 118 bytes
_TYPES = re.compile(r"[<>|=](b1|[iu][1248]|f(2|4|8|16))")
_MAX_DIRECTORY = 256 * MAX_ENTRIES


class FileError(CelosiaError, ValueError):
    """A file is damaged, too large, or not what its name says."""


@contextmanager
def memory(where: object) -> Iterator[None]:
    """Turn a lack of memory into a refusal."""
    try:
        yield
    except MemoryError:
        raise FileError(f"{where}: more than this machine's memory holds; give fewer inputs"
                        ) from None


def gunzip(content: bytes, where: object, limit: int = MAX_BYTES) -> bytes:
    """Return what a gzip stream unpacks to, at most `limit` bytes; FileError otherwise."""
    try:
        with memory(where), gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            unpacked = stream.read(limit + 1)
    except (EOFError, OSError, zlib.error, struct.error) as problem:
        raise FileError(f"{where}: damaged gzip stream ({problem}); fetch it again") from None
    if len(unpacked) > limit:
        raise FileError(f"{where}: unpacks to more than {limit} bytes; this is not such a file")
    return unpacked


def parse_json(text: bytes, where: object) -> Any:
    """Return the value of a JSON text in UTF-8; FileError unless it is one, each key once."""
    if len(text) > MAX_JSON_BYTES:
        raise FileError(f"{where}: {len(text)} bytes of JSON; at most {MAX_JSON_BYTES} are read")
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_object,
                          parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise FileError(f"{where}: not sound JSON ({problem}); write it again") from None


def load_json(path: str | Path) -> Any:
    """Return the value in a JSON file; errors as `files.open_file` and `parse_json`."""
    return parse_json(read_file(path, MAX_JSON_BYTES), path)


def load_npy(path: str | Path) -> np.ndarray:
    """Return the array of a ``.npy`` file; errors as `files.open_file` and `read_npy`."""
    with open_file(path, MAX_BYTES) as stream:
        return read_npy(stream, os.fstat(stream.fileno()).st_size, path)


def load_safetensors(path: str | Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file; FileError where it is not sound."""
    import safetensors
    from safetensors.torch import load

    content = read_file(path, MAX_BYTES)
    try:
        with memory(path):
            return load(content)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise FileError(f"{path}: not a readable .safetensors file ({said(problem)[:120]}); save "
                        "the weights again") from None


def read_npy(stream: IO[bytes], size: int, where: object) -> np.ndarray:
    """Return the array of a ``.npy`` stream of `size` bytes, writable, of numbers or bools.

    The shape times the type must be what follows the header, to the byte. FileError otherwise,
    for pickled objects, and for structured types.
    """
    kind, fortran, shape, start = _npy_header(stream, where, stream.read(8))
    count = math.prod(shape)
    if count * kind.itemsize != size - start:
        raise FileError(f"{where}: shape {_short(shape)} of {kind} needs {count * kind.itemsize} "
                        f"bytes, {size - start} follow the header; write it again")
    array = _npy_values(stream, kind, fortran, shape, where)
    if stream.read(1):
        raise FileError(f"{where}: goes on behind its data; write it again")
    return array


def npy_images(stream: BinaryIO, where: object,
               count_of: Callable[[tuple[int, ...]], int | None],
               ) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the images of ``.npy`` arrays that stand one behind the other, to the stream's end, as
    they arrive: the number of the array from 0, and the image (...) without the batch axis.

    count_of : called with an array's shape before its values are read or memory is taken for
               them: returns N where the first axis is one of N images, None where the array is
               one image; raises where it is neither.

    Each array must be as `read_npy` takes it; several images in C order. FileError otherwise.
    """
    number = 0
    while head := stream.read(8):
        here = f"{where}, array {number}"
        kind, fortran, shape, _ = _npy_header(stream, here, head)
        count = count_of(shape)
        if fortran and count is not None and count > 1:
            raise FileError(f"{here}: {count} images, not one behind the other (Fortran order); "
                            f"send numpy.ascontiguousarray of it")
        for _ in range(1 if count is None else count):
            yield number, _npy_values(stream, kind, fortran,
                                      shape if count is None else shape[1:], here)
        number += 1


def _npy_values(stream: IO[bytes], kind: np.dtype, fortran: bool, shape: tuple[int, ...],
                where: object) -> np.ndarray:
    """Return the values that follow in a stream as an array, in native order."""
    with memory(where):
        raw = np.empty(math.prod(shape) * kind.itemsize, np.uint8)
    _fill(stream, raw, where)
    if kind == np.bool_ and raw.size and raw.max() > 1:
        raise FileError(f"{where}: a bool that is neither 0 nor 1; write it again")
    array = raw.view(kind).reshape(shape, order="F" if fortran else "C")
    return array if kind.isnative else array.astype(kind.newbyteorder("="))


def _npy_header(stream: IO[bytes], where: object,
                head: bytes) -> tuple[np.dtype, bool, tuple[int, ...], int]:
    """Return element type, order, shape, and the bytes read; head : the first 8 bytes."""
    if head[:6] != _MAGIC:
        raise FileError(f"{where}: not a .npy file of numbers; write it with numpy.save")
    if len(head) < 8 or head[6] not in (1, 2, 3) or head[7] != 0:
        raise FileError(f"{where}: not a .npy file that is known, version "
                        f"{'.'.join(map(str, head[6:]))}; write it with numpy.save")
    width = 2 if head[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    text = stream.read(length) if length <= _MAX_HEADER else b""
    problem = "its header is damaged"
    try:
        if len(text) != length:
            raise ValueError
        header = ast.literal_eval(text.decode("ascii").strip())
        if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise FileError(f"{where}: not a .npy file of numbers ({problem}); write it with "
                        "numpy.save") from None
    shape = header["shape"]
    if (not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS
            or not all(type(size) is int and 0 <= size <= MAX_BYTES for size in shape)
            or not isinstance(header["fortran_order"], bool)):
        raise FileError(f"{where}: not a .npy file of numbers (shape {_short(shape)}); write it "
                        "with numpy.save")
    descr = header["descr"]
    if not isinstance(descr, str) or not _TYPES.fullmatch(descr):
        pickled = isinstance(descr, str) and descr.endswith("O")
        raise FileError(f"{where}: not a .npy file of numbers (its elements are "
                        f"{'a pickle' if pickled else _short(descr)}); store them as float32")
    return np.dtype(descr), header["fortran_order"], shape, 8 + width + length


def _fill(stream: IO[bytes], raw: np.ndarray, where: object) -> None:
    """Read exactly as many bytes as `raw` has."""
    view, done = memoryview(raw.data), 0
    while done < len(view):
        count = stream.readinto(view[done:])  # type: ignore[attr-defined]
        if not count:
            raise FileError(f"{where}: ends after {done} of {len(view)} bytes of data; write it "
                            "again")
        done += count


class ZipReader:
    """The entries of a zip archive, none of which is written to disk.

    They must have one name each, lie apart, and not be encrypted; those that are compressed
    (deflate) are read only where `packed` allows it. All together may unpack to `MAX_BYTES`.

    Raises FileError.
    """

    def __init__(self, stream: BinaryIO, where: object, *, packed: bool) -> None:
        self.where = where
        with self._sound():
            _check_directory(stream)
            self._zip = zipfile.ZipFile(stream)
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        self._check(self._zip.infolist(), packed)
        self._check_places(stream)

    @property
    def names(self) -> list[str]:
        """The names of all entries, in their order."""
        return list(self._entries)

    def size(self, name: str) -> int:
        """Return the bytes that an entry unpacks to."""
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        """Return an entry; its checksum must be right."""
        with self._sound(), memory(self.where):
            return self._zip.read(self._entries[name])

    def array(self, name: str) -> np.ndarray:
        """Return an entry that is a ``.npy`` file; its checksum must be right."""
        with self._sound(), self._zip.open(self._entries[name]) as stream:
            return read_npy(stream, self.size(name), f"{self.where}: {name}")

    @contextmanager
    def _sound(self) -> Iterator[None]:
        try:
            yield
        except FileError:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError,
                RuntimeError, ValueError, OverflowError, struct.error) as problem:
            raise FileError(f"{self.where}: damaged zip archive ({said(problem)[:120]}); write it "
                            "again") from None

    def _check(self, entries: list[zipfile.ZipInfo], packed: bool) -> None:
        methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) if packed else (zipfile.ZIP_STORED,)
        problem = None
        if len(entries) > MAX_ENTRIES:
            problem = f"it has {len(entries)} entries, at most {MAX_ENTRIES} are read"
        elif len(self._entries) != len(entries):
            problem = "two of its entries have the same name"
        elif any(entry.flag_bits & 0x2041 for entry in entries):
            problem = "it is encrypted"
        elif any(entry.compress_type not in methods for entry in entries):
            problem = ("it is packed by a method other than deflate" if packed
                       else "its entries are compressed")
        elif sum(entry.file_size for entry in entries) > MAX_BYTES:
            problem = f"it unpacks to more than {MAX_BYTES} bytes"
        elif any(entry.compress_type == zipfile.ZIP_STORED
                 and entry.compress_size != entry.file_size for entry in entries):
            problem = "an entry has two sizes"
        if problem:
            raise FileError(f"{self.where}: a zip archive that is not read: {problem}; write it "
                            "again with the library that it is for")

    def _check_places(self, stream: BinaryIO) -> None:
        """Refuse entries that share bytes: many small ones can then unpack to very much."""
        end = 0
        for entry in sorted(self._entries.values(), key=lambda entry: entry.header_offset):
            local = b""
            if entry.header_offset >= end:
                stream.seek(entry.header_offset)
                local = stream.read(30)
            if len(local) < 30 or local[:4] != b"PK\3\4":
                raise FileError(f"{self.where}: damaged zip archive (entry {entry.filename!r} "
                                "does not lie where its directory says); write it again")
            name, extra = struct.unpack_from("<HH", local, 26)
            end = entry.header_offset + 30 + name + extra + entry.compress_size
        if end > self._zip.start_dir:
            raise FileError(f"{self.where}: damaged zip archive (an entry lies over the "
                            "directory); write it again")


def _check_directory(stream: BinaryIO) -> None:
    """Refuse a directory that is larger than `MAX_ENTRIES` need, before it is read."""
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 65_536 - 98))
    tail = stream.read()
    for signature, at, width in ((b"PK\5\6", 12, 4), (b"PK\6\6", 40, 8)):
        start = tail.rfind(signature)
        length = int.from_bytes(tail[start + at:start + at + width], "little") if start >= 0 else 0
        if length > _MAX_DIRECTORY and length != 0xFFFFFFFF:
            raise zipfile.BadZipFile(f"a directory of {length} bytes")
    stream.seek(0)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"the number {text}")


def _short(value: object) -> str:
    try:
        text = str(value)
    except ValueError:      # an int of thousands of digits
        text = "with numbers beyond all bounds"
    return text if len(text) <= 60 else f"{text[:57]}..."

