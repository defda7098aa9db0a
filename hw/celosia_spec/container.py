"""The program file's container: named sections, each with its type, shape and CRC-32.

``docs/file-format.md`` shows the bytes. Nothing in a file is ever executed or unpickled, and no
length, offset, type or shape is used before it has been checked.
"""

import json
import math
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from celosia_spec.errors import CelosiaError
from celosia_spec.files import read_file, replacing

MAGIC = b"\x89CELO\r\n\x1a"
VERSION = 7
MANIFEST = "manifest"
"""Name of the one JSON section; it is the first."""

_HEADER = struct.Struct("<8sIIQ")           # magic, version, sections, bytes of the whole file
_ENTRY = struct.Struct("<40sBBHI4IQQ")  # name, type, axes, 0, CRC-32, shape, offset, bytes
_CRC = struct.Struct("<I")                  # of header and table, right after the table
_JSON = 0
_TYPES = {1: "<u1", 2: "<i2", 3: "<i4", 4: "<i8", 5: "<u4", 6: "<f8"}
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}
_NAME_BYTES = 40
_SECTIONS_MAX = 65_536
SIZE_MAX = 256 << 20
"""Largest file that is read, bytes; the largest target's program takes a tenth."""


class _Section(NamedTuple):
    """A checked entry of the table.   code : of its type.   offset, length : of its bytes."""

    name: str
    code: int
    shape: tuple[int, ...]
    crc: int
    offset: int
    length: int


def write(path: str | Path, manifest: dict[str, object], arrays: dict[str, np.ndarray]) -> None:
    """Write ``manifest`` (JSON) and ``arrays`` to ``path``; the file appears whole or not at all.

    Array types: uint8, int16, int32, int64, uint32, float64; at most four axes. Names: at most 40
    bytes of UTF-8. ValueError otherwise. CelosiaError where the file cannot be written.
    """
    text = to_json(manifest)
    sections = [(MANIFEST, _JSON, (len(text),), text)]
    for name, array in arrays.items():
        code = _CODES.get(array.dtype.newbyteorder("<"))
        if code is None or array.ndim > 4:
            raise ValueError(f"section {name!r}: {array.dtype} with {array.ndim} axes is not a "
                             f"section type")
        data = np.ascontiguousarray(array, _TYPES[code]).tobytes()
        sections.append((name, code, array.shape, data))
    offset = _HEADER.size + len(sections) * _ENTRY.size + _CRC.size
    table = b""
    for name, code, shape, data in sections:
        if not 0 < len(name.encode()) <= _NAME_BYTES:
            raise ValueError(f"section name {name!r} must be 1 to {_NAME_BYTES} bytes")
        axes = tuple(shape) + (0,) * (4 - len(shape))
        table += _ENTRY.pack(name.encode(), code, len(shape), 0, zlib.crc32(data), *axes, offset,
                             len(data))
        offset += len(data)
    head = _HEADER.pack(MAGIC, VERSION, len(sections), offset) + table
    with replacing(path) as file:
        file.write(head + _CRC.pack(zlib.crc32(head)))
        file.writelines(data for *_, data in sections)


