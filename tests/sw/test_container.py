"""Program files: round trips, and every way of being damaged."""

import json
import struct
import zlib
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from celosia import container, load
from celosia.errors import CelosiaError
from celosia.program import Layer, Place, Program
from celosia.qgraph import Geometry, Pool, QGraph, QNode, QTensor
from celosia_hw.isa import DESCRIPTOR_WORDS, ArrayConfig, Space

HEADER, ENTRY = 24, 80
ARRAY = ArrayConfig(lanes=8, weight_rows=64, bank_rows=32)


def make_program() -> Program:
    """Return a small program: one convolution, pooled, of a 1x4x4 map; figures made up."""
    tensors = {
        "x": QTensor(name="x", shape=(1, 4, 4), user_shape=(1, 4, 4), bits=8, exponent_min=-16,
                     static_exponent=-1),
        "y": QTensor(name="y", shape=(2, 1, 1), user_shape=(2,), bits=16, exponent_min=-9,
                     static_exponent=None)}
    matrix = csr_array((np.array([5, -7, 127], np.int16), np.array([0, 3, 1]),
                        np.array([0, 2, 3])), shape=(2, 4))
    node = QNode(name="conv1", kind="conv", input="x", output="y", matrix=matrix, weights=8,
                 geometry=Geometry(kernel=(2, 2), padding=(0, 1, 0, 0)),
                 sw=np.array([-7, -6]), bias=np.array([100, 0]), sb=np.array([-14, 0]),
                 relu=True, pool=Pool(window=(2, 2), stride=(2, 2)))
    graph = QGraph(tensors=tensors, nodes=(node,), input="x", output="y", weight_bits=8,
                   activation_bits=8, acc_bits=24)
    layer = Layer(name="conv1", kind="conv", rows=2, columns=4, positions=9, weights=8, nonzeros=3,
                  dense_macs=72, macs=27, predicted_cycles=20, bound_cycles=4, groups=2,
                  weight_words=3, padding=0, weight_bytes=20,
                  lane_cycles={"useful": 27, "idle": 133})
    images = {Space.PROGRAM: np.arange(DESCRIPTOR_WORDS + 1), Space.WEIGHTS: np.array([1, 2, 3]),
              Space.ROWS: np.array([2**32 - 1, 4]), Space.TAPS: np.array([5]),
              Space.WRITES: np.array([], int)}
    places = {"x": Place(space=Space.BANKS, addresses=np.arange(32).reshape(2, 1, 4, 4),
                         written=-1),
              "y": Place(space=Space.STORE, addresses=np.arange(2).reshape(1, 2, 1, 1),
                         written=0)}
    return Program(target="icebreaker", array=ARRAY, exponents="dynamic", graph=graph,
                   images={space: image.astype(np.uint32) for space, image in images.items()},
                   descriptors=1, slots={"x": 0, "y": 1}, places=places, layers=(layer,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    result = tmp_path / "net.celo"
    make_program().save(result)
    return result


def same(left: object, right: object) -> bool:
    """Equal values, arrays element by element and type by type."""
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, csr_array):
        return left.shape == right.shape and all(
            np.array_equal(getattr(left, part), getattr(right, part))
            for part in ("data", "indices", "indptr"))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, Program | QGraph | QNode | Place):
        return all(same(getattr(left, field.name), getattr(right, field.name))
                   for field in fields(left))
    return left == right and type(left) is type(right)


def test_round_trip(path: Path) -> None:
    loaded = load(path)
    assert same(make_program(), loaded)
    assert [entry.name for entry in path.parent.iterdir()] == ["net.celo"]
    other = path.with_name("again.celo")
    loaded.save(other)
    assert other.read_bytes() == path.read_bytes()


def test_same_sees_a_difference() -> None:
    program = make_program()
    assert not same(program, replace(program, slots={"x": 0, "y": 2}))
    assert not same(program, replace(program, images=program.images | {
        Space.TAPS: np.array([6], np.uint32)}))


def test_every_byte_of_header_and_table_counts(path: Path) -> None:
    data = path.read_bytes()
    count = struct.unpack_from("<I", data, 12)[0]
    for at in range(HEADER + count * ENTRY + 4):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1:])
        with pytest.raises(CelosiaError, match="net.celo"):
            load(path)


