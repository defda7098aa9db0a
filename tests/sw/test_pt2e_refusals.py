"""Quantised programs of PyTorch that are refused."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from celosia.cli import app
from celosia.compress import in_format
from celosia.frontend import import_model
from celosia_spec.errors import ArgumentError, CelosiaError, CompileError
from quantisers import INT8, OPS, Body, Weights, imported

DATA = Path(__file__).parent / "data"
MODEL = "models/model.json"


def other_scale(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, .01, 0, *INT8), .02, 0, *INT8)


def other_zero(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, .01, 0, *INT8), .01, 1, *INT8)


def sum_of_whole(net: Body, x: torch.Tensor) -> torch.Tensor:
    m = OPS.quantize_per_tensor(x, .01, 0, *INT8)
    return OPS.dequantize_per_tensor(m + m, .01, 0, *INT8)


def whole_as_float(net: Body, x: torch.Tensor) -> torch.Tensor:
    return OPS.quantize_per_tensor(x, .01, 0, *INT8).float() * .01


def joined_of_two_scales(net: Body, x: torch.Tensor) -> torch.Tensor:
    m = [OPS.quantize_per_tensor(x[:, :2], scale, 0, *INT8) for scale in (.01, .02)]
    return OPS.dequantize_per_tensor(torch.cat(m, 1), .01, 0, *INT8)


def scale_of_another(net: Body, x: torch.Tensor) -> torch.Tensor:
    found = OPS.choose_qparams(net.side(x), -128, 127, 1e-5, torch.int8)
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, *found, *INT8), *found, *INT8)


def scale_as_a_tensor(net: Body, x: torch.Tensor) -> torch.Tensor:
    return x * OPS.choose_qparams(x, -128, 127, 1e-5, torch.int8)[0].float()


def scale_of_lines(net: Body, x: torch.Tensor) -> torch.Tensor:
    args = torch.full((6,), .01), torch.zeros(6, dtype=torch.int64), 2, *INT8
    return OPS.dequantize_per_channel(OPS.quantize_per_channel(x, *args), *args)


def scale_of_rows(net: Body, x: torch.Tensor) -> torch.Tensor:
    found = OPS.choose_qparams_per_token_asymmetric(x, torch.int8)
    args = *found, *INT8
    return OPS.dequantize_per_token(OPS.quantize_per_token(x, *args), *args, torch.float32)


@pytest.mark.parametrize(("part", "message"), [
    (other_scale, "its scale or zero point is another than the quantiser's"),
    (other_zero, "its scale or zero point is another than the quantiser's"),
    (sum_of_whole, "it computes with whole numbers"),
    (whole_as_float, "it computes with whole numbers"),
    (joined_of_two_scales, "it computes with whole numbers"),
    (scale_of_another, "its scale is found from another tensor"),
    (scale_as_a_tensor, "it computes with a scale that is found from each input"),
    (scale_of_lines, r"it has 6 scales along axis 2 of \(1, 4, 6, 6\)"),
    (scale_of_rows, "it has a scale for each row"),
], ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_refused(part: Callable, message: str) -> None:
    with pytest.raises(CompileError, match=f": {message}; ") as caught:
        imported(Body(part))
    assert "\n" not in str(caught.value)


def nodes_of(program: dict, target: str) -> list[dict]:
    return [node for node in program["graph_module"]["graph"]["nodes"]
            if target in node["target"]]


def argument(name: str, value: dict, target: str = "tize_per_tensor") -> Callable[[dict], None]:
    """Return what sets an argument of all such operators."""
    def change(program: dict) -> None:
        for node in nodes_of(program, target):
            next(part for part in node["inputs"] if part["name"] == name)["arg"] = value
    return change


@pytest.mark.parametrize(("change", "message"), [
    (argument("scale", {"as_float": 0.0}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": -1.0}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": "NaN"}), "a scale is not above 0, or not finite"),
    (argument("scale", {"as_float": "Infinity"}), "a scale is not above 0, or not finite"),
    (argument("zero_point", {"as_int": 128}), "a zero point is none of -128 to 127"),
    (argument("zero_point", {"as_int": -2**62}), "a zero point is none of -128 to 127"),
    (argument("quant_min", {"as_int": 127}), "its whole numbers are 127 to 127"),
    (argument("quant_max", {"as_int": 2**62}), "its whole numbers are -128 to 461168601842738"),
    (argument("dtype", {"as_scalar_type": 7}), "it quantises to float32"),
    (argument("axis", {"as_int": 7}, "per_channel"), "axis"),
    (argument("axis", {"as_int": 1}, "per_channel"), r"scales (4,) along axis 1 of (4, 2, 3, 3)"),
    (argument("input", {"as_int": 7}), "torch cannot build its program"),
    (lambda program: nodes_of(program, "quantize_per_tensor")[0].update(
        target="torch.ops.quantized_decomposed.load.default"), "not supported by this machine"),
    (lambda program: nodes_of(program, "quantize_per_tensor")[0].update(
        target="torch.ops.torchao.quantize_affine.default"),
     "not supported by this machine; quantise with torchao's pt2e"),
])
def test_files_that_are_not_sound_are_refused(tmp_path: Path, change: Callable[[dict], None],
                                              message: str) -> None:
    with zipfile.ZipFile(DATA / "pt2e_xnnpack.pt2") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    root = next(name for name in content if name.endswith(MODEL))
    program = json.loads(content[root])
    change(program)
    with zipfile.ZipFile(tmp_path / "net.pt2", "w", zipfile.ZIP_STORED) as archive:
        for name, data in (content | {root: json.dumps(program).encode()}).items():
            archive.writestr(name, data)
    with pytest.raises(CelosiaError) as caught:
        import_model(tmp_path / "net.pt2")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_constants_of_no_finite_scale_are_refused(scale: float) -> None:
    model = Weights("int8", (-128, 127), 0, True)
    model.scales[2] = scale
    with pytest.raises(CompileError, match="a scale or zero point is not finite"):
        imported(model)


def test_pruning_asks_for_the_float_network() -> None:
    result = CliRunner().invoke(
        app, ["prune", str(DATA / "pt2e_xnnpack.pt2"), "--rate", "0.5", "-o", "none.pt2"])
    assert result.exit_code == 1 and "quantise" in result.stderr


def test_pruning_refuses_a_module_of_an_exported_program() -> None:
    own = torch.export.export(nn.Linear(4, 2), (torch.zeros(1, 4),)).module()
    for model, name in ((own, "the model"), (nn.Sequential(own, nn.Linear(2, 3)), "0")):
        with pytest.raises(ArgumentError, match=f"'{name}' was made by torch.export, has one mode"):
            in_format(model, torch.zeros(1, 4))
