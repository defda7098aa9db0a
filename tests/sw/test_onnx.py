"""ONNX: networks compute what onnxruntime computes, or what is stored with them."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import celosia
from celosia_spec.errors import CelosiaError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from celosia.frontend.onnx import load_onnx  # noqa: E402
from onnx_files import near, node, saved  # noqa: E402

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


NETWORKS = {
    "classifier": ([
        node("Conv", ["x", "w", "b"], ["a"], auto_pad="SAME_UPPER", strides=[2, 2]),
        node("Relu", ["a"], ["r"]), node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "v", "c"], ["y"], transB=1)],
        (3, 10, 10), {"w": normal(8, 3, 3, 3), "b": normal(8), "v": normal(5, 8), "c": normal(5)},
        2),
    "line, with a shape that is computed": ([
        node("Conv", ["x", "w"], ["a"], pads=[2, 2], dilations=[2], group=2),
        node("LeakyRelu", ["a"], ["l"], alpha=.125),
        node("MaxPool", ["l"], ["m"], kernel_shape=[2], strides=[2]),
        node("Shape", ["m"], ["s"]), node("Gather", ["s", "i"], ["d"]),
        node("Unsqueeze", ["d", "z"], ["e"]), node("Concat", ["e", "rest"], ["t"], axis=0),
        node("Reshape", ["m", "t"], ["q"]), node("MatMul", ["q", "v"], ["u"]),
        node("Add", ["u", "c"], ["y"])],
        (4, 12), {"w": normal(6, 2, 3), "i": np.int64(0), "z": np.array([0]),
                  "rest": np.array([-1]), "v": normal(36, 5), "c": normal(5)}, 2),
    "halves": ([
        node("Conv", ["x", "w"], ["a"]),
        node("BatchNormalization", ["a", "s", "h", "m", "v"], ["b"]),
        node("Split", ["b"], ["p", "q"], axis=1), node("Clip", ["p", "lo", "hi"], ["pc"]),
        node("Concat", ["q", "pc"], ["y"], axis=1)],
        (3, 6, 6), {"w": normal(8, 3, 1, 1), "s": normal(8), "h": normal(8), "m": normal(8),
                    "v": abs(normal(8)), "lo": np.float32(0), "hi": np.float32(6)}, 4),
    "larger maps": ([
        node("Conv", ["x", "w"], ["a"]),
        node("Resize", ["a", "", "k"], ["r"], mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
        node("DepthToSpace", ["r"], ["y"], blocksize=2, mode="CRD")],
        (3, 5, 5), {"w": normal(8, 3, 3, 3), "k": np.array([1, 1, 2, 2], np.float32)}, 4),
    "between elements": ([
        node("Pad", ["x", "p"], ["a"], mode="reflect"),
        node("Conv", ["a", "w"], ["b"]), node("Pad", ["b", "q"], ["c"], mode="edge"),
        node("Resize", ["c", "", "k"], ["r"], mode="linear"),
        node("Resize", ["r", "", "k"], ["y"], mode="linear",
             coordinate_transformation_mode="asymmetric")],
        (3, 5, 5), {"p": np.array([0, 0, 1, 0, 0, 0, 0, 2]),
                    "q": np.array([0, 0, 0, 1, 0, 0, 1, 0]), "w": normal(8, 3, 3, 3),
                    "k": np.array([1, 1, 2, 2], np.float32)}, 4),
    "transposed": ([
        node("Pad", ["x", "p"], ["a"]),
        node("ConvTranspose", ["a", "w", "b"], ["t"], strides=[2, 2], pads=[1, 1, 1, 1],
             output_padding=[1, 1]),
        node("PRelu", ["t", "s"], ["r"]), node("Mul", ["r", "g"], ["y"])],
        (3, 4, 4), {"p": np.array([0, 0, 1, 0, 0, 0, 0, 1]), "w": normal(3, 6, 3, 3),
                    "b": normal(6), "s": normal(6, 1, 1), "g": normal(6, 1, 1)}, 4),
    "settings as attributes": ([
        node("Slice", ["x"], ["a"], starts=[1], ends=[3], axes=[1]),
        node("Conv", ["a", "w"], ["b"]), node("ReduceMean", ["b"], ["y"], axes=[2, 3], keepdims=0)],
        (4, 5, 5), {"w": normal(6, 2, 3, 3)}, 2, 9),
    "channels from depth and back": ([
        node("SpaceToDepth", ["x"], ["a"], blocksize=2), node("Conv", ["a", "w"], ["b"]),
        node("DepthToSpace", ["b"], ["y"], blocksize=2)],
        (3, 6, 6), {"w": normal(8, 12, 1, 1)}, 4),
    "settings that are not the usual ones": ([
        node("Conv", ["x", "w"], ["a"]), node("Selu", ["a"], ["b"], alpha=2.0, gamma=3.0),
        node("HardSigmoid", ["b"], ["c"], alpha=0.25, beta=0.375),
        node("PRelu", ["c", "s"], ["y"])],
        (3, 6, 6), {"w": normal(6, 3, 1, 1), "s": normal(6, 1, 1)}, 4),
    "sums that are broadcast": ([
        node("Conv", ["x", "w"], ["a"]), node("ReduceSum", ["a", "i"], ["s"]),
        node("Add", ["a", "s"], ["b"]), node("ReduceMean", ["b", "j"], ["m"], keepdims=1),
        node("Sub", ["b", "m"], ["y"])],
        (3, 4, 5), {"w": normal(6, 3, 1, 1), "i": np.array([1]), "j": np.array([2, 3])}, 4, 18),
    "a vector that becomes a map": ([
        node("Gemm", ["x", "v", "c"], ["a"]), node("Relu", ["a"], ["r"]),
        node("Reshape", ["r", "t"], ["m"]), node("Conv", ["m", "w"], ["y"])],
        (12,), {"v": normal(12, 60), "c": normal(60), "t": np.array([-1, 3, 4, 5]),
                "w": normal(4, 3, 3, 3)}, 4),
    "elements that are repeated": ([
        node("Conv", ["x", "w"], ["a"]), node("ReduceMean", ["a", "i"], ["m"]),
        node("Expand", ["m", "t"], ["e"]), node("Add", ["a", "e"], ["s"]),
        node("Tile", ["m", "k"], ["l"]), node("Concat", ["s", "l"], ["y"], axis=1)],
        (3, 4, 5), {"w": normal(6, 3, 1, 1), "i": np.array([2, 3]), "t": np.array([4, 5]),
                    "k": np.array([1, 2, 4, 5])}, 4, 18),
    "a pool of the same size, as Keras has it": ([
        node("Conv", ["x", "w"], ["a"]), node("Relu", ["a"], ["r"]),
        node("MaxPool", ["r"], ["m"], kernel_shape=[3, 3], strides=[2, 2],
             auto_pad="SAME_UPPER"),
        node("Sum", ["m", "m"], ["s"]), node("Gather", ["s", "i"], ["y"], axis=1)],
        (3, 8, 8), {"w": normal(6, 3, 1, 1), "i": np.array([4, 1, -1])}, 4),
}


class Network(nn.Module):
    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(x, *self.layers)


def residual(x, first, deep, short, last):
    x = F.relu(first(x))
    return last(F.relu6(deep(x) + short(x)).mean((2, 3)))


def shuffled(x, first, last):
    x = F.relu(first(x))
    return last(x.view(len(x), 2, 4, *x.shape[2:]).transpose(1, 2).reshape(x.shape))


def swapped(x, first, last):
    x, y = first(x).chunk(2, 1)
    return last(torch.cat([F.hardtanh(y), F.leaky_relu(x, .25)], 1))


EXPORTED = {
    "residual": (lambda: Network(
        residual, nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)),
        nn.Conv2d(8, 16, 3, 1, 1, groups=8), nn.Conv2d(8, 16, 1), nn.Linear(16, 5)), (3, 12, 12)),
    "shuffled": (lambda: Network(shuffled, nn.Conv2d(2, 8, 3, padding=1),
                                 nn.Conv2d(8, 4, 3, groups=4)), (2, 8, 8)),
    "swapped": (lambda: Network(swapped, nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 4, 3)),
                (2, 8, 8)),
    "line": (lambda: nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4)),
        (3, 20)),
    "autoencoder": (lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2),
        nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(4, 1, 2, 2)), (1, 8, 8)),
    "one element for each channel": (lambda: Network(
        lambda x, first, last: last(F.relu(first(x)).mean((2, 3), keepdim=True).expand(
            x.shape[0], -1, x.shape[2], 7)), nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 3)), (2, 6, 5)),
    "repeated": (lambda: Network(
        lambda x, first, last: last(F.relu(first(x)).mean((2, 3), keepdim=True).repeat(1, 2, 3, 7)),
        nn.Conv2d(2, 4, 3), nn.Conv2d(8, 3, 2)), (2, 6, 5)),
    "vector": (lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Hardsigmoid(), nn.Linear(16, 3), nn.Softmax(1)),
        (1, 8, 8)),
}


@pytest.fixture(scope="module", params=[*NETWORKS, *EXPORTED])
def network(request, tmp_path_factory) -> Path:
    """A file of each network above."""
    folder = tmp_path_factory.mktemp("onnx")
    if request.param in NETWORKS:
        return saved(folder, *NETWORKS[request.param])
    make, shape = EXPORTED[request.param]
    torch.manual_seed(0)
    path = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # the exporter that needs no other package is deprecated
        torch.onnx.export(make().eval(), (torch.zeros(1, *shape),), path, dynamo=False,
                          input_names=["x"], dynamic_axes={"x": {0: "N"}})
    return path


def float_outputs(path: Path, inputs: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(None, {"x": inputs})[0]


def test_networks_compute_what_onnxruntime_computes(network):
    module, (example,) = load_onnx(network)
    inputs = normal(*example.shape)
    wanted = float_outputs(network, inputs)
    with torch.no_grad():
        found = module(torch.from_numpy(inputs)).numpy()
    assert np.abs(wanted).max() > 0.1
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_programs_are_near_onnxruntime(network):
    """At 8 bits, on random weights and inputs; without an example, which the file tells."""
    program = celosia.compile(network, target="ulx3s-85f")
    inputs = normal(8, *program.graph.tensors[program.graph.input].user_shape)
    wanted = np.concatenate([float_outputs(network, one[None]) for one in inputs])
    assert near(celosia.run(program, inputs).answer, wanted) > 30


FORMULAS = {    # what ONNX writes in steps, or has no word for
    "log sigmoid": nn.LogSigmoid(), "softshrink": nn.Softshrink(),
    "larger": lambda x: torch.maximum(x, x / 10), "smaller": lambda x: torch.minimum(x, x / 3 + 1),
    "exponential": lambda x: 1 / (1 + torch.exp(-x)), "root": lambda x: torch.sqrt(x * x + 1),
    "powers": lambda x: (x ** 2 + 1) ** 0.5, "arc": torch.atan,
    "square": lambda x: 1 + x ** 2, "one bound": lambda x: x.clamp(min=0.25),
    "masked": lambda x: x.masked_fill(x < 0, 0.0),
    "at most": lambda x: torch.minimum(x, torch.tensor(0.5)),
    "one side": lambda x: torch.where(x <= 0.5, x, 0.25 + x / 2)}


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_functions_in_pieces(name, tmp_path):
    torch.manual_seed(1)
    model = Network(lambda x, first, last: last(FORMULAS[name](first(x))),
                    nn.Conv2d(2, 4, 3), nn.Conv2d(4, 3, 1)).eval()
    path, x = tmp_path / "network.onnx", normal(8, 2, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (torch.from_numpy(x[:1]),), path, dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "N"}})
    assert near(celosia.run(celosia.compile(path), x).answer, float_outputs(path, x)) > 30


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_number_is_divided_by_a_tensor(shape, tmp_path):
    path = saved(tmp_path, [
        node("MatMul", ["x", "w"], ["a"]), node("Exp", ["a"], ["e"]),
        node("Add", ["e", "one"], ["d"]), node("Div", ["one", "d"], ["y"])], (8,),
        {"w": normal(8, 6), "one": np.ones(shape, np.float32)}, 2)
    x = normal(8, 8)
    assert near(celosia.run(celosia.compile(path), x).answer, float_outputs(path, x)) > 30


KINDS = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-converted"


def stored(path: Path) -> np.ndarray:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return onnx.numpy_helper.to_array(tensor)


def test_networks_of_the_onnx_package_compute_what_is_stored_with_them(tmp_path):
    computed = 0
    for folder in sorted(KINDS.iterdir()):
        model = onnx.load(folder / "model.onnx")
        if model.opset_import[0].version < 7:
            model = onnx.version_converter.convert_version(model, 13)
        onnx.save(model, tmp_path / "model.onnx")
        try:
            module, (example,) = load_onnx(tmp_path / "model.onnx")
        except CelosiaError:
            continue
        inputs, wanted = (torch.tensor(stored(folder / "test_data_set_0" / f"{name}_0.pb"))
                          for name in ("input", "output"))
        with torch.no_grad():
            found = torch.cat([module(one[None]) for one in inputs])
        assert inputs.shape[1:] == example.shape[1:]
        if len(found) != len(inputs):       # a constant has a batch
            with pytest.raises(CelosiaError):
                celosia.compile(tmp_path / "model.onnx")
            continue
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
        computed += 1
    assert computed >= 56
