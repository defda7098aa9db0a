"""ONNX networks against onnxruntime: those of the zoo, exported by torch, and those that the `onnx`
package's own tests of backends have of PyTorch's layers, with their weights and inputs.

8 bits, dynamic exponents. Inputs of the zoo's are random, so are weights where none are trained.
"Reported" is what `celosia compare --against float` says of the same inputs.
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnx.version_converter
import onnxruntime
import torch
from harness.command import main
from harness.result import Check, Result, Table, unplaced

import celosia
from celosia import zoo
from celosia.cli.progress import stages
from celosia.noise import against_float
from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import MOVES

TARGET = "ulx3s-85f"
NETWORKS = ("lenet5", "lenet-300-100", "resnet-8", "resnet-20", "mobilenet-v1", "squeezenet",
            "u-net", "tiny-yolo", "ds-cnn", "wakeword", "autoencoder", "conv-autoencoder", "ecg")
APART = 0.5
"""dB by which the ratio against onnxruntime may lie below the reported one."""
_ALL = 200.0
"""dB of outputs that are equal."""
_IMAGES, _VERSION, _IR_VERSION = 4, 13, 8


def measure(arguments: argparse.Namespace) -> Result:
    """Compile and run every network."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")     # the exporter that needs no other package is deprecated
    rows, layers, refused = [], [], []
    with tempfile.TemporaryDirectory() as folder, stages() as say:
        for name in NETWORKS[:arguments.networks]:
            say(name)
            path = Path(folder) / f"{name}.onnx"
            rows.append([name, len(_export(name, path).graph.node),
                         *_compared(path, _inputs(name))])
        for name, path, x in _layers(Path(folder)):
            say(name)
            try:
                layers.append([name, *_compared(path, x)])
            except CelosiaError as refusal:
                refused.append([name, unplaced(refusal).replace(f"{path}: ", "")])
    columns = {"cycles": ",d", "reported, dB": ".1f", "against onnxruntime, dB": ".1f"}
    return Result(title="ONNX networks", tables=(
        Table.of(f"Of the zoo, {TARGET}", {"network": "", "nodes": "d", **columns}, rows),
        Table.of(f"Of the onnx package's tests of backends, {TARGET}", {"layer": "", **columns},
                 layers),
        Table.of("Refused of these", {"layer": "", "the refusal": ""}, refused)), checks=(
            Check.at_least("networks that compile from ONNX", len(rows), 12, "d"),
            Check.at_most("dB by which a network lies below what is reported", _below(rows), APART,
                          ".2f"),
            Check.at_most("dB by which a layer does", _below(layers), APART, ".2f"),
            Check.at_least("dB of the worst network", min(row[-1] for row in rows), 20.0, ".1f")))


def _export(name: str, path: Path) -> onnx.ModelProto:
    """Write a network of the zoo."""
    entry = zoo.NETWORKS[name]
    torch.onnx.export(entry.make().eval(), (torch.zeros(1, *entry.shape),), path, dynamo=False)
    return onnx.load(path)


def _inputs(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.standard_normal((_IMAGES, *zoo.NETWORKS[name].shape)).astype(np.float32)


def _layers(folder: Path) -> Iterator[tuple[str, Path, np.ndarray]]:
    """Yield PyTorch's layers, their files with operators of a version that is written today, and
    their inputs."""
    data = Path(onnx.backend.test.__file__).parent / "data" / "pytorch-converted"
    for path in sorted(data.glob("*/model.onnx")):
        x = onnx.numpy_helper.to_array(onnx.load_tensor(
            str(path.parent / "test_data_set_0" / "input_0.pb")))
        if x.dtype == np.float32 and x.ndim in (2, 3, 4):
            name = path.parent.name.removeprefix("test_")
            made = onnx.version_converter.convert_version(onnx.load(path), _VERSION)
            made.ir_version = _IR_VERSION
            onnx.save(made, folder / f"{name}.onnx")
            yield name, folder / f"{name}.onnx", x


def _compared(path: Path, x: np.ndarray) -> tuple[int, float | None, float]:
    """Return cycles, the reported ratio and that against onnxruntime, dB. What the host computes
    behind the outputs is not in what is reported."""
    program = celosia.compile(path, target=TARGET)
    session = onnxruntime.InferenceSession(path)
    name = session.get_inputs()[0].name
    wanted = np.concatenate([session.run(None, {name: one[None]})[0] for one in x]) if (
        session.get_inputs()[0].shape[0] == 1) else session.run(None, {name: x})[0]
    found = celosia.run(program, x).answer
    error = np.square(found - wanted).sum()
    ratio = 10 * np.log10(np.square(wanted, dtype=float).sum() / error) if error else _ALL
    noise = against_float(program, path, x)
    reported = noise.output_ratio if noise.functions is None else noise.functions
    moved = all(layer.operator in MOVES for layer in program.host)
    return program.predicted_cycles, min(reported, _ALL) if moved else None, float(ratio)


def _below(rows: list[list]) -> float:
    """Return by how much a ratio lies below what is reported, at most."""
    return max(row[-2] - row[-1] for row in rows if row[-2] is not None)


if __name__ == "__main__":
    main(measure, __doc__, ("--networks", {
        "type": int, "default": len(NETWORKS), "help": "only so many of the zoo"}))
