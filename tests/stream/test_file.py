"""Program files: read back, and refused with any byte changed."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from celosia.bands.schedule import stream_schedule
from celosia.graph import Conv, Graph
from celosia.program import Program, program_of
from celosia.quantise import quantise
from celosia.serialise import load
from celosia_boards.targets import target as find
from celosia_spec import container, record
from celosia_spec.epilogue import Epilogue, Relu
from celosia_spec.errors import CelosiaError
from celosia_spec.isa.array import Array
from celosia_spec.qgraph import NodeRecord, QNode
from celosia_spec.record import graph_of, graph_sections, network_entries, network_of
from registered import carrying
from stream.networks import residual_network

ARRAY = Array(main_words=1024)


def carried(array):
    """Let a target "small" carry an array."""
    return carrying(array, "small", "ulx3s-85f" if array.flash else "ecp5-85f")


def made(graph, array=ARRAY) -> Program:
    return program_of(stream_schedule(graph, array), target="small", exponents="dynamic")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "net.celo"
    with carried(ARRAY):
        made(residual_network()).save(path)
        yield path


def check_read_back(program: Program, folder: Path) -> None:
    path, again = folder / "a.celo", folder / "b.celo"
    program.save(path)
    found = load(path)
    assert np.array_equal(found.program.entries, program.program.entries)
    assert found.program.places == program.program.places
    assert (found.program.list_at, found.program.slots) == (program.program.list_at,
                                                            program.program.slots)
    found.save(again)
    assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("array", [ARRAY, replace(ARRAY, flash=16)], ids=["resident", "flash"])
def test_a_file_is_read_back(array, tmp_path):
    with carried(array):
        check_read_back(made(residual_network(), array), tmp_path)


def test_a_tensor_that_two_layers_read_is_read_back(saved, tmp_path):
    """As in a residual block whose shortcut is a convolution, too."""
    rng = np.random.default_rng(7)

    def conv(name, source, rows, columns, kernel, **epilogue):
        return Conv(name=name, input=source, bias=rng.standard_normal(rows),
                    weight=rng.standard_normal((rows, columns, kernel, kernel)),
                    padding=(kernel // 2,) * 4, epilogue=Epilogue(**epilogue))

    nodes = (conv("a", "x", 4, 3, 3, activation=Relu()),
             conv("conv1", "a", 6, 4, 3, activation=Relu()), conv("shortcut", "a", 6, 4, 1),
             conv("conv2", "conv1", 6, 6, 3, add="shortcut", activation=Relu()),
             conv("y", "conv2", 2, 6, 1))
    graph = quantise(Graph(nodes=nodes, input="x", output="y", input_map=(3, 6, 6),
                           input_shape=(3, 6, 6), output_shape=(2, 6, 6)), acc_bits=24)
    assert [node.name for node in graph.nodes if node.input == "a"] == ["conv1", "shortcut"]
    check_read_back(made(graph), tmp_path)


def test_any_damaged_byte_is_refused(saved, tmp_path):
    data, path = saved.read_bytes(), tmp_path / "bad.celo"
    rng = np.random.default_rng(1)
    for at in [*range(0, 64, 7), *rng.integers(64, len(data), 40).tolist()]:
        bad = bytearray(data)
        bad[at] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bad)
        with pytest.raises(CelosiaError, match=str(path)):
            load(path)


def _changed(manifest, arrays, what):
    """Change one thing of a file whose sums are right."""
    if what == "stream":
        arrays["stream"] = arrays["stream"] ^ (np.arange(arrays["stream"].size).reshape(-1, 2) == 9)
        arrays["stream"] = arrays["stream"].astype(np.uint32)
    elif what == "section":
        arrays["more"] = arrays["stream"]
    elif what == "list":
        manifest["list"] += 1
    elif what == "places":
        manifest["places"]["a"][0] += 1
    elif what == "hash":
        manifest["array_hash"] ^= 1
    elif what == "array":
        manifest["array"]["main_words"] = 1000
    elif what == "type":
        manifest["array"]["lanes"] = "16"
    elif what == "target's":
        other = replace(ARRAY, main_words=2048)
        manifest["array"], manifest["array_hash"] = asdict(other), other.hash
    else:
        del manifest["array"]


@pytest.mark.parametrize(("what", "message"), [
    ("stream", "section 'stream' is not what"), ("section", "sections are not those"),
    ("list", "entry 'list' is not what"), ("places", "entry 'places' is not what"),
    ("hash", "another array"), ("array", "power of two"), ("type", "lanes"),
    ("target's", "its array's main_words is 2048, that of small 1024"),
    ("missing", "'array' is missing")])
def test_a_file_of_something_else_is_refused(saved, tmp_path, what, message):
    manifest, arrays = container.read(saved)
    _changed(manifest, arrays, what)
    path = tmp_path / "other.celo"
    container.write(path, manifest, arrays)
    with pytest.raises(CelosiaError, match=message) as refusal:
        load(path)
    assert "\n" not in str(refusal.value)
    assert "compile the model again" in str(refusal.value)


def test_a_network_that_its_array_has_no_room_for_is_refused(saved, tmp_path):
    small = replace(ARRAY, main_words=64)
    manifest, arrays = container.read(saved)
    path = tmp_path / "net.celo"
    container.write(path, manifest | {"array": asdict(small), "array_hash": small.hash}, arrays)
    with carried(small), pytest.raises(CelosiaError, match=(
            r"need \d+ words of main memory, the array has 64; .*; compile the model again$")):
        load(path)


def test_weights_that_come_from_flash_are_not_too_many():
    """What is checked before the network in a file is compiled: its rules alone."""
    weight = np.random.default_rng(8).standard_normal((1024, 1024, 1, 1))
    graph = quantise(Graph(nodes=(Conv(name="y", input="x", weight=weight, bias=None),), input="x",
                           output="y", input_map=(1024, 1, 1), input_shape=(1024, 1, 1),
                           output_shape=(1024, 1, 1)), acc_bits=32)
    array = replace(find("ulx3s-85f").array, acc_bits=32)
    manifest = network_entries(graph, target="ulx3s-85f", array=array, array_hash=array.hash,
                               exponents="dynamic", host=(), preprocessing=None)
    found = graph_of(network_of(manifest), graph_sections(graph))
    assert found.nodes[0].matrix.nnz > 1_000_000


@pytest.mark.parametrize("version", [4, 6, 8])
def test_a_file_of_another_version_is_refused(saved, tmp_path, monkeypatch, version):
    """Those of releases with other machines among them."""
    manifest, arrays = container.read(saved)
    path = tmp_path / "net.celo"
    with monkeypatch.context() as patch:
        patch.setattr(container, "VERSION", version)
        container.write(path, manifest, arrays)
    with pytest.raises(CelosiaError) as refusal:
        load(path)
    assert str(refusal.value) == (
        f"{path}: program file version {version}, this release reads 7; compile the model again, "
        f"or use the release that wrote the file")


def test_a_file_has_every_field_of_a_node():
    arrays = {"matrix", *record._ROW_FIELDS}
    kept = arrays | {part.name for part in fields(NodeRecord)}
    assert {part.name for part in fields(QNode)} == kept
