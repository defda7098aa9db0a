"""ONNX's operators in all their forms: what is compiled computes what onnxruntime computes."""

from pathlib import Path

import numpy as np
import pytest

import celosia

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def saved(folder: Path, text: str, constants: dict, shape: tuple, opset: int) -> Path:
    """Save a network from x (1, *shape) to y; its last node but one makes b, of which a layer
    "last" makes y, if y is not made yet."""
    makes_y = text.rstrip().split("\n")[-1].split("=")[0].strip().startswith("y")
    last = "" if makes_y else "y = Conv <pads = [1, 1, 1, 1]> (b, last)"
    constants = {**constants, "first": normal(8, shape[0], 3, 3) / 4, "last": normal(6, 8, 3, 3)}
    given = ", ".join(map(str, (1, *shape)))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> net (float[{given}] x) => (float[] y) {{'
        f"{text}\n{last} }}")
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(value), name)
                                   for name, value in constants.items() if name in used)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name="y"))
    rank = onnxruntime.InferenceSession(model.SerializeToString()).get_outputs()[0].shape
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(
        "y", onnx.TensorProto.FLOAT, list(rank)))
    path = folder / "network.onnx"
    onnx.save(model, path)
    return path


CONV = "a = Conv <pads = [1, 1, 1, 1]> (x, first)\n"
ALL = -1 << 31
"""As far backwards as there are elements."""


def sliced(start: list, end: list, axes: list, steps: list) -> tuple:
    return (CONV + "b = Slice (a, s, e, x0, k)", {
        "s": np.array(start), "e": np.array(end), "x0": np.array(axes), "k": np.array(steps)})


def resized(attributes: str, scales: list | None = None, sizes: list | None = None) -> tuple:
    how = "a, , k" if sizes is None else "a, , , z"
    return (CONV + f"b = Resize <{attributes}> ({how})",
            {"k": np.array(scales or [], np.float32), "z": np.array(sizes or [])})


ASYMMETRIC = 'coordinate_transformation_mode = "asymmetric"'
FLOOR = f'mode = "nearest", {ASYMMETRIC}, nearest_mode = "floor"'
LINE = (8, 12)
TOKENS = (6, 10)

