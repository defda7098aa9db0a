"""What a ``.pt2`` file says of itself is checked against what it holds, before torch sees it."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from celosia.frontend import import_model
from celosia.frontend.export import load_exported
from celosia.frontend.pt2 import operators, shapes
from celosia.frontend.pt2.checks import Unsound
from celosia.reading import FileError
from celosia_spec.errors import CelosiaError, CompileError

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = (f"data/{kind}/model_{kind}_config.json" for kind in ("weights", "constants"))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 3)
        self.register_buffer("mask", torch.ones(4, dtype=torch.bool))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.relu(self.first(x)) * self.mask)


@pytest.fixture(scope="module")
def entries() -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(1, 4),)), buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: dict[str, bytes], root: str = "archive/",
          method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(f"{root}{name}", data)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CelosiaError) as caught:
        load_exported(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    return str(caught.value)


def first_weight(table: dict) -> dict:
    return table["config"]["first.weight"]


def meta(**changes: object) -> Callable[[dict], None]:
    return lambda table: first_weight(table)["tensor_meta"].update(changes)


def sizes(*numbers: int) -> list[dict]:
    return [{"as_int": number} for number in numbers]


def graph(program: dict) -> dict:
    return program["graph_module"]["graph"]


def signature(program: dict) -> dict:
    return program["graph_module"]["signature"]


def node(**changes: object) -> Callable[[dict], None]:
    return lambda program: graph(program)["nodes"][0].update(changes)


@pytest.mark.parametrize(("name", "change", "message"), [
    (WEIGHTS, meta(sizes=sizes(4, 5), strides=sizes(5, 1)), "needs 80 bytes, its entry has 64"),
    (WEIGHTS, meta(storage_offset={"as_int": 1}), "needs 68 bytes, its entry has 64"),
    (WEIGHTS, meta(sizes=sizes(2**31, 2**31), strides=sizes(0, 0)), "at most 4294967296 are read"),
    (WEIGHTS, meta(strides=sizes(-4, 1)), "-4 where a whole number from 0"),
    (WEIGHTS, meta(strides=sizes(1)), "2 sizes and 1 strides"),
    (WEIGHTS, meta(sizes=[{"as_expr": {"expr_str": "1"}}] * 2), "has a size that is 'as_expr'"),
    (WEIGHTS, meta(dtype=9), "type 9, which are not real numbers; keep the network in float32"),
    (WEIGHTS, meta(layout=1), "not a dense tensor; make it dense"),
    (WEIGHTS, meta(colour=1), "has a field 'colour' that this release does not know"),
    (WEIGHTS, lambda table: first_weight(table).update(path_name="../weight_0"), "is missing"),
    (WEIGHTS, lambda table: first_weight(table).update(tensor_meta=None), "None where an object"),
    (WEIGHTS, lambda table: table["config"].pop("mask"), "which no table names"),
    (MODEL, lambda program: next(spec["buffer"] for spec in signature(program)["input_specs"]
                                 if "buffer" in spec).update(buffer_name="gone"),
     "the buffer 'gone' is not in the file"),
    (WEIGHTS, lambda table: table["config"]["mask"].update(
        path_name=first_weight(table)["path_name"]), "bytes as another type"),
    (MODEL, lambda program: graph(program)["tensor_values"]["p_first_weight"].update(
        sizes=sizes(4, 3)), "'first.weight' has another shape or type in the graph"),
    (MODEL, lambda program: graph(program)["nodes"].reverse(), "which is not computed before it"),
    (MODEL, lambda program: graph(program)["inputs"].pop(), "not computed before it"),
    (MODEL, lambda program: graph(program)["outputs"].append(graph(program)["outputs"][0]),
     "its signature has 1 outputs, its graph 2"),
    (MODEL, node(target="torch.os.system"), "torch.os.system): not supported by this machine"),
    (MODEL, node(target="torch.ops.aten.save.default"), "save): not supported by this machine"),
    (MODEL, node(target="torch.ops.aten.tensor_split.sections"),
     "split tensors along the channels only"),
    (MODEL, node(target="torch.ops.aten.gru.data"), "gru): not supported by this machine"),
    (MODEL, node(target="torch.ops.aten.lstm.input"), "use linear layers or convolutions over"),
    (MODEL, node(target="torch.ops.load_library"), "not supported by this machine"),
    (MODEL, node(target="torch.ops.higher_order.wrap"), "not supported by this machine"),
    (MODEL, node(target=3), "an operator is 3"),
    (MODEL, node(inputs=[{"name": "input", "arg": {"as_string": "x.so"}, "kind": 1}]),
     "an argument is 'x.so', which no operator that is known takes"),
    (MODEL, node(inputs=[{"name": "file", "arg": {"as_int": 1}, "kind": 1}]), "it does not take"),
    *((MODEL, node(target=f"torch.ops.aten.{target}",
                   inputs=[{"name": word, "arg": {"as_int": 1000}, "kind": 2}]),
       f"has an argument {word} that is 'as_int'") for target, word in (
           ("clone.default", "memory_format"), ("ones_like.default", "layout"),
           ("_to_copy.default", "dtype"), ("arange.default", "device"))),
    (MODEL, node(outputs=[{"as_tensor": {"name": "import os"}}]), "'import os', which is not"),
    (MODEL, node(name="lambda"), "called 'lambda', which is not a plain name"),
    (MODEL, lambda program: graph(program).update(custom_obj_values={"a": {}}), "objects of a cla"),
    (MODEL, lambda program: program.update(verifiers=[]), "its dialect is None"),
    (MODEL, lambda program: program.update(range_constraints={"u99999999": {
        "min_val": 0, "max_val": 1}}), "'u99999999'; its value depends on data"),
    (MODEL, lambda program: program["schema_version"].update(major=99), "torch cannot build its"),
    (MODEL, lambda program: program["graph_module"].update(module_call_graph=[]), "how the model"),
])
def test_a_program_that_is_not_sound_is_refused(
        tmp_path: Path, entries: dict[str, bytes], name: str, change: Callable[[dict], object],
        message: str) -> None:
    value = json.loads(entries[name])
    change(value)
    path = write(tmp_path / "net.pt2", entries | {name: json.dumps(value).encode()})
    assert message in refusal(path)


@pytest.mark.parametrize(("changes", "message"), [
    ({"data/aotinductor/model/net.so": b"\x7fELF"}, "compiled code (AOTInductor), which is not"),
    ({"data/constants/custom_obj_0": b""}, "a pickled object"),
    ({"data/weights/model.pt": b""}, "a pickle, as an older torch wrote them"),
    ({"models/other.json": b"{}"}, "holds 'models/other.json', which is not known"),
    ({"extra/../../x": b""}, "which is not known"),
    ({"byteorder": b"big"}, "its byteorder is b'big', not b'little'"),
    ({"archive_version": b"1"}, "its archive_version is b'1'"),
    ({MODEL: b"{" * 100_000}, "not sound JSON"),
    ({MODEL: b'{"a": 1, "a": 2}'}, "not sound JSON (a key is given twice)"),
    ({MODEL: b"NaN"}, "not sound JSON (the number NaN)"),
    ({MODEL: b"9" * 10_000}, "not sound JSON"),
    ({MODEL: b"\xff"}, "not sound JSON"),
])
def test_entries_that_are_not_sound_are_refused(
        tmp_path: Path, entries: dict[str, bytes], changes: dict, message: str) -> None:
    assert message in refusal(write(tmp_path / "net.pt2", entries | changes))


def test_a_bool_that_is_neither_0_nor_1_is_refused(tmp_path: Path, entries: dict[str, bytes]
                                                   ) -> None:
    place = json.loads(entries[WEIGHTS])["config"]["mask"]["path_name"]
    content = entries | {f"data/weights/{place}": b"\1\2\1\1"}
    assert "neither 0 nor 1" in refusal(write(tmp_path / "net.pt2", content))


def test_notes_and_sample_inputs_are_left_out(tmp_path: Path, entries: dict[str, bytes]) -> None:
    content = entries | {"extra/notes.txt": b"\xff", "data/sample_inputs/model.pt": b"\xff"}
    program = load_exported(write(tmp_path / "net.pt2", content))
    assert program.example_inputs[0][0].shape == (1, 4)


def test_a_zip_archive_that_is_not_sound_is_refused(tmp_path: Path, entries: dict[str, bytes]
                                                    ) -> None:
    path = tmp_path / "net.pt2"
    assert "compressed" in refusal(write(path, entries, method=zipfile.ZIP_DEFLATED))
    assert "lie in 2 folders" in refusal(write(path, {f"b/{MODEL}": b"{}"} | {
        f"a/{name}": data for name, data in entries.items()}, root=""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(write(path, entries), "a") as archive:
            archive.writestr(f"archive/{MODEL}", b"{}")
    assert "the same name" in refusal(path)

    good = write(path, entries).read_bytes()
    directory = good.rindex(b"PK\1\2")
    for at, value, message in (
            (directory + 8, 1, "encrypted"),                        # flags
            (directory + 42, 0, "not lie where its directory says"),    # the last entry's place
            (good.index(b'"target"'), 0, "Bad CRC-32")):
        raw = bytearray(good)
        struct.pack_into("<H", raw, at, value)
        path.write_bytes(raw)
        assert message in refusal(path)
    for length in (4, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        refusal(path)
    raw = bytearray(good)
    struct.pack_into("<I", raw, len(good) - 22 + 12, 1 << 30)      # bytes of the directory
    path.write_bytes(raw)
    refusal(path)


@pytest.mark.parametrize("source", [
    "Symbol('s0', integer=True, positive=True)",
    "Add(FloorDiv(Add(Symbol('s0', integer=True), Integer(-3)), Integer(2)), Integer(1))",
    "Mul(Integer(4), Symbol('s0'), Symbol('s1'))", "Pow(Symbol('s0'), Integer(2))",
])
def test_shape_expressions_pass(source: str) -> None:
    extent = shapes.check_expression(source, {"s0", "s1"})
    assert 0 < extent.bits <= shapes.MAX_BITS and 1 <= extent.terms <= 2


@pytest.mark.parametrize("source", [
    "__import__('os').system('true')", "Symbol('s0').__class__", "(lambda: 1)()", "[s0]", "s0",
    "Symbol('s9')", "Symbol('s0', commutative=1)", "Symbol(Integer(1))", "Integer('1')",
    "Integer(True)", "Add()", "Add(*Integer(1))", "Pow(Integer(9), Pow(Integer(9), Integer(9)))",
    "Pow(Integer(2), Integer(100000))", "f'{Integer(1)}'", "Integer(1) + Integer(1)", "", "\0",
    "Mul(" * 300 + "Integer(1)" + ")" * 300, "-" * 1900 + "1", "Integer(" + "9" * 1900 + ")",
    "Pow(" * 20 + "Symbol('s0')" + ", Integer(8))" * 20, "x" * 3000, "Symböl('s0')", None, 1,
])
def test_shape_expressions_that_are_not_plain_are_refused(source: object) -> None:
    with pytest.raises(Unsound):
        shapes.check_expression(source, {"s0", "s1"})


def test_no_operator_that_a_file_may_name_touches_files_or_leaves_values_open() -> None:
    for word in ("save", "from_file", "empty", "new_empty", "rand", "randn", "bernoulli", "set_",
                 "resize_", "set_data", "fbgemm_pack_gemm_matrix_fp16", "_sparse_coo_tensor_unsafe",
                 "__doc__", "add.out", "to.prim_dtype", "mul.left_t", "add.str", "warn"):
        base, _, overload = word.partition(".")
        assert operators.find(f"torch.ops.aten.{base}.{overload or 'default'}") is None
    for word in ("conv2d.default", "relu_.default", "add.Tensor", "flatten.using_ints",
                 "sym_size.int", "mean.dim", "batch_norm.default", "_to_copy.default"):
        assert operators.find(f"torch.ops.aten.{word}") is not None


def test_every_operator_named_is_one_of_torch() -> None:
    unknown = [name for name in operators._TENSOR | operators._SHAPE | operators._CHECKS
               if not hasattr(torch.ops.aten, name)]
    assert not unknown


def test_a_refused_operator_names_its_layer(tmp_path: Path, entries: dict[str, bytes]) -> None:
    program = json.loads(entries[MODEL])
    graph(program)["nodes"][0]["target"] = "torch.ops.aten.from_file.default"
    path = write(tmp_path / "net.pt2", entries | {MODEL: json.dumps(program).encode()})
    with pytest.raises(CompileError, match=r"^first \(from_file\): not supported by this machine"):
        load_exported(path)


def test_a_constant_beyond_all_bounds_is_not_computed() -> None:
    class Huge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.zeros(1 << 20, 1 << 20).sum()

    with pytest.raises(CompileError, match=r"a tensor of 1099511627776 elements, more than"):
        import_model(Huge(), np.zeros((1, 4), np.float32))


def mutated(value: object, rng: random.Random) -> object:
    """Return a JSON value with one part of it, at any depth, replaced or gone."""
    value = copy.deepcopy(value)
    part, path = value, []
    while isinstance(part, dict | list) and part and (not path or rng.random() < 0.9):
        key = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
        path.append((part, key))
        part = part[key]
    owner, key = path[-1]
    if rng.random() < 0.2:
        del owner[key]
    else:
        owner[key] = rng.choice([None, True, -1, 0, 3, 2**70, 0.5, "", "x", "as_int", [], {}, [1],
                                 {"as_none": True}, {"as_tensor": {"name": "x"}}])
    return value


def test_mutations_are_refused_or_harmless(tmp_path: Path, entries: dict[str, bytes]) -> None:
    rng = random.Random(0)
    for _ in range(20):
        name = rng.choice([MODEL, MODEL, WEIGHTS])
        changed = json.dumps(mutated(json.loads(entries[name]), rng)).encode()
        path = write(tmp_path / "net.pt2", entries | {name: changed})
        try:
            import_model(path, np.zeros((1, 4), np.float32))
        except CelosiaError as problem:
            refused = str(problem)
            assert refused.count("\n") == 0, refused


def test_refusals_of_files_are_file_errors(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(FileError, match="net.pt2: damaged zip archive"):
        load_exported(path)
