"""Quantised ONNX networks: what onnxruntime computes of QDQ, what QONNX's definition says."""

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from celosia import original
from celosia.frontend import import_model
from celosia.passes import optimise
from celosia.widths import widths
from celosia_spec.errors import CelosiaError
from celosia_spec.host_layers import compute

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from celosia.frontend.onnx import load_onnx  # noqa: E402
from onnx_files import near  # noqa: E402

node = onnx.helper.make_node
FLOAT = onnx.TensorProto.FLOAT
QONNX = "qonnx.custom_op.general"


class Network(nn.Module):
    """A ReLU and clamps that a quantiser stands for, one of them behind a slice; a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.halves, self.last = nn.Conv2d(8, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu6(self.deep(x) + x)
        x, y = self.halves(x).chunk(2, 1)
        return self.last(torch.cat([F.hardtanh(x, -.25, .25), F.relu(y)], 1).mean((2, 3)))


class Samples:
    def __init__(self, inputs: np.ndarray) -> None:
        self.left = iter(inputs)

    def get_next(self) -> dict | None:
        one = next(self.left, None)
        return None if one is None else {"x": one[None]}


@pytest.fixture(scope="module")
def floats(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """A float network, and inputs for it."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("qdq") / "float.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # the exporter that needs no other package is deprecated
        torch.onnx.export(Network().eval(), (torch.zeros(1, 2, 6, 6),), path, dynamo=False,
                          input_names=["x"])
    return path, np.random.default_rng(0).standard_normal((16, 2, 6, 6)).astype(np.float32)


