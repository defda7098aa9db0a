"""``.onnx`` files that are damaged or hostile."""

from collections.abc import Callable

import numpy as np
import onnx
from bad_inputs_archives import RAN, File, Rng, damaged

__all__ = ["onnx_file", "sound_onnx"]

_FLOAT = onnx.TensorProto.FLOAT


def sound_onnx() -> bytes:
    """Return the file of a network for inputs (1, 1, 8, 8)."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(2, 1, 3, 3)), "v": rng.normal(size=(72, 4))}
    nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
             onnx.helper.make_node("Relu", ["a"], ["r"]),
             onnx.helper.make_node("Flatten", ["r"], ["f"]),
             onnx.helper.make_node("MatMul", ["f", "v"], ["y"])]
    graph = onnx.helper.make_graph(
        nodes, "network", [onnx.helper.make_tensor_value_info("x", _FLOAT, ["N", 1, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", _FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name)
         for name, value in constants.items()])
    opset = onnx.helper.make_opsetid("", 17)
    return onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def onnx_file(sound: bytes, rng: Rng) -> File:
    """Return a file made of a sound one."""
    if rng.random() < 0.5:
        content = damaged(sound, rng)
        return File(content, True if content == sound else None)
    model = onnx.ModelProto.FromString(sound)
    _HOSTILE[rng.integers(len(_HOSTILE))](model, rng)
    return File(model.SerializeToString(), False)


def _weights_elsewhere(model: onnx.ModelProto, rng: Rng) -> None:
    places = ("/etc/passwd", "../bad_files.npz", "net.onnx", "", "..", "/dev/zero")
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", places[rng.integers(len(places))]),
                       ("length", ("-1", "99999999999", "x", "3")[rng.integers(4)])):
        weight.external_data.add(key=key, value=value)


def _size(model: onnx.ModelProto, rng: Rng) -> None:
    weight = model.graph.initializer[rng.integers(2)]
    weight.dims[rng.integers(2)] = (0, -1, 1 << 31, 1 << 62, 3)[rng.integers(5)]


def _large_input(model: onnx.ModelProto, rng: Rng) -> None:
    for size in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        size.dim_value = int(rng.choice([1 << 16, 1 << 31, 1 << 62]))


def _computed(model: onnx.ModelProto, rng: Rng) -> None:
    """Let constants that are computed need all memory."""
    node, array = onnx.helper.make_node, onnx.numpy_helper.from_array
    many, count = np.array([1 << 20, 1 << 20]), np.float32(1e12)
    chains = (
        [node("ConstantOfShape", ["many"], ["c"])], [node("Expand", ["v", "many"], ["c"])],
        [node("Range", ["zero", "count", "one"], ["c"])],
        [node("Concat", [f"c{k}" * bool(k) or "v"] * 4, [f"c{k + 1}"], axis=0) for k in range(20)]
        + [node("Identity", ["c20"], ["c"])],
        [node("Add", [f"c{k}" * bool(k) or "tall", "wide"], [f"c{k + 1}"]) for k in range(9)]
        + [node("Identity", ["c9"], ["c"])])
    model.graph.initializer.extend(array(value, name) for name, value in {
        "many": many, "zero": np.float32(0), "count": count, "one": np.float32(1),
        "tall": np.zeros((1 << 14, 1), np.float32),
        "wide": np.zeros((1, 1 << 14), np.float32)}.items())
    nodes = [*chains[rng.integers(len(chains))], *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.node[-1].input[1] = "c"


def _code(model: onnx.ModelProto, rng: Rng) -> None:
    """Hide code in what might become Python, in a network that is refused."""
    code = f"x); open('{RAN}', 'w"
    model.graph.node[0].name = code
    model.graph.node[1].op_type = (code, "If", "PyOp", "Selu\n")[rng.integers(4)]
    model.graph.node[1].domain = ("", "ai.onnx.contrib")[rng.integers(2)]


def _loop(model: onnx.ModelProto, rng: Rng) -> None:
    """Let a node read its own result, or a graph hold a graph."""
    if rng.random() < 0.5:
        model.graph.node[0].input[0] = "r"
        return
    copy = onnx.GraphProto.FromString(model.graph.SerializeToString())
    model.graph.node[1].attribute.append(onnx.helper.make_attribute("body", copy))


def _attributes(model: onnx.ModelProto, rng: Rng) -> None:
    name = ("strides", "dilations", "pads", "kernel_shape")[rng.integers(4)]
    values = ([0, 0], [-1, 1], [1], [1 << 62] * 4, [1 << 31, 1 << 31])[rng.integers(5)]
    model.graph.node[0].attribute.append(onnx.helper.make_attribute(name, values))


def _versions(model: onnx.ModelProto, rng: Rng) -> None:
    model.opset_import[0].version = (0, -1, 3, 10_000, 1 << 62)[rng.integers(5)]


_HOSTILE: tuple[Callable[[onnx.ModelProto, Rng], None], ...] = (
    _weights_elsewhere, _size, _large_input, _computed, _computed, _code, _loop, _attributes,
    _versions)
