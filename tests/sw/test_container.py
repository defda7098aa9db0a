"""Program files: round trips, and every way of being damaged."""

import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from celosia import load
from celosia_spec import container
from celosia_spec.errors import CelosiaError
from program_files import make_program, same

HEADER, ENTRY = 24, 80


@pytest.fixture
def path(tmp_path: Path) -> Path:
    result = tmp_path / "net.celo"
    make_program().save(result)
    return result


def test_round_trip(path: Path) -> None:
    loaded = load(path)
    assert same(make_program(), loaded)
    assert [entry.name for entry in path.parent.iterdir()] == ["net.celo"]
    other = path.with_name("again.celo")
    loaded.save(other)
    assert other.read_bytes() == path.read_bytes()


def test_same_sees_a_difference() -> None:
    program = make_program()
    assert same(program, replace(program, program=replace(program.program)))
    for changes in ({"slots": {"x": 0, "y": 2}}, {"entries": program.program.entries ^ 1}):
        assert not same(program, replace(program, program=replace(program.program, **changes)))


def test_every_byte_of_header_and_table_counts(path: Path) -> None:
    data = path.read_bytes()
    count = struct.unpack_from("<I", data, 12)[0]
    end = HEADER + count * ENTRY
    for at in {*range(HEADER + 2 * ENTRY), *range(HEADER, end, 7), *range(end - 8, end + 4)}:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1:])
        with pytest.raises(CelosiaError, match="net.celo"):
            load(path)


def test_every_section_counts(path: Path) -> None:
    data = path.read_bytes()
    count = struct.unpack_from("<I", data, 12)[0]
    damaged = 0
    for index in range(count):
        entry = struct.unpack_from("<40sBBHI4IQQ", data, HEADER + index * ENTRY)
        name, (offset, length) = entry[0].rstrip(b"\0").decode(), entry[-2:]
        for at in {offset, offset + length // 2, offset + length - 1} if length else ():
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1:])
            with pytest.raises(CelosiaError, match=f"section '{name}' does not match its CRC-32; "
                                                   f"copy it again"):
                load(path)
        damaged += bool(length)
    assert damaged == count


def test_truncated_anywhere(path: Path) -> None:
    data = path.read_bytes()
    for length in {*range(200), *range(200, len(data), 37), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(CelosiaError, match="net.celo: (not a Celosia|damaged) program file"):
            load(path)


def test_trailing_garbage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    with pytest.raises(CelosiaError, match=f"{len(data) + 1} bytes long, its header says "
                                           f"{len(data)}"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" + bytes(100), b"\x80\x05K\x01.", b"hello"])
def test_foreign_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CelosiaError, match="not a Celosia program file; make one with"):
        load(path)


def test_future_version(path: Path) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 8, container.VERSION + 1)
    path.write_bytes(data)
    with pytest.raises(CelosiaError, match="version 8, this release reads 7; compile"):
        load(path)


def forge(path: Path, **changes: object) -> None:
    """Rewrite the table's first array section with ``changes`` and a CRC that matches them."""
    data = bytearray(path.read_bytes())
    names = ("name", "code", "axes", "reserved", "crc", "s0", "s1", "s2", "s3", "offset", "length")
    layout, at = struct.Struct("<40sBBHI4IQQ"), HEADER + ENTRY
    entry = dict(zip(names, layout.unpack_from(data, at), strict=True)) | changes
    layout.pack_into(data, at, *entry.values())
    end = HEADER + struct.unpack_from("<I", data, 12)[0] * ENTRY
    struct.pack_into("<I", data, end, zlib.crc32(data[:end]))
    path.write_bytes(data)


@pytest.mark.parametrize(("changes", "problem"), [
    ({"code": 9}, "unknown type 9"), ({"axes": 5}, "bytes for shape"),
    ({"s0": 2**31}, "bytes for shape"), ({"s3": 1}, "bytes for shape"),
    ({"offset": 2**60}, "starts at byte"), ({"length": 2**60}, "bytes for shape"),
    ({"name": b"\xff" * 40}, "is not text"), ({"name": b"manifest"}, "stands twice"),
    ({"name": b"other"}, "its sections are not those of its network"),
    ({"name": b""}, "is empty or not printable"), ({"name": b"a\0b"}, "is empty or not printable"),
    ({"reserved": 1}, "has 1 in its reserved bytes instead of 0"),
    ({"reserved": 256}, "has 256 in its reserved bytes instead of 0"),
])
def test_forged_table(path: Path, changes: dict, problem: str) -> None:
    forge(path, **changes)
    with pytest.raises(CelosiaError, match=problem):
        load(path)


@pytest.mark.parametrize("shape", [
    (2**32 - 1, 2**31, 0), (0, 2**32 - 1, 2**32 - 1, 2**32 - 1), (2**32 - 1, 0)])
def test_empty_sections_of_long_axes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "empty.celo"
    container.write(path, {}, {"a": np.zeros((0, 3))})
    assert container.read(path)[1]["a"].shape == (0, 3)
    forge(path, axes=len(shape), **{f"s{axis}": size for axis, size in enumerate(shape)})
    with pytest.raises(CelosiaError, match="has 0 bytes for shape"):
        container.read(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(CelosiaError, match=f"is {kind}; name a file"):
            load(path)


def test_manifest_must_be_an_object(path: Path) -> None:
    container.write(path, [], {})
    with pytest.raises(CelosiaError, match="section 'manifest' is not a JSON object"):
        load(path)


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'bad': object with 1 axes is not a section type"):
        container.write(tmp_path / "net.celo", {}, {"bad": np.array([None])})
    with pytest.raises(ValueError, match="must be 1 to 40 bytes"):
        container.write(tmp_path / "net.celo", {}, {"n" * 41: np.zeros(1)})
    (tmp_path / "taken.celo").mkdir()
    with pytest.raises(CelosiaError, match="taken.celo: is a folder and stays as it is"):
        make_program().save(tmp_path / "taken.celo")
    assert [entry.name for entry in tmp_path.iterdir()] == ["taken.celo"]