def test_every_section_counts(path: Path) -> None:
    data = path.read_bytes()
    count = struct.unpack_from("<I", data, 12)[0]
    damaged = 0
    for index in range(count):
        entry = struct.unpack_from("<40sBB2xI4IQQ", data, HEADER + index * ENTRY)
        name, (offset, length) = entry[0].rstrip(b"\0").decode(), entry[-2:]
        for at in {offset, offset + length // 2, offset + length - 1} if length else ():
            path.write_bytes(data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1:])
            with pytest.raises(CelosiaError, match=f"section '{name}' does not match its CRC-32; "
                                                   f"copy it again"):
                load(path)
        damaged += bool(length)
    assert damaged == count - 1     # all but the empty image


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
    with pytest.raises(CelosiaError, match="version 2, this release reads 1; compile"):
        load(path)


def forge(path: Path, **changes: object) -> None:
    """Rewrite the table's first array section with ``changes`` and a CRC that matches them."""
    data = bytearray(path.read_bytes())
    names = ("name", "code", "axes", "crc", "s0", "s1", "s2", "s3", "offset", "length")
    layout, at = struct.Struct("<40sBB2xI4IQQ"), HEADER + ENTRY
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
    ({"name": b"image/other"}, "'image/program' is missing"),
])
def test_forged_table(path: Path, changes: dict, problem: str) -> None:
    forge(path, **changes)
    with pytest.raises(CelosiaError, match=problem):
        load(path)


def rewrite(path: Path, change) -> None:
    """Write the file again, well formed, after ``change(manifest, arrays)``."""
    manifest, arrays = container.read(path)
    change(manifest, arrays)
    container.write(path, manifest, arrays)


def entry(*keys, value):
    """Return a change that puts ``value`` at ``keys`` of the manifest."""
    def change(manifest: dict, _: dict) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = value
    return change


def array(name: str, value: np.ndarray | None):
    """Return a change that replaces or removes an array."""
    def change(_: dict, arrays: dict) -> None:
        arrays.pop(name) if value is None else arrays.update({name: value})
    return change


@pytest.mark.parametrize(("change", "problem"), [
    (entry("array_hash", value=1), "program for another array, its hash is 00000001"),
    (entry("array", "lanes", value=16), "program for another array"),
    (entry("array", "lanes", value=5), "lanes must be a power of two"),
    (entry("array", "lanes", value="8"), "manifest entry array.lanes"),
    (entry("descriptors", value="one"), "manifest entry descriptors"),
    (entry("layers", 0, "kind", value=None), "manifest entry layers.0.kind"),
    (entry("descriptors", value=2), "2 descriptors do not fit their image"),
    (entry("layers", value=[]), "0 layers for 1 descriptors"),
    (entry("slots", value={"x": 0, "y": 32}), "exponent slots must be 0 to 31"),
    (entry("slots", value={"z": 0}), "slots name the unknown tensor 'z'"),
    (entry("places", 1, "tensor", value="z"), "places name the unknown tensor 'z'"),
    (entry("places", value=[]), "the input or the output has no place"),
    (entry("nodes", 0, "input", value="z"), "nodes name the unknown tensor 'z'"),
    (array("node/0/sw", None), "'node/0/sw' is missing"),
    (array("node/0/sb", np.zeros(3, np.int64)), "sw, bias and sb must have one entry a row"),
    (array("node/0/indices", np.array([0, 3, 4], np.int32)), "indices"),
    (array("node/0/indices", np.array([3, 0, 1], np.int32)), "must rise in every row"),
    (array("node/0/indptr", np.array([0, 4, 3], np.int64)), "not a valid program"),
    (array("image/taps", np.zeros(257, np.uint32)), "taps needs 257 of 256 words"),
    (array("image/taps", np.zeros(2, np.int64)), "memory images must be vectors of uint32"),
    (array("place/0", np.full((1, 1, 4, 4), 8 * 32)), "banks needs 257 of 256 words"),
    (array("place/0", np.full((1, 1, 4, 4), -1)), "address below zero"),
    (array("place/0", np.zeros((1, 4, 4), np.int64)), "an address for each element"),
])
def test_well_formed_but_wrong(path: Path, change, problem: str) -> None:
    rewrite(path, change)
    with pytest.raises(CelosiaError, match=problem) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))


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


def test_manifest_holds_the_array(path: Path) -> None:
    manifest, _ = container.read(path)
    assert manifest["array"] == asdict(ARRAY)
    assert json.loads(json.dumps(manifest)) == manifest
