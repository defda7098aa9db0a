"""ONNX files: what has no place, names, other floats, open sizes, weights beside them; those that
are not sound are refused."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import celosia
from celosia.frontend import import_model
from celosia_spec.errors import CelosiaError

onnx = pytest.importorskip("onnx")
from celosia.frontend.onnx import load_onnx  # noqa: E402
from onnx_files import conv, near, node, saved  # noqa: E402

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


W = {"w": normal(2, 3, 1, 1)}
MAP, OPEN = (3, 4, 4), (3, "h", 4)
REFUSED = {
    r"odd \(Sin\): not supported.*one of Abs, ": ([node("Sin", ["x"], ["y"], name="odd")], MAP,
                                                 {}, 4),
    "use linear layers or convolutions": ([node("LSTM", ["x", "w", "w"], ["y"])], (4, 4),
                                          {"w": normal(1, 4, 4)}, 4),
    "mine.Odd.*not one of": ([node("Odd", ["x"], ["y"], domain="mine")], MAP, {}, 4),
    "whole numbers; quantise": ([node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])], MAP,
                                {}, 4),
    "version 6": (conv(), MAP, W, 4, 6),
    "its input is int8": (conv(), MAP, W, 4, 17, onnx.TensorProto.INT8),
    "sizes open.*--input-shape": (conv(), OPEN, W, 4),
    "no constant on its right or left": ([node("MatMul", ["x", "x"], ["y"])], MAP, {}, 4),
    "one axis": ([node("Relu", ["x"], ["y"])], (), {}, 1),
    "more than": (conv(), (3, 1 << 20, 1 << 20), W, 4),
    "whole numbers of the input": ([node("Cast", ["x"], ["a"], to=6),
                                    node("Cast", ["a"], ["y"], to=1)], MAP, {}, 4),
    "by other factors than it was given": (
        [node("Resize", ["x", "", "k"], ["y"], mode="linear",
              coordinate_transformation_mode="asymmetric")], MAP,
        {"k": np.float32([1, 1, 2.1, 1])}, 4),
    "1, 1.*linear, pytorch_half_pixel": (
        [node("Resize", ["x", "", "", "k"], ["y"], mode="linear",
              coordinate_transformation_mode="pytorch_half_pixel")], MAP,
        {"k": np.array([1, 3, 1, 1])}, 4),
    "do not fit.*axis value: 7": (
        [node("Resize", ["x", "", "k"], ["y"], mode="linear", axes=[7])], MAP,
        {"k": np.float32([2])}, 4, 18),
    "antialias": ([node("Resize", ["x", "", "k"], ["y"], mode="linear", antialias=1)], MAP,
                  {"k": np.float32([1, 1, 0.5, 0.5])}, 4, 18),
    "not a sound": ([node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"]),
                     node("Add", ["x", "a"], ["y"])], MAP, {}, 4),
    "its exclude_outside is not known here; leave that out": (
        [node("Resize", ["x", "", "k"], ["y"], mode="linear", exclude_outside=1)], MAP,
        {"k": np.float32([1, 1, 2, 2])}, 4),
    r"slopes of shape \(4,\) for an operand of shape \(1, 4, 4, 4\); give it one slope, or one": (
        [node("PRelu", ["x", "s"], ["y"])], (4, 4, 4), {"s": normal(4)}, 4),
    "it makes 4 of one input; export the model with one input instead of a batch": (
        [node("Reshape", ["x", "s"], ["y"])], MAP, {"s": np.array([4, -1, 3])}, 3),
    "it makes 2 of one input; export": (
        [node("Expand", ["x", "s"], ["y"])], MAP, {"s": np.array([2, 3, 4, 4])}, 4),
    "it makes 3 of one input; export": (
        [node("Tile", ["x", "s"], ["y"])], MAP, {"s": np.array([3, 1, 1, 1])}, 4),
    "y.*do not fit": ([node("Expand", ["x", "s"], ["y"])], MAP, {"s": np.array([3, 3, 4])}, 4),
    "conv.*do not fit": (conv(strides=[0, 0], auto_pad="SAME_UPPER"), MAP, W, 4),
    "conv.*do not fit.*strides": (conv(strides=[1]), MAP, W, 4),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_has_no_place_is_refused_by_name(message, tmp_path):
    with pytest.raises(CelosiaError, match=message) as refusal:
        load_onnx(saved(tmp_path, *REFUSED[message]))
    assert "\n" not in str(refusal.value)


MANY = np.array([1, 1, 1 << 20, 1 << 20])
LARGE = {
    "filled": [node("ConstantOfShape", ["n"], ["c"])],
    "spread": [node("Expand", ["one", "n"], ["c"])],
    "a size that is computed": [node("Add", ["n", "n"], ["m"]), node("Expand", ["one", "m"],
                                                                    ["c"])],
    "counted": [node("Range", ["zero", "end", "step"], ["c"])],
    "a table": [node("Add", ["column", "row"], ["c"])],
    "looked up": [node("Gather", ["column", "places"], ["c"], axis=1)],
    "one after the other": [node("Expand", ["row", "some"], [f"c{k}"]) for k in range(9)] + [
        node("Sum", [f"c{k}" for k in range(9)], ["c"])],
}


@pytest.mark.parametrize("how", LARGE)
def test_constants_that_need_all_memory_are_refused(how, tmp_path):
    path = saved(tmp_path, [*LARGE[how], node("Add", ["x", "c"], ["y"])], (1, 1, 1), {
        "n": MANY, "one": np.float32([1]), "zero": np.float32(0), "end": np.float32(1e9),
        "step": np.float32(1e-3), "row": normal(1, 1, 1, 1 << 15),
        "column": normal(1, 1, 1 << 15, 1), "places": np.zeros(1 << 15, np.int64),
        "some": np.array([1, 1, 300, 1 << 15])}, 4)
    with pytest.raises(CelosiaError, match="keep constants small"):
        load_onnx(path)


@pytest.mark.parametrize("name", ["class", "forward", "training", "1", "x²", "a\nb", "); import os",
                                  "", "same"])
def test_any_name_of_a_node_will_do(name, tmp_path):
    path = saved(tmp_path, [node("Conv", ["x", "w"], ["a"], name=name),
                            node("Relu", ["a"], ["y"], name=name)], MAP, W, 4)
    module, (example,) = load_onnx(path)
    assert torch.equal(module(example + 1), F.relu(F.conv2d(example + 1, torch.tensor(W["w"]))))
    assert len(import_model(module, example).nodes) == 2


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "DOUBLE"])
def test_other_floats_are_taken_as_float32_and_told(kind, tmp_path):
    number = onnx.TensorProto.DataType.Value(kind)
    path = saved(tmp_path, [node("Conv", ["x", "w"], ["a"]), node("Cast", ["a"], ["b"], to=1),
                            node("Cast", ["b"], ["y"], to=number)], MAP, W, 4, 22, number)
    model = onnx.load(path)
    kept = W["w"].astype(onnx.helper.tensor_dtype_to_np_dtype(number))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(kept, "w"))
    onnx.save(model, path)
    program = celosia.compile(path)
    inputs = normal(4, *MAP)
    wanted = F.conv2d(torch.tensor(inputs), torch.tensor(kept.astype(np.float32)))
    assert near(celosia.run(program, inputs).answer, wanted.numpy()) > 30
    assert len([remark for remark in program.remarks if "parameters were taken as" in remark]) == 1


def test_a_batch_in_the_file_becomes_one_input(tmp_path):
    module, (example,) = load_onnx(saved(tmp_path, conv(), MAP, W, 4, batch=8))
    assert example.shape == module(example)[:, :1].expand(-1, 3, -1, -1).shape == (1, *MAP)


def test_sizes_that_the_file_leaves_open_come_from_the_example(tmp_path):
    path = saved(tmp_path, conv(), OPEN, W, 4)
    for shape in ((1, 3, 6, 4), (5, 3, 6, 4), (3, 6, 4)):
        assert celosia.compile(path, shape).graph.tensors["input"].shape == (3, 6, 4)
    for shape, words in (((1, 2, 6, 4), "(1, 2, 6, 4)"), ((2, 6, 4), "(1, 2, 6, 4)"),
                         ((64,), "(64)"), ((6, 4), "(6, 4)")):
        with pytest.raises(CelosiaError, match=re.escape(f"(1, 3, ?, 4), not {words};")):
            load_onnx(path, (shape,))


def outside(path: Path, location: str, **place: str) -> None:
    """Let a file say that its weights are elsewhere."""
    model = onnx.load(path, load_external_data=False)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.ClearField("external_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        weight.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


def test_weights_in_files_beside_it_are_read_and_no_others(tmp_path):
    path = saved(tmp_path, conv(), MAP, W, 4)
    (tmp_path / "weights").write_bytes(b"four" + W["w"].tobytes())
    outside(path, "weights", offset="4")
    np.testing.assert_array_equal(load_onnx(path)[0].conv.weight.detach(), W["w"])
    outside(path, "weights", offset="4", length=str(W["w"].nbytes))
    load_onnx(path)
    for place in ({"offset": "8", "length": "24"}, {"offset": "-4"}, {"length": "-1"},
                  {"offset": "4", "length": "x"}, {"offset": "0"}):
        outside(path, "weights", **place)
        with pytest.raises(CelosiaError, match="not where|not a sound|does not hold"):
            load_onnx(path)
    outside(path, "other")
    with pytest.raises(CelosiaError, match="weights are in other, which is not there"):
        load_onnx(path)
    for location in ("../weights", "/etc/passwd", "./weights", "", "..", "a\0b"):
        outside(path, location)
        with pytest.raises(CelosiaError, match="of its own folder"):
            load_onnx(path)


@pytest.mark.parametrize("length", [0, 4, 20])
def test_a_tensor_of_another_length_is_refused(length, tmp_path):
    path = saved(tmp_path, conv(), MAP, W, 4)
    model = onnx.load(path)
    model.graph.initializer[0].raw_data = bytes(length)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CelosiaError, match="not a sound|does not hold"):
        load_onnx(path)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    path = saved(tmp_path, conv(), MAP, W, 4)
    content = path.read_bytes()
    for place in range(len(content)):
        if content[place:place + 4] == b"conv" or content[place - 1:place + 1] in (b"\1x", b"\1w"):
            path.write_bytes(content[:place] + b"\xff" + content[place + 1:])
            with pytest.raises(CelosiaError, match="not UTF-8"):
                load_onnx(path)


def test_every_truncated_file_is_refused(tmp_path):
    path = saved(tmp_path, conv(), MAP, W, 4)
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(CelosiaError):
            load_onnx(path)


class Attention(torch.nn.Module):
    def __init__(self, heads: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.q = torch.nn.MultiheadAttention(8, 2, batch_first=True), heads
        self.first, self.second = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        if self.q:
            return self.heads(x, x, x, need_weights=False)[0]
        shares = (self.first(x) @ self.second(x).transpose(1, 2)).softmax(-1)
        return shares @ x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("heads", [True, False])
def test_attention_is_called_so(heads, tmp_path):
    """Not what comes before its softmax, such as a Reshape that puts heads side by side."""
    torch.onnx.export(Attention(heads).eval(), (torch.zeros(1, 6, 8),), tmp_path / "net.onnx",
                      dynamo=False)
    with pytest.raises(celosia.CompileError) as caught:
        celosia.compile(tmp_path / "net.onnx")
    assert str(caught.value).endswith("Softmax (attention): not supported by this machine; use "
                                      "linear layers with constant weights")
