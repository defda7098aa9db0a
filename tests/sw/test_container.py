"""Program files: round trips, and every way of being damaged."""

import itertools
import json
import os
import struct
import zlib
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

from celosia import load
from celosia.bands.schedule import stream_schedule
from celosia.program import Program, program_of
from celosia_boards.targets import target
from celosia_spec import container
from celosia_spec.epilogue import Dynamic, Epilogue, Pool, Relu, Static
from celosia_spec.errors import CelosiaError
from celosia_spec.qgraph import Geometry, NodeKind, QGraph, QNode, QTensor

HEADER, ENTRY = 24, 80
ARRAY = target("hx8k").array


def make_program(exponents: str = "dynamic") -> Program:
    """Return a small program: a pooled convolution with padding, and a linear layer."""
    def rule(least: int) -> Dynamic | Static:
        return Dynamic(least=least) if exponents == "dynamic" else Static(value=3, least=least)

    tensors = [
        QTensor(name="x", shape=(1, 4, 4), user_shape=(1, 4, 4), bits=8, exponent=rule(-9)),
        QTensor(name="conv1", shape=(2, 1, 2), user_shape=(2, 1, 2), bits=8, exponent=rule(-16)),
        QTensor(name="y", shape=(3, 1, 1), user_shape=(3,), bits=16, exponent=rule(-16))]
    first = csr_array((np.array([5, -7, 127], np.int16), np.array([0, 3, 1]),
                       np.array([0, 2, 3])), shape=(2, 4))
    second = csr_array(np.array([[1, 0, 0, -2], [0, 0, 0, 0], [9, 8, 7, 6]], np.int16))
    zeros = np.zeros(3, np.int64)
    nodes = (
        QNode(name="conv1", kind=NodeKind.CONV, inputs=("x",), output="conv1", matrix=first,
              weights=8,
              geometry=Geometry(kernel=(2, 2), padding=(0, 1, 0, 0)), sw=np.array([-7, -6]),
              bias=np.array([100, 0]), sb=np.array([-14, -6]),
              epilogue=Epilogue(activation=Relu(), pool=Pool(window=(2, 2), stride=(2, 2))),
              raised=((1, 3),)),
        QNode(name="fc1", kind=NodeKind.LINEAR, inputs=("conv1",), output="y", matrix=second,
              weights=12, geometry=Geometry(kernel=(1, 2)), sw=zeros - 6, bias=zeros, sb=zeros - 6))
    graph = QGraph(tensors={tensor.name: tensor for tensor in tensors}, nodes=nodes, input="x",
                   output="y", weight_bits=8, activation_bits=8, acc_bits=24,
                   remarks=("the bias of row 0 of conv1 holds x",))
    return program_of(stream_schedule(graph, ARRAY), target="hx8k", exponents=exponents)


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
    if isinstance(left, tuple | list):
        return (type(left) is type(right) and len(left) == len(right)
                and all(map(same, left, right)))
    if is_dataclass(left):
        return type(left) is type(right) and all(
            same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left))
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


def part(name: str, first: int, shape: list[int], operator: str | None = None,
         axis: int | None = None) -> dict:
    """Return the manifest's entry of an output, with a layer of the host's or without."""
    host = [] if operator is None else [
        {"name": "s", "operator": operator, "axis": axis, "shape": shape}]
    return {"name": name, "first": first, "shape": shape, "host": host}


def taken(name: str, *shape: int) -> dict:
    """Return the manifest's entry of one of several inputs."""
    return {"name": name, "shape": list(shape)}