def outputs(path: Path, inputs: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    return np.concatenate([session.run(None, {"x": one[None]})[0] for one in inputs])


KINDS = ["unsigned activations", "signed, a scale for each channel", "symmetric activations",
         "weights of four bits", "16 bits"]


def quantised(how: str, floats: tuple[Path, np.ndarray], folder: Path) -> None:
    """Write a float network as onnxruntime quantises it, to qdq.onnx."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, inputs = floats
    types = quantization.QuantType
    options = {
        KINDS[0]: {},
        KINDS[1]: {"weight_type": types.QInt8, "activation_type": types.QInt8, "per_channel": True},
        KINDS[2]: {"activation_type": types.QInt8, "extra_options": {"ActivationSymmetric": True}},
        KINDS[3]: {"weight_type": types.QInt4},
        KINDS[4]: {"weight_type": types.QInt16, "activation_type": types.QUInt16,
                   "extra_options": {"UseQDQContribOps": True}}}[how]
    logging.disable(logging.WARNING)    # that it would rather have the network preprocessed
    try:
        quantization.quantize_static(path, folder / "qdq.onnx", Samples(inputs),
                                     quant_format=quantization.QuantFormat.QDQ, **options)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("how", KINDS[:2])
def test_qdq_of_onnxruntime(how, floats, tmp_path):
    path, inputs = floats
    quantised(how, floats, tmp_path)
    kept = {found.op_type for found in onnx.load(tmp_path / "qdq.onnx").graph.node}
    assert "QuantizeLinear" in kept and not kept & {"Clip"}
    wanted = outputs(tmp_path / "qdq.onnx", inputs)
    module, _ = load_onnx(tmp_path / "qdq.onnx")
    with torch.no_grad():
        found = np.concatenate([module(torch.from_numpy(one[None])) for one in inputs])
    assert near(outputs(path, inputs), wanted) > 25
    assert near(found, wanted) > 25
    program = celosia.compile(tmp_path / "qdq.onnx")
    assert near(celosia.run(program, inputs).answer, wanted) > 25
    assert any("takes 8 constants with their quantised values" in remark
               for remark in program.remarks)
    plain = celosia.compile(path)
    assert program.predicted_cycles <= 1.1 * plain.predicted_cycles


def test_a_file_that_returns_whole_numbers(floats, tmp_path):
    """Its answers are what they stand for, and that is told."""
    quantised(KINDS[0], floats, tmp_path)
    wanted = outputs(tmp_path / "qdq.onnx", floats[1])
    model = onnx.load(tmp_path / "qdq.onnx")
    last = model.graph.node.pop()
    assert last.op_type == "DequantizeLinear" and last.output[0] == model.graph.output[0].name
    kind = onnx.numpy_helper.to_array(next(
        one for one in model.graph.initializer if one.name == last.input[2])).dtype
    model.graph.output[0].name = last.input[0]
    model.graph.output[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(kind)
    onnx.save(model, tmp_path / "codes.onnx")
    assert outputs(tmp_path / "codes.onnx", floats[1]).dtype == kind
    program = celosia.compile(tmp_path / "codes.onnx")
    assert (f"{last.input[0]}, whole numbers in the file, is returned as the numbers that these "
            "stand for") in program.remarks
    assert near(celosia.run(program, floats[1]).answer, wanted) > 25


@pytest.mark.parametrize("how", KINDS)
def test_scales_become_static_exponents(how, floats, tmp_path):
    """Without calibration inputs, and no worse than with dynamic exponents by more than 3 dB."""
    _, inputs = floats
    quantised(how, floats, tmp_path)
    wanted = outputs(tmp_path / "qdq.onnx", inputs)
    graph = import_model(tmp_path / "qdq.onnx")
    assert near(original.outputs(graph, inputs).reshape(wanted.shape), wanted) > 60
    program = celosia.compile(tmp_path / "qdq.onnx", exponents="static", target="ulx3s-85f")
    dynamic = celosia.compile(tmp_path / "qdq.onnx", target="ulx3s-85f")
    found, free = (near(celosia.run(one, inputs).answer, wanted) for one in (program, dynamic))
    assert found > max(25, free - 3)
    told = celosia.compile(tmp_path / "qdq.onnx", exponents="static", target="ulx3s-85f",
                           calibration=inputs, accuracy="none").quantised
    assert told.ratio == pytest.approx(found, abs=.1) and told.inputs == len(inputs)
    assert not any(hasattr(tensor.exponent, "value") for tensor in dynamic.graph.tensors.values())


def test_widths_are_beside_the_network_without_quantisers(floats, tmp_path):
    quantised(KINDS[3], floats, tmp_path)
    path, (_, inputs) = tmp_path / "qdq.onnx", floats
    found = celosia.compile(path, calibration=inputs, accuracy="none").quantised
    (width,) = widths(path, bits=[(8, 8)], calibration=inputs, accuracy="none").widths
    assert width.ratio == pytest.approx(found.float_ratio, abs=0.01)
    assert abs(width.ratio - found.ratio) > 1


def qonnx(folder: Path, nodes: list, constants: dict) -> Path:
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "network", [tensor("x", FLOAT, ["N", 2, 6, 6])], [tensor("y", FLOAT, list("abcd"))],
        [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name)
         for name, value in constants.items()])
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid(QONNX, 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8),
              folder / "qonnx.onnx")
    return folder / "qonnx.onnx"


def quant(*names: str, kind: str = "Quant", **attributes: object) -> object:
    return node(kind, list(names[:-1]), [names[-1]], domain=QONNX, **attributes)


RNG = np.random.default_rng(2)
V, X = RNG.normal(size=(4, 2, 3, 3)), RNG.normal(size=(8, 2, 6, 6)).astype(np.float32)
SCALE = RNG.uniform(.1, .2, (4, 1, 1, 1))
CONSTANTS = {"v": V, "s": SCALE, "z": 0, "four": 4, "t": .02, "eight": 8}
CONV = [node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]),
        quant("r", "t", "z", "eight", "y", signed=0)]
WEIGHTS = {
    "four bits": (quant("v", "s", "z", "four", "w"), np.clip(np.round(V / SCALE), -8, 7) * SCALE),
    "four bits, narrow, cut": (
        quant("v", "s", "z", "four", "w", narrow=1, rounding_mode="FLOOR"),
        np.clip(np.floor(V / SCALE), -7, 7) * SCALE),
    "unsigned, around a zero point": (
        quant("v", "s", "four", "four", "w", signed=0),
        (np.clip(np.round(V / SCALE + 4), 0, 15) - 4) * SCALE),
    "signs": (quant("v", "s", "w", kind="BipolarQuant"), np.where(V >= 0, SCALE, -SCALE)),
}


@pytest.mark.parametrize("how", WEIGHTS)
def test_qonnx(how, tmp_path):
    first, weights = WEIGHTS[how]
    path = qonnx(tmp_path, [first, *CONV], CONSTANTS)
    wanted = F.conv2d(torch.from_numpy(X), torch.tensor(weights, dtype=torch.float32)).relu()
    module, _ = load_onnx(path)
    torch.testing.assert_close(module(torch.from_numpy(X)), wanted, rtol=1e-5, atol=1e-5)
    assert near(celosia.run(celosia.compile(path), X).answer, wanted.numpy()) > 30


def test_an_activation_that_only_the_range_tells(tmp_path):
    """Of sums what is below 0, or above the range, is cut off; of the input nothing is."""
    conv = node("Conv", ["p", "v"], ["a"])
    path = qonnx(tmp_path, [quant("x", "t", "z", "eight", "p"), conv,
                            quant("a", "t", "z", "eight", "y", signed=0)], CONSTANTS)
    found = load_onnx(path)[0](torch.from_numpy(X))
    wanted = F.conv2d(torch.from_numpy(X), torch.tensor(V, dtype=torch.float32)).clamp(0, 5.1)
    assert float(wanted.max()) == pytest.approx(5.1)
    torch.testing.assert_close(found, wanted)


CLAMPS = {      # what follows the first layer, whether that is right without the clamp in the file
    "end": (lambda x, o: F.hardtanh(x), True),
    "end, uneven": (lambda x, o: x.clamp(-.5, .7), False),
    "middle, uneven": (lambda x, o: o(x.clamp(-.5, .7)), True),
    "middle, flattened": (lambda x, o: o(x.clamp(-.5, .7)).flatten(1), True),
    "addition": (lambda x, o: o(F.hardtanh(x[:, :4], -.3, .3) + x[:, 4:]), False),
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("where", CLAMPS)
def test_clamps_that_became_ranges(where, kept, tmp_path):
    """Inputs so large that clamps cut most of the sums off; what a range does not tell is named."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    follow, told = CLAMPS[where]
    torch.manual_seed(2)

    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(2, 8, 3, padding=1)
            self.last = nn.Conv2d(4 if where == "addition" else 8, 3, 3, padding=1)

        def forward(self, x):
            return follow(self.first(x), self.last)

    inputs = 4 * np.random.default_rng(1).standard_normal((16, 2, 6, 6)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Clamped().eval(), (torch.zeros(1, 2, 6, 6),), tmp_path / "float.onnx",
                          dynamo=False, input_names=["x"])
    quantization.quantize_static(
        tmp_path / "float.onnx", tmp_path / "qdq.onnx", Samples(inputs),
        quant_format=quantization.QuantFormat.QDQ,
        extra_options={"QDQKeepRemovableActivations": kept})
    program = celosia.compile(tmp_path / "qdq.onnx")
    found = near(celosia.run(program, inputs).answer, outputs(tmp_path / "qdq.onnx", inputs))
    assert (found > 25) == (told or kept)
    assert told or kept or "QDQKeepRemovableActivations" in program.remarks[-1]


def pair(*grid: str, other: tuple[str, ...] = (), between: tuple = ()) -> list:
    """Return a quantiser and a dequantiser of the input, and what stands between them."""
    return [node("QuantizeLinear", ["x", *grid], ["q"]), *between,
            node("DequantizeLinear", ["p" if between else "q", *(other or grid)], ["y"])]


QDQ_REFUSED = {
    "its scale or zero point is another than the quantiser's": pair("t", other=("twice",)),
    "it computes with whole numbers": pair("t", between=(node("Add", ["q", "q"], ["p"]),)),
    "a scale is not above 0, or not finite": pair("none"),
    "a scale is not above 0, or not finite;": pair("minus"),
    "a scale is not above 0, or not finite; ": pair("nan"),
}


@pytest.mark.parametrize("message", QDQ_REFUSED)
def test_pairs_that_are_refused(message, tmp_path):
    path = qonnx(tmp_path, QDQ_REFUSED[message], CONSTANTS | {
        "nan": np.nan, "minus": -.1, "none": 0, "twice": .04})
    with pytest.raises(CelosiaError, match=message.strip("; ")) as refusal:
        load_onnx(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("scales", "zeros", "message"), [
    ("two", "z", None), ("three", "z", r"it has 3 scales, and no channels of that number"),
    ("t", "half", "a zero point is none of -8 to 7"), ("t", "many", "a zero point is none of"),
])
def test_scales_of_qonnx_on_the_way(scales, zeros, message, tmp_path):
    constants = CONSTANTS | {"two": np.full((1, 2, 1, 1), [[[.1]], [[.2]]]), "many": 64,
                             "three": np.full((1, 3, 1, 1), .1), "half": .5}
    nodes = [quant("x", scales, zeros, "four", "p"), node("Conv", ["p", "v"], ["y"])]
    path = qonnx(tmp_path, nodes, constants)
    if message is not None:
        with pytest.raises(CelosiaError, match=message):
            load_onnx(path)
        return
    graph = import_model(path)
    scale = np.array([.1, .2]).reshape(1, 2, 1, 1)
    inputs = np.clip(np.round(X / scale), -8, 7) * scale
    wanted = F.conv2d(torch.tensor(inputs, dtype=torch.float32), torch.tensor(V).float()).numpy()
    assert near(original.outputs(graph, X), wanted) > 100
    assert optimise(graph).ranges["input"] == pytest.approx((-1.6, 1.4))


def test_whole_numbers_may_be_moved_and_pooled(tmp_path):
    between = (node("MaxPool", ["q"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
               node("Transpose", ["m"], ["p"], perm=[0, 1, 3, 2]))
    graph = import_model(qonnx(tmp_path, pair("t", between=between), CONSTANTS | {"t": .03}))
    wanted = F.max_pool2d(torch.from_numpy(np.clip(np.round(X / np.float32(.03)), 0, 255) * .03), 2)
    made = compute(graph.host, original.outputs(graph, X))
    np.testing.assert_allclose(made, wanted.transpose(2, 3), atol=1e-6)


REFUSED = {
    r"nothing of the input but its sign": [quant("x", "t", "y", kind="BipolarQuant")],
    r"scale depends on the input": [quant("x", "x", "z", "four", "y")],
    r"scale depends on the input; quantise": [quant("v", "x", "z", "four", "y")],
    r"rounds by HALF_UP": [quant("v", "s", "z", "four", "w", rounding_mode="half_up"), *CONV],
    r"lets nothing through": [
        node("Conv", ["x", "v"], ["a"]), quant("a", "z", "z", "four", "y")],
    r"has 64 bits": [quant("v", "s", "z", "many", "w"), *CONV],
    r"Trunc.*not one of ONNX's own": [quant("x", "t", "z", "four", "four", "y", kind="Trunc")],
    r"QLinearAdd.*QuantFormat.QDQ": [node("QLinearAdd", ["x", "x"], ["y"])],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message, tmp_path):
    path = qonnx(tmp_path, REFUSED[message], CONSTANTS | {"many": 64})
    with pytest.raises(CelosiaError, match=message) as refusal:
        load_onnx(path)
    assert "\n" not in str(refusal.value)
