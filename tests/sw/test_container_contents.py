"""Program files of sound bytes and wrong contents: each is refused, with what is wrong."""

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compile, load
from celosia.bands.schedule import stream_schedule
from celosia.program import program_of
from celosia_spec import container
from celosia_spec.errors import CelosiaError
from celosia_spec.isa.numbers import EXPONENT_SLOTS
from program_files import ARRAY, make_program, same


@pytest.fixture
def path(tmp_path: Path) -> Path:
    result = tmp_path / "net.celo"
    make_program().save(result)
    return result


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


def test_manifest_holds_the_array(path: Path) -> None:
    manifest, _ = container.read(path)
    assert manifest["array"] == asdict(ARRAY)
    assert json.loads(json.dumps(manifest)) == manifest


def test_more_tensors_than_slots(path: Path) -> None:
    """A network may have any number of them, as long as few wait for a reader."""
    layers = [layer for _ in range(EXPONENT_SLOTS) for layer in (nn.Linear(4, 4), nn.ReLU())]
    program = compile(nn.Sequential(*layers), torch.zeros(1, 4), target="icebreaker")
    program.save(path)
    assert len(load(path).graph.tensors) == EXPONENT_SLOTS + 1