HUGE = 10 ** 18
GRAPH_CHANGES = [
    # The array is one that the target carries.
    (entry("array_hash", value=1), "it is for another array: its hash is not"),
    (entry("array", "lanes", value=16), "it is for another array"),
    (entry("array", "lanes", value=5), "lanes must be 8 or 16, not 5"),
    (entry("array", "lanes", value="8"), "manifest entry array.lanes"),
    (entry("array", "lanes", value=True), "manifest entry array.lanes"),
    (entry("array", "ring", value=HUGE), f"ring must be a power of two, 64 to 4096, not {HUGE}"),
    (entry("array", "more", value=1), "manifest entry 'array' is not what"),
    (entry("target", value="none"), "unknown target 'none'"),
    (entry("target", value="n" * 5000), "unknown target 'nnn.*nnn…"),
    (entry("target", value="\x1b[31m\n"), "unknown target"),
    (entry("target", value="ecp5-85f"), "it is for another array|that of ecp5-85f"),
    (entry("exponents", value="both"), "exponents must be dynamic or static"),
    (entry("exponents", value="static"), "none where all are static"),
    (entry("weight_bits", value=9), "weight_bits must be 4 to 8"),
    (entry("weight_bits", value=-HUGE), "weight_bits must be 4 to 8"),
    (entry("activation_bits", value=7), "'x': mantissas of 8 bits"),
    (entry("acc_bits", value=25), "acc_bits must be 24 or 32"),
    # Tensors.
    (entry("tensors", 0, "name", value="conv1"), "tensor 'conv1' stands twice"),
    (entry("tensors", 0, "name", value="a\nb"), "must have 1 to 1000 printable characters"),
    (entry("tensors", 0, "name", value="\ud800"), "Invalid JSON: unexpected end of hex"),
    (entry("tensors", 0, "name", value="n" * 1001), "must have 1 to 1000 printable characters"),
    (entry("tensors", 0, "shape", value=[1, 4]), "manifest entry tensors.0.shape"),
    (entry("tensors", 0, "shape", value=[1, 0, 4]), "shape must be 1 to 65536, not 0"),
    (entry("tensors", 0, "shape", value=[HUGE, 1, 1]), f"not {HUGE}"),
    (entry("tensors", 0, "shape", value=[1, 512, 513]),
     "shape must be 1 to 262144, not 262656"),
    (entry("tensors", 0, "shape", value=[1, 2, 8]), "does not lead from"),
    (entry("tensors", 0, "user_shape", value=[17]), "is not a shape of"),
    (entry("tensors", 0, "user_shape", value=[-4, -4]), "user_shape must be 1 to"),
    (entry("tensors", 0, "user_shape", value=[1] * 70 + [16]), "is not a shape of"),
    (entry("tensors", 0, "bits", value=16), "mantissas of 16 bits"),
    (entry("tensors", 2, "bits", value=8), "mantissas of 8 bits"),
    (entry("tensors", 2, "signed", value=False), "the output's mantissas have a sign"),
    (entry("tensors", 1, "signed", value=False), "manifest entry 'list' is not what"),
    (entry("tensors", 0, "exponent", "least", value=-17), "exponent must be -16 to 15, not -17"),
    (entry("tensors", 0, "exponent", "least", value=-16), "the bias of row 0 may leave the accum"),
    (entry("tensors", 0, "exponent", value={"kind": "static", "value": 1, "least": -9}),
     "a static exponent where all are dynamic"),
    (entry("tensors", 0, "exponent", value={"kind": "kept", "of": "y", "least": -9}),
     "the input 'x' keeps an exponent"),
    (entry("tensors", 1, "exponent", value={"kind": "kept", "of": "conv1", "least": -9}),
     "'conv1' keeps exponents, but those of 'x' and 'conv1' differ"),
    (entry("tensors", 1, "exponent", value={"kind": "kept", "of": "x", "least": -16}),
     "keeps exponents, but a row of it is not one element"),
    (entry("tensors", 0, "exponent", "kind", value="other"), "manifest entry tensors.0.exponent"),
    (entry("nodes", 0, "epilogue", "activation", "kind", value="gelu"),
     "manifest entry nodes.0.epilogue.activation"),
    (entry("nodes", 0, "epilogue", "activation", value={"kind": "clamp", "low": 0.0, "high": 6.1}),
     "'conv1' clamps to 6.1, which is no mantissa of 8 bits"),
    (entry("nodes", 0, "epilogue", "activation", value={"kind": "clamp", "low": -1.0, "high": 6.0}),
     "a clamp's lower bound must be 0 or -6, not -1"),
    (entry("nodes", 0, "epilogue", "activation", value={"kind": "clamp", "low": 0.0, "high": 6.0}),
     "section 'stream' is not what"),
    (entry("tensors", value=[]), "the input 'x' is no tensor"),
    # Nodes: references, order, shapes.
    (entry("nodes", value=[]), "no node makes 'conv1'"),
    (entry("nodes", 0, "inputs", value=[]), "'conv1' reads nothing"),
    (entry("nodes", 1, "inputs", value=["conv1", "x"]),
     "'fc1' reads other tensors together with the input 'x', which the host has rounded already"),
    (entry("nodes", 1, "inputs", value=["conv1", "conv1"]),
     "manifest entry 'list' is not what"),
    (entry("nodes", 1, "least", value=-15), "'fc1': least exponent must be -16 to -16, not -15"),
    (entry("nodes", 1, "least", value=HUGE), f"least exponent must be -16 to -16, not {HUGE}"),
    (entry("nodes", 0, "inputs", value=["z"]), "reads 'z', which no node before it makes"),
    (entry("nodes", 0, "inputs", value=["y"]), "reads 'y', which no node before it makes"),
    (entry("nodes", 0, "output", value="x"), "makes 'x', which is no tensor or made already"),
    (entry("nodes", 0, "output", value="z"), "makes 'z', which is no tensor or made already"),
    (entry("nodes", 0, "name", value="fc1"), "node 'fc1' stands twice"),
    (entry("nodes", 0, "name", value=""), "node '' must have 1 to 1000"),
    (entry("nodes", 0, "kind", value="\x1b[31m"), "manifest entry nodes.0.kind"),
    (entry("nodes", 0, "kind", value="conv1d"), "manifest entry nodes.0.kind"),
    (entry("nodes", 0, "kind", value="copy"), "manifest entry nodes.0.kind"),
    (entry("nodes", 1, "epilogue", "add", value="z"), "reads 'z', which no node before it makes"),
    (entry("nodes", 1, "epilogue", "add", value="x"), "residual operand 'x' has not the shape"),
    (entry("nodes", 0, "geometry", "kernel", value=[2, 6]), "does not lead from"),
    (entry("nodes", 0, "geometry", "kernel", value=[0, 2]), "dilation must be 1 to 65536, not 0"),
    (entry("nodes", 0, "geometry", "stride", value=[1, 0]), "dilation must be 1 to 65536, not 0"),
    (entry("nodes", 0, "geometry", "dilation", value=[HUGE, 1]), f"not {HUGE}"),
    (entry("nodes", 0, "geometry", "padding", value=[0, -1, 0, 0]), "padding must be 0 to 65536"),
    (entry("nodes", 0, "geometry", "padding", value=[0, 65536, 0, 0]),
     "padded input must be 1 to 262144, not 262160"),
    (entry("nodes", 0, "epilogue", "pool", "window", value=[0, 1]),
     "pool must be 1 to 65536, not 0"),
    (entry("nodes", 0, "epilogue", "pool", "stride", value=[2, 3]), "does not lead from"),
    (entry("nodes", 0, "epilogue", "pool", value=None), "does not lead from"),
    (entry("nodes", 0, "weights", value=2), "number of weights must be 3 to 8, not 2"),
    (entry("nodes", 0, "raised", value=[[2, 1]]), "raised rows must be 0 to 1, not 2"),
    (entry("nodes", 0, "raised", value=[[0, 0]]), "bits of raised rows must be 1 to 31, not 0"),
    (entry("nodes", 0, "raised", value=[[0, HUGE]]), f"must be 1 to 31, not {HUGE}"),
    (entry("nodes", 0, "raised", value=[[1, 1], [0, 1]]), "raised rows must rise"),
    (entry("nodes", 0, "raised", value=[[1, 1], [1, 1]]), "raised rows must rise"),
    (entry("nodes", 0, "raised", value=[[1]]), "manifest entry nodes.0.raised"),
    (entry("remarks", value=["a\x1b[2J"]), "must have 1 to 4000 printable characters"),
    (entry("remarks", value=["r" * 4001]), "must have 1 to 4000 printable characters"),
    (entry("remarks", value=["r"] * 33), "33 remarks, at most 32 are made"),
    (entry("remarks", value="none"), "manifest entry remarks"),
    (entry("host", value=None), "manifest entry host"),
    (entry("host", value=[{"name": "s", "operator": "softmax", "axis": 0}]),
     "manifest entry host.0.shape"),
    (entry("host", value=[{"name": "s", "operator": "softmax", "axis": HUGE, "shape": [3]}]),
     f"softmax over axis {HUGE} of the shape"),
    (entry("host", value=[{"name": "\n", "operator": "sigmoid", "axis": None, "shape": [3]}]),
     "must have 1 to 1000 printable characters"),
    (entry("host", value=[{"name": "s", "operator": "os.system", "axis": None, "shape": [3]}]),
     "the host has no operator"),
    (entry("returns", value=[]), "manifest entry 'returns' is not what"),
    (entry("returns", value=None), "manifest entry returns"),
    (entry("returns", value=[{"name": "a"}]), "manifest entry returns.0.first"),
    (entry("returns", value=[part("a", 0, [3])]), "1 parts of the output, 2 to 64 can be"),
    (entry("returns", value=[part(str(k), 0, [3]) for k in range(65)]), "65 parts of the output"),
    (entry("returns", value=[part("a", 0, [1])] * 2), "two parts of the output have one name"),
    (entry("returns", value=[part("a\x1b[2J", 0, [1]), part("b", 1, [2])]),
     "must have 1 to 1000 printable characters"),
    *((entry("returns", value=[part("a", 0, [1]), part("b", first, shape)]), "are no part of 3")
      for first, shape in ((1, [3]), (-1, [1]), (3, [1]), (0, [0]), (0, [-1, -1]), (HUGE, [1]),
                           (0, [HUGE]))),
    (entry("returns", value=[part("a", 0, [1]), part("b", 1, [2], "softmax", 1)]),
     "softmax over axis 1 of the shape"),
    (entry("returns", value=[part("a", 0, [1]), part("b", 1, [2], "os.system", None)]),
     "the host has no operator"),
    (entry("takes", value=[]), "manifest entry 'takes' is not what"),
    (entry("takes", value=None), "manifest entry takes"),
    (entry("takes", value=[{"name": "a"}]), "manifest entry takes.0.shape"),
    (entry("takes", value=[taken("a", 1, 4, 4)]), "1 parts of the input, 2 to 64 can be"),
    (entry("takes", value=[taken("a", 1, 4, 4)] * 2), "two parts of the input have one name"),
    (entry("takes", value=[taken("a\x1b[2J", 1, 2, 2), taken("b", 4)]),
     "must have 1 to 1000 printable characters"),
    *((entry("takes", value=[taken("a", 1, 2, 2), taken("b", *shape)]), "are no input of the shape")
      for shape in ((1, 4, 4), (1,), (0,), (), (0, 4, 4), (-1, -1, 4), (HUGE,), (1, 5, 1),
                    (1, 1, HUGE), (1,) * 9)),
    (entry("preprocessing", value=[]), "manifest entry preprocessing"),
    (entry("preprocessing", value={"scale": 1.0, "mean": [0.0], "deviation": [0.0], "labels": []}),
     "deviation must be above 0"),
    (entry("preprocessing", value={"scale": 1.0, "mean": [1.0] * 3, "deviation": [1.0],
                                   "labels": []}), "mean and deviation of 3 channels, and there"),
    (entry("preprocessing", value={"scale": None, "mean": [0.0], "deviation": [1.0],
                                   "labels": ["a", "b\x1b[2J", "c"]}),
     "must be 1 to 200 printable"),
    (entry("preprocessing", value={"scale": None, "mean": [0.0], "deviation": [1.0],
                                   "labels": ["a"]}), "1 labels, and the network tells 3 classes"),
    (entry("preprocessing", value={"scale": 1, "mean": [0], "deviation": [1], "labels": []}),
     "manifest entry 'preprocessing' is not what"),
    (entry("output", value="conv1"), "mantissas of 8 bits"),
    (entry("input", value="conv1"), "reads 'x', which no node before it makes"),
    # Weights and rows.
    (array("node/0/sw", None), "'node/0/sw' is missing"),
    (array("node/0/sw", np.array([-7, 32])), "sw must be -32 to 31, not 32"),
    (array("node/0/sw", np.array([-2 ** 63, -6])), "sw must be -32 to 31, not -9223"),
    (array("node/0/sb", np.zeros(3, np.int64)), "sb must have one entry for each of 2 rows"),
    (array("node/0/sb", np.array([2 ** 63 - 1, 0])), "sb must be -128 to 127, not 9223"),
    (array("node/0/sb", np.array([14, 0])), "the bias of row 0 may leave the accumulator"),
    (array("node/0/bias", np.array([0, -2 ** 15])), "bias must be -32767 to 32767, not -32768"),
    (array("node/0/bias", np.array([0.5, 0])), "must be a vector of int64"),
    (array("node/0/data", np.array([5, -7, -128], np.int16)), "weights must be -127 to 127"),
    (array("node/0/data", np.array([5, -7], np.int16)), "are not those of 2 rows"),
    (array("node/0/indices", np.array([0, 3, 4], np.int32)), "indices"),
    (array("node/0/indices", np.array([3, 0, 1], np.int32)), "must rise in every row"),
    (array("node/0/indices", np.array([3, 3, 1], np.int32)), "must rise in every row"),
    (array("node/0/indptr", np.array([0, 4, 3], np.int64)), "are not those of 2 rows"),
    (array("node/0/indptr", np.array([0, -1, 3], np.int64)), "are not those of 2 rows"),
    (array("node/0/indptr", np.array([0, 2, 2 ** 62], np.int64)), "are not those of 2 rows"),
    # What follows from the graph.
    (entry("list", value="two"), "manifest entry 'list' is not what this release"),
    (entry("list", value=HUGE), "manifest entry 'list' is not what"),
    (entry("list", value=None), "manifest entry 'list' is not what"),
    (entry("reads", "fc1", value=0), "manifest entry 'reads' is not what"),
    (entry("reads", value=[]), "manifest entry 'reads' is not what"),
    (entry("slots", value={"x": 0, "y": 32}), "manifest entry 'slots' is not what"),
    (entry("places", "z", value=[0, 1, 1, 0]), "manifest entry 'places' is not what"),
    (entry("places", "conv1", 0, value=-1), "manifest entry 'places' is not what"),
    (entry("places", "y", 3, value=True), "manifest entry 'places' is not what"),
    (entry("hop", value=1), "each .*static exponents"),
    (entry("hop", value=HUGE), "static exponents"),
    (entry("hop", value="one"), "manifest entry hop: it must be a whole number"),
    (entry("more", value=1), "manifest entry 'more' is not what"),
    (array("stream", np.zeros((45, 2), np.uint32)), "section 'stream' is not what"),
    (array("stream", np.zeros((45, 2), np.int64)), "section 'stream' is not what"),
    (array("stream", np.zeros((44, 2), np.uint32)), "section 'stream' is not what"),
    (array("stream", np.zeros(90, np.uint32)), "section 'stream' is not what"),
    (array("stream", None), "its sections are not those of its network"),
    (array("extra", np.zeros(1)), "its sections are not those of its network"),
]


