"""Numbers as users give them: the right conversion, or one line that says what to give instead."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia import Board, compress
from celosia_spec.errors import ArgumentError, CelosiaError
from celosia_spec.inputs import as_array, as_tensor, real_array, wrong_shape

VALUES = torch.tensor([[0.5, -2.0, 0.0], [1.25, 3.0, -0.75]])


def quantised() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)    # of PyTorch, once: these tensors will go
        return torch.quantize_per_tensor(VALUES, 0.25, 0, torch.qint8)


KINDS = {
    "float32": lambda: VALUES, "float64": VALUES.double, "float16": VALUES.half,
    "bfloat16": VALUES.bfloat16, "float8": lambda: VALUES.to(torch.float8_e4m3fn),
    "gradient": lambda: VALUES.clone().requires_grad_() * 1,
    "parameter": lambda: nn.Parameter(VALUES),
    "sparse": VALUES.to_sparse, "csr": VALUES.to_sparse_csr, "quantised": quantised,
    "negative view": lambda: torch.complex(torch.zeros(2, 3), -VALUES).conj().imag,
    "strides": lambda: VALUES.t().contiguous().t(), "numpy": VALUES.numpy,
    "big-endian": lambda: VALUES.numpy().astype(">f4"),
    "reversed": lambda: VALUES.numpy()[::-1][::-1],
    "read-only": lambda: np.broadcast_to(VALUES.numpy(), (2, 3)), "list": VALUES.tolist,
    "list of rows": lambda: [VALUES[0].numpy(), VALUES[1].numpy()],
    "unmasked": lambda: np.ma.array(VALUES.numpy(), mask=False),
}


@pytest.mark.filterwarnings("ignore")      # torch's own, of types that it will drop
@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_kind_are_taken_as_they_are(kind: str) -> None:
    given = KINDS[kind]()
    found = as_array(given)
    assert found.dtype == np.float32 and found.dtype.isnative
    np.testing.assert_array_equal(found, VALUES.numpy())
    tensor = as_tensor(given, "inputs")
    assert tensor.layout == torch.strided and not tensor.requires_grad
    torch.testing.assert_close(tensor.float(), VALUES, rtol=0, atol=0)


@pytest.mark.parametrize("x", [
    np.array([[1, 2]], np.uint8), np.array([[True, False]]), [[1, 2]], torch.tensor([[1, 2]]),
    np.array([[1, 2]], np.longdouble), ((1, 2),),
])
def test_whole_numbers_become_float32(x: object) -> None:
    assert as_array(x).tolist() == [[float(value) for value in np.asarray(x)[0]]]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("make", "message"), [
    (lambda: [[1.0], [1.0, 2.0]], "not an array"),
    (lambda: [["a"]], "elements of type <U1"),
    (lambda: {}, "elements of type object"),
    (lambda: None, "elements of type object"),
    (lambda: [[10**400]], "elements of type object"),
    (lambda: np.zeros((1, 2), [("a", "f4")]), "elements of type"),
    (lambda: np.zeros((1, 2), "M8[s]"), "elements of type datetime64"),
    (lambda: np.zeros((1, 2), complex), "elements of type complex128"),
    (lambda: torch.zeros(1, 2, dtype=torch.complex64), "elements of type torch.complex64"),
    (lambda: torch.zeros(1, 2, device="meta"), "on the device 'meta', which has no values"),
    (lambda: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]), "different lengths"),
    (lambda: torch._subclasses.FakeTensorMode().from_tensor(torch.zeros(1, 2)), "cannot be read"),
    (lambda: np.ma.array([[1.0, 2.0]], mask=[[True, False]]), r"masked; fill them"),
    (lambda: 3.5, "a single number; give real numbers"),
    (lambda: torch.tensor(3.5), "a single number"),
    (lambda: [[1.0, float("nan")]], r"element \(0, 1\) is nan; remove NaN and infinity"),
    (lambda: torch.tensor([[-torch.inf]]), r"element \(0, 0\) is -inf"),
    (lambda: np.array([[1e300]]), r"element \(0, 0\) is 1e\+300, beyond float32; scale"),
    (lambda: torch.sparse_coo_tensor(torch.zeros(2, 0, dtype=torch.long), torch.zeros(0),
                                     (1 << 40, 1 << 20)), "cannot be read"),
])
def test_what_is_no_array_of_numbers_is_refused(make, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^calibration: .*{message}") as caught:
        as_array(make(), "calibration")
    assert "\n" not in str(caught.value)


def test_types_that_are_kept() -> None:
    assert real_array(VALUES.double(), "x").dtype == np.float64
    assert as_tensor(VALUES.double(), "x").dtype == torch.float64
    assert as_tensor(VALUES.bfloat16(), "x").dtype == torch.bfloat16
    assert as_tensor(np.zeros(2, ">i4"), "x").dtype == torch.int32


@pytest.mark.parametrize(("got", "wanted", "way"), [
    ((5, 8, 6, 3), (3, 8, 6), "; channels last? x.transpose(0, 3, 1, 2)"),
    ((5, 9, 3), (3, 9), "; channels last? x.transpose(0, 2, 1)"),
    ((8, 6, 3), (3, 8, 6), "; channels last, and no batch? x.transpose(2, 0, 1)[None]"),
    ((9, 3), (3, 9), "; channels last, and no batch? x.transpose(1, 0)[None]"),
    ((3, 8, 6), (3, 8, 6), "; add the batch: x[None]"), ((7,), (7,), "; add the batch: x[None]"),
    ((5, 8, 6), (1, 8, 6), "; reshape it: x.reshape(-1, 1, 8, 6)"),
    ((5, 1, 8, 6), (48,), "; reshape it: x.reshape(-1, 48)"),
    ((8, 6), (1, 8, 6), "; reshape it: x.reshape(-1, 1, 8, 6)"),
    ((2, 3, 6, 8), (3, 8, 6), "; height and width swapped? x.transpose(0, 1, 3, 2)"),
    ((3, 6, 8), (3, 8, 6), "; height and width swapped, and no batch? x.transpose(0, 2, 1)[None]"),
    ((2, 3, 16, 16), (16, 16, 3), "; channels first? x.transpose(0, 2, 3, 1)"),
    ((2, 8, 16, 3), (16, 8, 3), "; height and width swapped? x.transpose(0, 2, 1, 3)"),
    ((2, 48), (3, 4, 4), "; reshape it: x.reshape(-1, 3, 4, 4)"),
    ((5, 6, 8), (1, 8, 6), ""), ((2, 6, 3, 8), (3, 8, 6), ""), ((5, 4, 12), (3, 4, 4), ""),
    ((2, 16, 3, 16), (3, 16, 16), ""), ((5, 3, 6, 6), (3, 8, 6), ""),
    ((5, 48, 2), (48,), ""), ((), (1,), "")])
def test_the_way_out_of_another_shape_makes_it_the_networks(got, wanted, way) -> None:
    words = f"shape {got}, the network takes (N, {', '.join(map(str, wanted))})"
    assert wrong_shape(got, wanted) == words + way
    assert wrong_shape(got, wanted, "images") == words + way.replace("x.t", "images.t").replace(
        "x.r", "images.r").replace("x[", "images[")
    if way:
        call = way.rpartition(" x")[2]
        assert eval(f"x{call}", {"x": np.zeros(got)}).shape[1:] == wanted


def test_run_and_compile_take_them(tmp_path) -> None:
    net = nn.Linear(3, 2).eval()
    program = celosia.compile(net, VALUES[:1].to_sparse(), target="ecp5-85f",
                              calibration=VALUES.to_sparse(), exponents="static")
    right = celosia.run(program, VALUES.numpy())
    for kind in ("bfloat16", "sparse", "quantised", "list", "negative view"):
        np.testing.assert_array_equal(celosia.run(program, KINDS[kind]()).mantissa, right.mantissa)
    for wrong in (torch.zeros(1, 3, device="meta"), [[1.0, 2.0, 3.0], [1.0]], 3, None):
        with pytest.raises(CelosiaError, match="^input: "):
            celosia.run(program, wrong)
    with pytest.raises(CelosiaError, match="^calibration: "):
        celosia.compile(net, VALUES[:1], calibration=[[1.0], []], exponents="static")


def test_a_path_is_no_program(tmp_path) -> None:
    from celosia.compare import compare
    from celosia.explain import explain
    from celosia.verify import verify

    path, x = tmp_path / "p.celo", np.zeros((1, 3), np.float32)
    celosia.compile(nn.Linear(3, 2), (1, 3)).save(path)
    calls = (lambda given: celosia.run(given, x), lambda given: celosia.stream(given).__enter__(),
             lambda given: verify(given, x), compare, explain, celosia.build,
             lambda given: Board.load(None, given))
    for call in calls:
        for given, words in ((str(path), f"program: a path; give celosia.load({str(path)!r})"),
                             (path, f"program: a path; give celosia.load({str(path)!r})"),
                             (nn.Linear(3, 2), "program: Linear; give what celosia.compile or "
                                               "celosia.load returns")):
            with pytest.raises(ArgumentError) as caught:
                call(given)
            assert str(caught.value) == words
    assert celosia.run(celosia.load(str(path)), x).answer.shape == (1, 2)


def compressed(given: object) -> list[np.ndarray]:
    """Return what the functions of `compress` make of two inputs (2, 3)."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    scores = compress.scores(net, "correlation", given)
    cost = compress.measure(net, given)
    report = compress.nsr(net, given)
    mantissas, exponents = compress.bfp(given, 8, axis=0)
    compress.svd(net[0], 2)
    return [*scores.values(), np.array([layer.positions for layer in cost.layers.values()]),
            np.array([layer.output.measured for layer in report.layers.values()]), mantissas,
            exponents]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "float8"])