NETWORKS: dict[str, tuple] = {
    "slice backwards": sliced([-1], [ALL], [3], [-1]),
    "slice backwards, every second": sliced([-1], [ALL], [2], [-2]),
    "slice backwards, channels": sliced([-1], [ALL], [1], [-1]),
    "slice backwards, a part": sliced([6], [1], [3], [-1]),
    "slice backwards, both": sliced([-1, 6], [ALL, 2], [2, 3], [-1, -3]),
    "slice backwards of the input": (
        "q = Slice (x, s, e, x0, s)\ny = Conv (q, first)",
        {"s": np.array([-1]), "e": np.array([ALL]), "x0": np.array([3])}),
    "nearest, uneven": resized(FLOOR, [1, 1, 2, 3]),
    "nearest by sizes": resized(FLOOR, None, [1, 8, 12, 20]),
    "nearest, half pixels": resized('mode = "nearest"', [1, 1, 1.5, 1.5]),
    "nearest, half pixels, ceil": resized(
        'mode = "nearest", nearest_mode = "round_prefer_ceil"', [1, 1, 1.5, 2.5]),
    "nearest, corners": resized(
        'mode = "nearest", coordinate_transformation_mode = "align_corners"', [1, 1, 2, 2]),
    "nearest, ceil": resized(f'mode = "nearest", {ASYMMETRIC}, nearest_mode = "ceil"',
                             [1, 1, 2, 2]),
    "nearest, smaller": resized('mode = "nearest"', [1, 1, 0.5, 0.5]),
    "nearest, a factor that gives no size": resized(FLOOR, [1, 1, 1.2, 1.2]),
    "linear, uneven": resized('mode = "linear"', [1, 1, 2, 3]),
    "linear by sizes": resized('mode = "linear"', None, [1, 8, 12, 20]),
    "linear, asymmetric by sizes": resized(f'mode = "linear", {ASYMMETRIC}', None, [1, 8, 12, 20]),
    "linear, asymmetric, smaller": resized(f'mode = "linear", {ASYMMETRIC}', [1, 1, 0.5, 0.5]),
    "linear, a factor that gives no size": resized('mode = "linear"', [1, 1, 1.2, 1.2]),
    "gather, axes of indices": (
        CONV + "g = Gather <axis = 1> (a, i)\nr = Reshape (g, s)\ny = Conv (r, w)",
        {"i": np.array([[0, 5], [-1, 3]]), "s": np.array([1, 4, 8, 8]), "w": normal(6, 4, 3, 3)}),
    "minimum": (CONV + "p = ReduceMin <keepdims = 0> (a, i)\ny = Gemm (p, w)",
                {"i": np.array([2, 3]), "w": normal(8, 5)}),
    "sum of absolutes": (CONV + "p = ReduceL1 <keepdims = 0> (a, i)\ny = Gemm (p, w)",
                         {"i": np.array([2, 3]), "w": normal(8, 5)}),
    "sum of squares": (CONV + "p = ReduceSumSquare <keepdims = 0> (a, i)\ny = Gemm (p, w)",
                       {"i": np.array([2, 3]), "w": normal(8, 5)}),
    "mean of all": (CONV + "y = ReduceMean (a)", {}),
    "means of one axis": (
        CONV + "p = ReduceMean <keepdims = 0> (a, i)\nq = ReduceMean <keepdims = 0> (p, j)\n"
        "y = Gemm (q, w)", {"i": np.array([3]), "j": np.array([2]), "w": normal(8, 5)}),
    "mean of two tensors": (CONV + "r = Relu (a)\nb = Mean (a, r)", {}),
    "padded by a number": (CONV + "r = Relu (a)\np = Pad (r, i, v)\ny = Conv (p, last)",
                           {"i": np.array([0, 0, 1, 2, 0, 0, 1, 0]), "v": np.float32(0.75)}),
    "clip without bounds": (CONV + "b = Clip (a)", {}),
    "size": (CONV + "s = Size (a)\nu = Unsqueeze (s, z)\nt = Concat <axis = 0> (o, u)\n"
             "f = Reshape (a, t)\ny = Gemm (f, w)",
             {"z": np.array([0]), "o": np.array([1]), "w": normal(512, 5)}),
    "flatten from axis 0": (CONV + "f = Flatten <axis = 0> (a)\ny = Gemm (f, w)",
                            {"w": normal(512, 5)}),
    "flatten from an axis of the end": (CONV + "f = Flatten <axis = -3> (a)\ny = Gemm (f, w)",
                                        {"w": normal(512, 5)}),
    "transposed, padded behind": (
        "y = ConvTranspose <strides = [2, 2], pads = [0, 0, 1, 1]> (x, w)",
        {"w": normal(3, 4, 3, 3)}),
    "transposed, padded in front": (
        "y = ConvTranspose <strides = [2, 1], pads = [2, 2, 0, 1], dilations = [1, 2]> (x, w)",
        {"w": normal(3, 4, 4, 3)}),
    "transposed to a size": (
        "y = ConvTranspose <strides = [2, 2], output_shape = [16, 16]> (x, w)",
        {"w": normal(3, 4, 3, 3)}),
    "transposed, same": (
        'y = ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)',
        {"w": normal(3, 4, 3, 3)}),
    "transposed line": ("y = ConvTranspose <strides = [2], pads = [0, 2], dilations = [1]> (x, w)",
                        {"w": normal(8, 4, 4)}, LINE),
    "matrix on the left": ("m = MatMul (w, x)\ny = Relu (m)", {"w": normal(4, 6)}, TOKENS),
    "matrix on the left of maps": ("m = MatMul (w, x)\ny = Relu (m)", {"w": normal(4, 8)}),
    "matrix with axes of 1": ("m = MatMul (x, w)\ny = Relu (m)", {"w": normal(1, 10, 4)}, TOKENS),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_operator_computes_what_onnxruntime_computes(name: str, tmp_path: Path) -> None:
    text, constants, shape, *_ = *NETWORKS[name], (3, 8, 8)
    path = saved(tmp_path, text, constants, shape, 18)
    x = np.random.default_rng(1).standard_normal((4, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(path.read_bytes())
    wanted = np.concatenate([session.run(None, {"x": one[None]})[0] for one in x])
    program = celosia.compile(path, target="ulx3s-25f", calibration=x)
    answer = celosia.run(program, x).answer
    assert answer.shape == wanted.shape
    assert 10 * np.log10(np.square(wanted).sum() / np.square(answer - wanted).sum()) > 28


REFUSED = {
    "cubic": (resized('mode = "cubic"', [1, 1, 2, 2]), "use mode nearest, or linear with"),
    "pool of squares": ((CONV + "p = GlobalLpPool (a)\ny = Relu (p)", {}),
                        "leave it out, or use one of Abs, "),
    "two tensors": ((CONV + "y = MatMul (a, a)", {}), "use linear layers with constant weights"),
    "rows that nothing writes": (
        ("y = ConvTranspose <strides = [2, 2], output_shape = [20, 20]> (x, w)",
         {"w": normal(3, 4, 3, 3)}), "make the map larger by a Pad behind it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_a_way_out(name: str, tmp_path: Path) -> None:
    (text, constants), words = REFUSED[name]
    path = saved(tmp_path, text, constants, (3, 8, 8), 18)
    with pytest.raises(celosia.CompileError) as refusal:
        celosia.compile(path, target="ulx3s-25f")
    assert words in str(refusal.value)
