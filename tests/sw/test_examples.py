"""Example inputs as users give them, and what is told of what was done with a module."""

import numpy as np
import pytest
import torch
from torch import nn

from beside_torch import SHAPE, quiet, snr
from celosia.frontend import import_model
from celosia_spec.errors import ArgumentError, CompileError

SHAPES = "the shape (1, C, H, W), (1, C, L) or (1, F), not "


@pytest.mark.parametrize(("example_input", "message"), [
    ([[0.0]], "must be one numpy array or torch tensor, or a shape such as (1, 784), not list"),
    ("x", "must be one numpy array or torch tensor, or a shape such as (1, 784), not str"),
    ((), "must be one numpy array or torch tensor, or a shape such as (1, 784), not tuple"),
    ((-1, 4), "is the shape (-1, 4); give sizes above 0"),
    ([np.zeros((1, 4)), "x"], "1 must be one numpy array or torch tensor, or a shape such as "
                              "(1, 784), not str"),
    ({"a": np.zeros((1, 4)), "b": np.zeros((1, 4))}, "has a, b, the network takes input"),
    ((np.zeros((1, 4)), np.zeros((1, 4), np.int64)), "1 must be float32, not torch.int64; give "
                                                     "example.float()"),
    (np.zeros((1, 4), np.int64), "must be float32, not torch.int64; give example.float()"),
    (np.zeros((1, 4), "U3"), "must be float32, not <U3 of the shape (1, 4)"),
    (np.zeros((1, 0)), f"must have {SHAPES}(1, 0)"), ((1, 0), f"must have {SHAPES}(1, 0)"),
    (np.zeros(()), f"must have {SHAPES}()"),
    (np.zeros((1, 1, 2, 3, 4)), f"must have {SHAPES}(1, 1, 2, 3, 4)"),
])
def test_examples_that_are_refused(example_input: object, message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        import_model(nn.ReLU(), example_input)
    assert str(caught.value) == f"example_input {message}"


def net_of_maps() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3))


class Unsqueezing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = net_of_maps()

    def forward(self, x):
        return self.net(x.unsqueeze(1))


def alone(*shape: int) -> str:
    batch = ", ".join(map(str, shape))
    return (f"example_input {shape} is one input without the batch axis; the network takes "
            f"(N, {batch})")


FIRST = "inputs, of which the first counts"
LINEAR = lambda: nn.Linear(4, 3)
EXAMPLES = {    # the network, its example, what an input of it is, and what was done
    "tensor": (LINEAR, torch.zeros(1, 4), (4,), None),
    "one in a tuple": (LINEAR, (torch.zeros(1, 4),), (4,), None),
    "one in a list": (LINEAR, [np.zeros((1, 4))], (4,), None),
    "shape": (LINEAR, (1, 4), (4,), None),
    "torch's shape": (LINEAR, torch.Size((1, 4)), (4,), None),
    "shape as a list": (net_of_maps, [np.int64(1), 1, 8, 8], (1, 8, 8), None),
    "float64": (LINEAR, np.zeros((1, 4)), (4,), None),
    "float16": (LINEAR, torch.zeros(1, 4, dtype=torch.float16), (4,), None),
    "vectors": (LINEAR, torch.zeros(5, 4), (4,), f"example_input (5, 4) is 5 {FIRST}"),
    "maps": (net_of_maps, torch.zeros(6, 1, 8, 8), (1, 8, 8),
             f"example_input (6, 1, 8, 8) is 6 {FIRST}"),
    "a vector alone": (LINEAR, torch.zeros(4), (4,), alone(4).replace("(4)", "(4,)")),
    "a map alone": (net_of_maps, (1, 8, 8), (1, 8, 8), alone(1, 8, 8)),
    "three axes": (Unsqueezing, (1, 8, 8), (8, 8), None),
    "three axes, several": (Unsqueezing, (3, 8, 8), (8, 8), f"example_input (3, 8, 8) is 3 "
                                                              f"{FIRST}"),
    "two axes alone": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (8, 8), (8, 8),
                       alone(8, 8)),
    "two axes": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), (8, 8), (8,),
                 f"example_input (8, 8) is 8 {FIRST}"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_as_users_give_them(name: str) -> None:
    torch.manual_seed(3)
    make, given, shape, done = EXAMPLES[name]
    model = make()
    found = import_model(model, given)
    assert found.input_shape == shape
    assert found.remarks == (() if done is None else (done,))
    assert snr(model, found, (1, *shape)) > 38


def test_what_was_done_with_a_module_is_told() -> None:
    """It is left as it was."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3))
    found = import_model(model.half().train(), torch.zeros(2, 4, dtype=torch.float16))
    assert found.remarks == (
        f"example_input (2, 4) is 2 {FIRST}",
        "the model's float16 parameters were taken as float32",
        "the model was in training mode, and is compiled as after model.eval()")
    assert model.training and model[0].weight.dtype == torch.float16
    assert import_model(nn.Linear(4, 3).train(), (1, 4)).remarks == ()


def test_programs_of_other_types_and_numbers_of_inputs() -> None:
    half = quiet(torch.export.export, nn.Linear(4, 3).half(), (torch.zeros(1, 4).half(),))
    assert import_model(half, (1, 4)).remarks == (
        "the model's float16 parameters were taken as float32",)
    many = quiet(torch.export.export, nn.Linear(4, 3).double(), (torch.zeros(3, 4).double(),),
                 dynamic_shapes=({0: torch.export.Dim("N")},))
    assert import_model(many, (1, 4)).input_shape == (4,)
    alone = quiet(torch.export.export, nn.ReLU(), (torch.zeros(SHAPE),))
    assert import_model(alone, SHAPE[1:]).input_shape == SHAPE[1:]
    fixed = quiet(torch.export.export, nn.Linear(4, 3), (torch.zeros(3, 4),))
    with pytest.raises(CompileError, match=r"takes \(3, 4\), example_input has \(1, 4\); export it "
                                           r"with one input, \(1, \.\.\.\)$"):
        import_model(fixed, (3, 4))
