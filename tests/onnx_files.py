"""ONNX files of a few nodes, and how near outputs are."""

from pathlib import Path

import numpy as np
import onnx

node = onnx.helper.make_node


def near(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return the signal to noise of outputs, in dB."""
    return 10 * np.log10((wanted ** 2).sum() / ((found - wanted) ** 2).sum())


def saved(folder: Path, nodes: list, shape: tuple, constants: dict, rank: int,
          opset: int = 17, kind: int = onnx.TensorProto.FLOAT, batch: int | str = "N") -> Path:
    """Save a network from x (N, *shape) to y, a tensor of `rank` axes."""
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "network", [tensor("x", kind, [batch, *shape])],
        [tensor("y", kind, [f"y{axis}" for axis in range(rank)])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()])
    path = folder / "network.onnx"
    onnx.save(onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def conv(**attributes: object) -> list:
    return [node("Conv", ["x", "w"], ["y"], name="conv", **attributes)]