def test_compress_takes_them(kind: str) -> None:
    for found, right in zip(compressed(KINDS[kind]()), compressed(VALUES), strict=True):
        np.testing.assert_array_equal(found, right)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "quantised", "bfloat16", "list", "gradient"])
def test_training_takes_them(kind: str) -> None:
    trained = []
    for given in (KINDS[kind](), VALUES):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        compress.FineTune(inputs=given, labels=[0, 1], batch_size=2)(net, 0)
        trained.append(net.weight)
    assert torch.equal(*trained)


@pytest.mark.parametrize("function", [
    lambda net, x: compress.FineTune(inputs=x, labels=[0]),
    lambda net, x: compress.scores(net, "correlation", x), compress.measure, compress.nsr,
    lambda net, x: compress.bfp(x, 8), lambda net, x: compress.drop_unread(net, x),
    lambda net, x: compress.fuse(net, x), lambda net, x: compress.factorise(net, x, "svd"),
])
def test_compress_refuses_what_is_no_array(function) -> None:
    for wrong in ([[1.0], [1.0, 2.0]], {}, None, torch.zeros(1, 3, device="meta"),
                  torch.zeros(1, 3, dtype=torch.complex64)):
        with pytest.raises(CelosiaError, match=r"^[^\n]+$"):
            function(nn.Sequential(nn.Linear(3, 2)), wrong)


def test_arrays_need_no_torch() -> None:
    code = ("import sys; from celosia_spec.inputs import as_array; as_array([[1.0]]); "
            "print('torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