@pytest.mark.parametrize(("change", "problem"), GRAPH_CHANGES)
def test_well_formed_but_wrong(path: Path, change, problem: str) -> None:
    rewrite(path, change)
    with pytest.raises(CelosiaError, match=problem) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: not a valid program, ")
    assert str(caught.value).endswith("; compile the model again")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


def test_sections_in_each_others_place(path: Path) -> None:
    manifest, arrays = container.read(path)
    for first, second in itertools.combinations(arrays, 2):
        if (same(arrays[first], arrays[second])
                or arrays[first].dtype != arrays[second].dtype):
            continue
        other = arrays | {first: arrays[second], second: arrays[first]}
        container.write(path, manifest, other)
        with pytest.raises(CelosiaError, match="not a valid program"):
            load(path)


def test_sections_in_another_order(path: Path) -> None:
    manifest, arrays = container.read(path)
    container.write(path, manifest, dict(reversed(arrays.items())))
    with pytest.raises(CelosiaError, match="its sections are not those of its network"):
        load(path)


def with_manifest(path: Path, text: bytes) -> None:
    """Put ``text`` in the manifest's place, everything else mended."""
    before = container.to_json
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(container, "to_json", lambda _: text)
        container.write(path, {}, {})
    assert container.to_json is before


@pytest.mark.parametrize(("text", "problem"), [
    (b"[" * 100_000, "is not JSON"), (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "is not JSON"),
    (b'{"a":1,"a":2}', "is not written as Celosia"), (b'{"a": 1}', "is not written as Celosia"),
    (b'{"a":NaN}', "is not JSON"), (b'{"a":-Infinity}', "is not JSON"),
    (b'{"a":1e999}', "is not JSON"),
    (b'{"a":' + b"9" * 5_000 + b"}", "a number of more than 64 bits"),
    (b'{"a":' + b"9" * 20 + b"}", "a number of more than 64 bits"),
    (b"{", "is not JSON"), (b"", "is not JSON"),
    (b"\xff", "is not JSON"), (b"\xef\xbb\xbf{}", "is not written as Celosia"),
    (b"3", "is not a JSON object"),
    (b"{}", "'target' is missing")])
