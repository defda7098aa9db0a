"""Static exponents of a quantised network's scales: LeNet-5, quantised by onnxruntime (QDQ).

The trained LeNet-5 of the package on test images of Fashion-MNIST, 8-bit mantissas, iCEBreaker.
onnxruntime finds its scales on the calibration images; Celosia is given the file alone.
"""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from harness.command import main
from harness.networks import calibration, inputs
from harness.result import Check, Result, Table
from onnxruntime import quantization

from celosia.accuracy import decibels_of, values_of
from celosia.compiler import Compiler
from celosia.evaluate import accuracy
from celosia.models import load_lenet5

IMAGES, CALIBRATION = 1000, 100
SIGNED = {"weight_type": quantization.QuantType.QInt8,
          "activation_type": quantization.QuantType.QInt8}
WAYS = {"uint8": {}, "int8, a scale for each row": {**SIGNED, "per_channel": True},
        "int8, around 0": {**SIGNED, "extra_options": {"ActivationSymmetric": True}}}
"""How maps and weights are quantised."""

LEAST = 0.01
"""Share of the images by which static exponents may be worse than the quantised network."""


class _Images(quantization.CalibrationDataReader):
    def __init__(self, images: np.ndarray) -> None:
        self.left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {"x": image[None]}


def measure(arguments: argparse.Namespace) -> Result:
    """Measure the network, quantised in every way."""
    x, labels = inputs(IMAGES)
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "float.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(load_lenet5(pruned=False).eval(), (torch.from_numpy(x[:1]),), whole,
                              dynamo=False, input_names=["x"])
        right = accuracy(_outputs(whole, x), labels)
        for name, options in WAYS.items():
            path = Path(folder) / "quantised.onnx"
            logging.disable(logging.WARNING)
            quantization.quantize_static(whole, path, _Images(calibration()[:CALIBRATION]),
                                         quant_format=quantization.QuantFormat.QDQ, **options)
            logging.disable(logging.NOTSET)
            wanted = _outputs(path, x)
            graph = Compiler().graph(path)
            found = [values_of(Compiler(exponents=exponents).quantised(graph, None), x)
                     .reshape(wanted.shape) for exponents in ("dynamic", "static")]
            shares = [accuracy(made, labels) for made in (wanted, *found)]
            worst = max(worst, shares[0] - shares[2])
            rows.append([name, right, *shares, *(decibels_of(made, wanted) for made in found)])
    table = Table.of(f"LeNet-5, quantised by onnxruntime, {len(x):,} images", {
        "quantised to": "", "float": ".1%", "quantised": ".1%", "dynamic": ".1%", "static": ".1%",
        "dynamic, dB": ".1f", "static, dB": ".1f"}, rows)
    return Result(title="Quantised networks", tables=(table,), checks=(
        Check.at_most("static exponents below the quantised network", worst, LEAST, ".3f"),),
        notes=("dB: signal to noise of the outputs against those of the quantised network.",))


def _outputs(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    found = [session.run(None, {"x": image[None]})[0] for image in x]
    return np.concatenate(found).astype(np.float64)


if __name__ == "__main__":
    main(measure, __doc__)