def read(path: str | Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return the manifest and the arrays of the file that :func:`write` made.

    CelosiaError names the file, the section and the way out where the file is foreign, of another
    version, cut, longer than it says, damaged anywhere, or not written as :func:`write` does;
    OSError where it cannot be read.
    """
    path = Path(path)
    data = read_file(path, SIZE_MAX)
    manifest, arrays = None, {}
    for index, (name, code, shape, crc, offset, length) in enumerate(_entries(path, data)):
        body = data[offset:offset + length]
        if zlib.crc32(body) != crc:
            raise _damaged(path, f"section {name!r} does not match its CRC-32")
        if (code == _JSON) != (index == 0) or (index == 0 and name != MANIFEST):
            raise _damaged(path, f"section {name!r} and the manifest are in each other's place")
        if code == _JSON:
            manifest = _parse(path, body)
        else:
            arrays[name] = np.frombuffer(body, _TYPES[code]).reshape(shape).astype(
                np.dtype(_TYPES[code]).newbyteorder("="))
    if manifest is None:
        raise _damaged(path, f"section {MANIFEST!r} is missing")
    return manifest, arrays


def _entries(path: Path, data: bytes) -> list[_Section]:
    """Return the checked section table: sections back to back, from the table to the file's end."""
    if data[:len(MAGIC)] != MAGIC:
        raise CelosiaError(f"{path}: not a Celosia program file; make one with `celosia compile`")
    if len(data) < _HEADER.size:
        raise _damaged(path, f"the header is cut after {len(data)} bytes")
    _, version, count, size = _HEADER.unpack_from(data)
    if version != VERSION:
        raise CelosiaError(f"{path}: program file version {version}, this release reads {VERSION}; "
                           f"compile the model again, or use the release that wrote the file")
    end = _HEADER.size + count * _ENTRY.size
    if count > _SECTIONS_MAX or len(data) < end + _CRC.size:
        raise _damaged(path, f"the section table of {count} sections is cut")
    if zlib.crc32(data[:end]) != _CRC.unpack_from(data, end)[0]:
        raise _damaged(path, "the header does not match its CRC-32")
    if size != len(data):
        raise _damaged(path, f"{len(data)} bytes long, its header says {size}")
    entries, names, offset = [], set(), end + _CRC.size
    for raw in _ENTRY.iter_unpack(data[_HEADER.size:end]):
        entry = _check_entry(path, raw, offset)
        if entry.name in names:
            raise _damaged(path, f"section {entry.name!r} stands twice")
        names.add(entry.name)
        entries.append(entry)
        offset += entry.length
    if offset != size:
        raise _damaged(path, f"sections end at byte {offset}, the file at {size}")
    return entries


def _check_entry(path: Path, raw: tuple[Any, ...], offset: int) -> _Section:
    """Return the table entry with its name decoded; every field of it may then be used."""
    name_bytes, code, axes, reserved, crc, *shape, start, length = raw
    try:
        name = name_bytes.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise _damaged(path, f"section name {name_bytes!r} is not text") from None
    if not name or not name.isprintable():
        raise _damaged(path, f"section name {name!r} is empty or not printable")
    if reserved:
        raise _damaged(path, f"section {name!r} has {reserved} in its reserved bytes instead of 0")
    if code != _JSON and code not in _TYPES:
        raise _damaged(path, f"section {name!r} has the unknown type {code}")
    itemsize = 1 if code == _JSON else np.dtype(_TYPES[code]).itemsize
    # Of an empty array no axis is longer than what fits a file either.
    if (axes > 4 or any(shape[axes:]) or length != math.prod(shape[:axes]) * itemsize
            or math.prod(axis or 1 for axis in shape) * itemsize > SIZE_MAX):
        raise _damaged(path, f"section {name!r} has {length} bytes for shape {tuple(shape)}")
    if start != offset:
        raise _damaged(path, f"section {name!r} starts at byte {start} instead of {offset}")
    return _Section(name, code, tuple(shape[:axes]), crc, start, length)


def _parse(path: Path, body: bytes) -> dict[str, object]:
    try:
        manifest = json.loads(body, parse_int=_integer)
        same = to_json(manifest) == body
    except (ValueError, RecursionError) as problem:
        raise _damaged(path, f"section {MANIFEST!r} is not JSON ({problem})") from None
    if not isinstance(manifest, dict):
        raise _damaged(path, f"section {MANIFEST!r} is not a JSON object")
    if not same:        # an entry twice, a number in another form
        raise _damaged(path, f"section {MANIFEST!r} is not written as Celosia writes it")
    return manifest


def _integer(text: str) -> int:
    """Return a whole number of JSON; ValueError where it does not fit 64 bits."""
    if len(text) > 20 or not -1 << 63 <= int(text) < 1 << 63:
        raise ValueError("a number of more than 64 bits")
    return int(text)


def to_json(value: object) -> bytes:
    """Return JSON in its one form here: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _damaged(path: Path, problem: str) -> CelosiaError:
    return CelosiaError(f"{path}: damaged program file, {problem}; copy it again or compile the "
                        f"model again")