def test_odd_manifests(path: Path, text: bytes, problem: str) -> None:
    with_manifest(path, text)
    with pytest.raises(CelosiaError, match=problem) as caught:
        load(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


@pytest.mark.parametrize("change", [
    entry("tensors", 0, "exponent", "value", value=-17),
    entry("tensors", 0, "exponent", "value", value=16),
    entry("tensors", 0, "exponent", "value", value=-10),    # below the least
    entry("tensors", 0, "exponent", value={"kind": "dynamic", "least": -9})])
def test_static_exponents(path: Path, change) -> None:
    make_program("static").save(path)
    assert same(make_program("static"), load(path))
    rewrite(path, change)
    with pytest.raises(CelosiaError, match="static"):
        load(path)


def test_a_change_that_means_the_same(path: Path) -> None:
    """The user's shape of a map may be any of as many elements; how far rows were raised is
    told, and computes nothing."""
    rewrite(path, entry("tensors", 0, "user_shape", value=[2, 8]))
    rewrite(path, entry("nodes", 0, "raised", value=[[1, 2]]))
    found = load(path).graph
    assert found.tensors["x"].user_shape == (2, 8) and found.nodes[0].raised == ((1, 2),)


def test_names_that_could_not_be_read_back(path: Path) -> None:
    before, program = path.read_bytes(), make_program()
    first, second = program.graph.nodes
    graph = replace(program.graph, nodes=(replace(first, name="conv\n1"), second))
    bad = program_of(stream_schedule(graph, ARRAY), target="hx8k", exponents="dynamic")
    with pytest.raises(CelosiaError, match=r"layer or tensor 'conv\\n1' must have .*; rename the"):
        bad.save(path)
    assert path.read_bytes() == before


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


def test_manifest_holds_the_array(path: Path) -> None:
    manifest, _ = container.read(path)
    assert manifest["array"] == asdict(ARRAY)
    assert json.loads(json.dumps(manifest)) == manifest
