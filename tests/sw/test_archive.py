"""A ``.pt2`` file never runs code: each way that torch's own loader has to do so, and damage."""

import contextlib
import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.export import Dim

from celosia.frontend import import_model
from celosia.frontend.export import load_exported
from celosia_spec.errors import CelosiaError

MODEL = "models/model.json"
WEIGHTS, CONSTANTS = (f"data/{kind}/model_{kind}_config.json" for kind in ("weights", "constants"))
Entries = dict[str, bytes]


class Net(nn.Module):
    """Weights, buffers of both kinds, a constant, and a shared weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.register_buffer("gain", torch.rand(8))
        self.register_buffer("offset", torch.rand(8), persistent=False)
        self.constant = torch.rand(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.conv(x))).flatten(1)
        with torch.no_grad():
            x = self.first(x) * self.gain + self.offset
        return self.second(x) - self.constant + torch.tensor([1.0] * 8)


def entries(*, dynamic: bool = False, model: nn.Module | None = None,
            shape: tuple[int, ...] = (2, 1, 4, 4)) -> Entries:
    """Return the entries of an ordinary file, without their common folder."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            (model or Net()).eval(), (torch.zeros(shape),),
            dynamic_shapes=({0: Dim("n", min=1, max=64)},) if dynamic else None)
        torch.export.save(program, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def write(path: Path, content: Entries, root: str = "archive/") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(f"{root}{name}", data)
    return path


def edited(content: Entries, name: str, change: Callable[[dict], object]) -> Entries:
    """Return the entries with a JSON text changed."""
    value = json.loads(content[name])
    change(value)
    return content | {name: json.dumps(value).encode()}


def renamed(content: Entries, old: str, new: str) -> Entries:
    """Return the entries with a quoted name changed everywhere in the program and the tables."""
    return content | {name: content[name].replace(json.dumps(old).encode(),
                                                  json.dumps(new).encode())
                      for name in (MODEL, WEIGHTS, CONSTANTS)}


@pytest.mark.parametrize("dynamic", [False, True])
def test_ordinary_files_load_to_the_bit(tmp_path: Path, dynamic: bool) -> None:
    model, x = Net(), torch.randn(2, 1, 4, 4)
    path = write(tmp_path / "net.pt2", entries(dynamic=dynamic, model=model))
    program = load_exported(path)
    with torch.no_grad():
        assert torch.equal(program.module()(x), model(x))
    assert program.example_inputs[0][0].shape == ((1 if dynamic else 2), 1, 4, 4)
    assert bool(program.range_constraints) == dynamic
    first, second = (program.state_dict[f"{name}.weight"] for name in ("first", "second"))
    assert first.data_ptr() == second.data_ptr()


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def without_autocast(x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return x * 2


@pytest.mark.parametrize("make", [
    lambda: nn.Conv2d(4, 2, 3, padding="same", padding_mode="reflect"), lambda: nn.GELU("tanh"),
    lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2)), lambda: nn.PReLU(),
    lambda: nn.utils.parametrizations.orthogonal(nn.Linear(4, 2)), lambda: nn.GroupNorm(2, 4),
    lambda: Function(without_autocast), lambda: Function(lambda x: x.clone().add_(1)[:, :2]),
    lambda: Function(lambda x: torch.einsum("bchw,bdhw->bcd", x, x)),
    lambda: Function(lambda x: {"first": x, "rest": [x + 1, (x + 2,)]}),
    lambda: Function(lambda x: torch.div(x, 3, rounding_mode="floor") + torch.arange(4)),
])
def test_many_operators_load_to_the_bit(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    model, x = make().eval(), torch.randn(1, 4, 4, 4)
    path = write(tmp_path / "net.pt2", entries(model=model, shape=x.shape))
    with torch.no_grad():
        torch.testing.assert_close(load_exported(path).module()(x), model(x), rtol=0, atol=0)


def test_an_example_comes_with_one_plain_input_only(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    for given in (([torch.zeros(1, 4)],), (torch.zeros(1, 4), None), (torch.zeros(1, 4, 2, 2, 2),)):
        class First(nn.Module):
            def forward(self, x: object, more: object = None) -> torch.Tensor:
                return torch.relu(x[0] if isinstance(x, list) else x)

        torch.export.save(torch.export.export(First(), given), path)
        program = load_exported(path)
        plain = len(given) == 1 and isinstance(given[0], torch.Tensor)
        assert (program.example_inputs is not None) == plain
        torch.testing.assert_close(program.module()(*given), torch.relu(torch.zeros(
            given[0].shape if plain else (1, 4))))


def test_open_shapes_are_fixed_behind_constants(tmp_path: Path) -> None:
    class Shifted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + torch.tensor([1.0, 2.0, 3.0, 4.0]))

    content = entries(model=Shifted(4, 3), shape=(2, 4), dynamic=True)
    graph = import_model(write(tmp_path / "net.pt2", content), np.zeros((1, 4), np.float32))
    assert [node.name for node in graph.nodes]


@pytest.mark.parametrize("name", ["class", "a-b", "[/b]x", 'q"q', "n\nl", "a;b", "1", "\x1b[31m"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_layers_of_any_name_load(tmp_path: Path, name: str, dynamic: bool) -> None:
    model = nn.Sequential()
    model.add_module(name, nn.Linear(4, 3))
    path = write(tmp_path / "net.pt2", entries(model=model, shape=(2, 4), dynamic=dynamic))
    program, x = load_exported(path), torch.randn(2, 4)
    with torch.no_grad():
        assert torch.equal(program.module()(x), model(x))
    if dynamic:
        (node,) = import_model(program, np.zeros((1, 4), np.float32)).nodes
        assert node.name.isprintable()


def test_a_file_of_a_gpu_is_read_onto_the_processor(tmp_path: Path) -> None:
    content = entries(model=nn.Linear(4, 3), shape=(1, 4))
    for name in (MODEL, WEIGHTS):
        content[name] = content[name].replace(b'{"type": "cpu", "index": null}',
                                              b'{"type": "cuda", "index": 0}')
    program = load_exported(write(tmp_path / "net.pt2", content))
    assert {tensor.device.type for tensor in program.state_dict.values()} == {"cpu"}
    assert len(import_model(program, np.zeros((1, 4), np.float32)).nodes) == 1


# Payloads. Each is first shown to be one: torch's loader, or what it returns, runs it.

class Payload:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.mark),)


def pickled(mark: str) -> bytes:
    buffer = io.BytesIO()
    torch.save(Payload(mark), buffer)
    return buffer.getvalue()


def touch(mark: str) -> str:
    """Return an expression without a full stop that makes the mark."""
    return (f"getattr(getattr(__import__('pathlib'), 'Path')('{mark}'), 'touch')()")


def pickled_weight(mark: str) -> Entries:
    content = entries()
    content["data/weights/weight_0"] = pickled(mark)
    return edited(content, WEIGHTS, lambda table: next(
        iter(table["config"].values())).update(use_pickle=True))


def pickled_constant(mark: str) -> Entries:
    content = entries()
    content["data/constants/tensor_0"] = pickled(mark)
    return edited(content, CONSTANTS, lambda table: next(
        iter(table["config"].values())).update(use_pickle=True))


def opaque_object(mark: str) -> Entries:
    content = entries()
    content["data/constants/opaque_obj_0"] = pickle.dumps(Payload(mark))
    return edited(content, CONSTANTS, lambda table: table["config"].update(
        extra={"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True,
               "tensor_meta": None}))


def sample_inputs(mark: str) -> Entries:
    return entries() | {"data/sample_inputs/model.pt": pickled(mark)}


def older_weights(mark: str) -> Entries:
    return entries() | {"data/weights/model.pt": pickled(mark)}


def older_constants(mark: str) -> Entries:
    return entries() | {"data/constants/model.pt": pickled(mark)}


def oldest_layout(mark: str) -> Entries:
    content = entries()
    return {"version": b"8.20", "serialized_exported_program.json": content[MODEL],
            **{f"serialized_{kind}.pt": pickled(mark)
               for kind in ("state_dict", "constants", "example_inputs")}}


def shape_expression(mark: str) -> Entries:
    def change(program: dict) -> None:
        value = next(iter(program["graph_module"]["graph"]["tensor_values"].values()))
        value["sizes"][0] = {"as_expr": {"expr_str": f"[Integer(2), {touch(mark)}][0]",
                                         "hint": None}}
    return edited(entries(dynamic=True), MODEL, change)


def shape_value(mark: str) -> Entries:
    class Flat(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.reshape(x.shape[0] * 2, -1)

    def change(program: dict) -> None:
        for value in program["graph_module"]["graph"]["sym_int_values"].values():
            value["as_expr"]["expr_str"] = (
                f"[Symbol('s77', integer=True, positive=True), {touch(mark)}][0]")
    return edited(entries(dynamic=True, model=Flat()), MODEL, change)


def guard(mark: str) -> Entries:
    return edited(entries(dynamic=True, model=nn.ReLU()), MODEL,
                  lambda program: program.update(guards_code=[f"{touch(mark)} is None"]))


def input_name(mark: str) -> Entries:
    class Constant(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * 2

    return renamed(entries(model=Constant(4, 3)), "x", f"x={touch(mark)}")


def parameter_path(mark: str) -> Entries:
    class Matrix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.rand(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.linear(x, self.matrix)

    return renamed(entries(dynamic=True, model=Matrix(), shape=(2, 4)), "matrix",
                   f'training"), {touch(mark)}, getattr(self, "training')


def first_node(**node: object) -> Entries:
    """Return a file whose first operator is another one."""
    def change(program: dict) -> None:
        graph = program["graph_module"]["graph"]
        graph["nodes"].insert(0, {"metadata": {}, "is_hop_single_tensor_return": None,
                                  "name": "made", **node})
        graph["tensor_values"]["made"] = graph["tensor_values"]["input"]
    return edited(entries(model=nn.ReLU()), MODEL, change)


def operator_as_argument(mark: str) -> Entries:
    arguments = ({"as_operator": "torch.ops.aten.from_file.default"}, {"as_string": mark},
                 {"as_bool": True}, {"as_int": 4})
    return first_node(
        target="torch.ops.higher_order.wrap", is_hop_single_tensor_return=True,
        outputs=[{"as_tensor": {"name": "made"}}],
        inputs=[{"name": "", "arg": argument, "kind": 1} for argument in arguments])


def file_operator(mark: str) -> Entries:
    return first_node(
        target="torch.ops.aten.from_file.default", outputs=[{"as_tensor": {"name": "made"}}],
        inputs=[{"name": "filename", "arg": {"as_string": mark}, "kind": 1},
                {"name": "shared", "arg": {"as_bool": True}, "kind": 2},
                {"name": "size", "arg": {"as_int": 4}, "kind": 2}])


def tree(context: str, kind: str) -> Callable[[dict], None]:
    leaf = {"type": None, "context": None, "children_spec": []}

    def change(program: dict) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = json.dumps([1, {"type": kind, "context": context,
                                                "children_spec": [leaf]}])
    return change


def enumeration(mark: str) -> Entries:
    key = {"__enum__": True, "fqn": "celosia_test_payload:Kind", "name": "A"}
    return edited(entries(), MODEL, tree(json.dumps([key]), "builtins.dict"))


def default_factory(mark: str) -> Entries:
    def change(program: dict) -> None:
        tree("", "collections.defaultdict")(program)
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        spec = json.loads(signature["out_spec"])
        spec[1]["context"] = {"default_factory_module": "celosia_test_payload",
                              "default_factory_name": "Kind", "dict_context": ["a"]}
        signature["out_spec"] = json.dumps(spec)
    return edited(entries(), MODEL, change)


PAYLOADS = [pickled_weight, pickled_constant, opaque_object, sample_inputs, older_weights,
            older_constants, oldest_layout, shape_expression, shape_value, guard, input_name,
            parameter_path, operator_as_argument, enumeration, default_factory, file_operator]
HARMLESS = {sample_inputs, guard, parameter_path}
"""Those that are left out or made safe: the rest of the file is sound and loads."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_nothing_in_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                payload: Callable[[str], Entries]) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "celosia_test_payload.py").write_text(
        f"import enum, pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "Kind = enum.Enum('Kind', 'A')\n")
    monkeypatch.syspath_prepend(tmp_path)
    content = payload(str(mark))
    root = "" if payload is oldest_layout else "archive/"
    path = write(tmp_path / "evil.pt2", content, root)
    x = torch.zeros((2, 4) if payload is parameter_path else (2, 1, 4, 4))

    sys.modules.pop("celosia_test_payload", None)
    with contextlib.suppress(Exception):        # after the payload ran
        torch.export.load(path).module()(x)
    assert mark.exists(), "the payload is none"
    mark.rmdir() if mark.is_dir() else mark.unlink()

    sys.modules.pop("celosia_test_payload", None)
    with contextlib.suppress(CelosiaError):
        import_model(path, x[:1].numpy())
    if payload in HARMLESS:
        program = load_exported(path)
        program.module()(x)
    else:
        with pytest.raises(CelosiaError, match=r"^[^\n]+; [^\n]+$"):
            load_exported(path)
    assert not mark.exists()
    assert "celosia_test_payload" not in sys.modules
