"""Equal outputs: whatever a network returns them in, and whatever it does to its input.

What cannot be compared is refused, and a caller's tensors and modes are left alone.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import inspect

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.cli.network import accuracy
from celosia.compress.outputs import returned_tensors
from celosia_spec.errors import ArgumentError, CelosiaError


class Plain:
    def __init__(self, y) -> None:
        self.y, self.note, self.network = y, "made by hand", nn.Linear(1, 1)


class Slotted:
    __slots__ = ("y",)

    def __init__(self, y) -> None:
        self.y = y


@dataclasses.dataclass
class Data:
    y: torch.Tensor


class Named(dict):
    pass


class Net(nn.Module):
    """Two convolutions with a normalisation; the second counts the channels of the first."""

    def __init__(self, pack=lambda y: y, counts: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.n.running_mean.uniform_(-1, 1)
        self.pack, self.counts = pack, counts
        self.eval()

    def forward(self, x):
        y = self.n(self.a(x)).relu()
        return self.pack(self.b(y * y.shape[1] if self.counts else y))


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


PACKED = {
    "object": Plain, "slots": Slotted, "dataclass": Data, "subclass of dict": lambda y: Named(y=y),
    "deque": lambda y: collections.deque([y]), "nested": lambda y: {"all": [Plain((y, "name"))]},
    "array": lambda y: y.detach().numpy(), "number": lambda y: float(y.detach().mean()),
}


@pytest.mark.parametrize("kind", PACKED)
def test_outputs_are_compared_in_whatever_they_are_packed(kind):
    net, x = Net(PACKED[kind], counts=True), randn(1, 3, 9, 9)
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(ArgumentError, match="outputs differ"):
        compress.prune_filters(net, x, "l1", rate=0.5)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in state.items())
    report = compress.prune_filters(Net(PACKED[kind]), x, "l1", rate=0.5)
    assert report.layers["a"].kept and len(report.layers["a"].kept) == 3


def test_numbers_are_found_in_every_form():
    complex_, sparse = torch.tensor([1 + 2j]), torch.eye(2).to_sparse()
    found = returned_tensors([Plain(complex_), None, "text", sparse, np.float32(3), 4, Data(True),
                              print, np.array([1j])])
    assert [part.tolist() for part in found] == [[[1, 2]], [[1, 0], [0, 1]], 3, 4, 1, [[0, 1]]]
    assert all(part.dtype == torch.float64 for part in found)
    ring = Plain(torch.ones(1))
    ring.me = ring
    assert len(returned_tensors(ring)) == 1


@pytest.mark.parametrize("pack, example, words", [
    (lambda y: "a label", randn(1, 3, 9, 9), "no tensor that can be compared.*return tensors"),
    (lambda y: y[:0], randn(1, 3, 9, 9), "no tensor that can be compared"),
    (lambda y: y, randn(0, 3, 9, 9), "holds no numbers.*at least one input"),
    (lambda y: y, torch.full((1, 3, 9, 9), torch.nan), "nothing but NaN or infinity on the exampl"),
    (lambda y: (y, y / 0), randn(1, 3, 9, 9), "nothing but NaN or infinity"),
])  # fmt: skip
def test_what_would_be_equal_whatever_is_done_is_refused(pack, example, words):
    for change in (lambda net: compress.prune_filters(net, example, "l1", rate=0.5),
                   lambda net: compress.fold_batchnorm(net, example),
                   lambda net: compress.fuse(net, example),
                   lambda net: compress.add_masks(net, example)):
        with pytest.raises(ArgumentError, match=words):
            change(Net(pack))


def test_infinities_of_other_signs_differ():
    from celosia.compress.promise import Promise

    net = nn.Linear(2, 2)
    net.bias.data = torch.tensor([torch.inf, 1])
    promise = Promise(net, randn(1, 2))
    net.bias.data[0] = -torch.inf
    assert promise.broken_by(net) == float("inf")


class Shifts(nn.Module):
    """Changes its input in place, as a normalisation of pictures may."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.n, self.b = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, classes, 3)
        self.eval()

    def forward(self, x):
        x -= 0.5
        return self.b(self.n(self.a(x)).relu()).mean((2, 3))


USES = {
    "measure": lambda net, x: compress.measure(net, x),
    "scores": lambda net, x: compress.scores(net, "correlation", x),
    "prune": lambda net, x: compress.prune(net, "ae-lip", inputs=x, rates=0.5, rounds=2),
    "prune_filters": lambda net, x: compress.prune_filters(net, x, "l1", rate=0.5),
    "fold_batchnorm": lambda net, x: compress.fold_batchnorm(net, x),
    "fold_average_pool": lambda net, x: compress.fold_average_pool(net, x),
    "fuse": lambda net, x: compress.fuse(net, x),
    "add_masks": lambda net, x: compress.add_masks(net, x),
    "drop_unread": lambda net, x: compress.drop_unread(net, x),
    "factorise": lambda net, x: compress.factorise(net, x, "tucker", ranks={"b": (2, 3)}),
    "emulate": lambda net, x: compress.emulate(net, weight_bits=8, activation_bits=8,
                                               example_input=x),
    "nsr": lambda net, x: compress.nsr(net, x),
}


@pytest.mark.parametrize("use", USES)
def test_a_network_that_changes_its_input_leaves_the_callers_alone(use):
    x = randn(8, 1, 8, 8)
    given = x.clone()
    USES[use](Shifts(), x)
    assert torch.equal(x, given)


def test_scores_are_those_of_the_inputs_that_were_given():
    class Copies(Shifts):
        def forward(self, x):
            return super().forward(x.clone())

    x = randn(40, 1, 8, 8)
    found, wanted = (compress.scores(kind(), "correlation", x) for kind in (Shifts, Copies))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_accuracy_may_be_measured_twice():
    net, x = Shifts(), randn(40, 1, 8, 8)
    labels = net(x.clone()).argmax(1)
    assert [accuracy(net, x, labels) for _ in range(3)] == [1, 1, 1]


def test_a_teacher_and_a_student_may_both_change_their_input():
    x, labels = randn(16, 1, 8, 8), torch.arange(16) % 4
    student = Shifts()
    compress.FineTune(inputs=x, labels=labels, teacher=Shifts(), batch_size=16)(student, 0)
    wanted = Shifts()

    class Copies(Shifts):
        def forward(self, x):
            return super().forward(x.clone())

    compress.FineTune(inputs=x, labels=labels, teacher=Copies(), batch_size=16)(wanted, 0)
    assert all(map(torch.equal, student.parameters(), wanted.parameters()))
    assert torch.equal(x, randn(16, 1, 8, 8))


MODES = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", USES)
def test_the_callers_grad_mode_does_not_matter(use, mode):
    net, x = Net(), randn(8, 3, 9, 9)
    USES[use](net, x)
    other = Net()
    with MODES[mode]():
        USES[use](other, randn(8, 3, 9, 9))         # made in the mode too
        assert torch.is_inference_mode_enabled() is (mode == "inference_mode")
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert not other.state_dict()[name].is_inference()
    assert all(parameter.requires_grad for parameter in other.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_training_is_possible_in_any_mode(mode):
    labels = torch.arange(8) % 4
    trained = []
    for context in (torch.enable_grad, MODES[mode]):
        net = Shifts()
        with context():
            compress.FineTune(inputs=randn(8, 1, 8, 8), labels=labels)(net, 0)
        trained.append(net)
    assert all(map(torch.equal, trained[0].parameters(), trained[1].parameters()))


ENTRIES = {name: function for name in compress.__all__
           if inspect.isfunction(function := getattr(compress, name))
           and {"model", "layer", "conv"} & set(list(inspect.signature(function).parameters)[:1])}


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return Net()


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def lazy() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyConv2d(4, 3))


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("make, words", [
    (made_in_inference_mode, "'a.weight' was made in torch.inference_mode.*copy.deepcopy"),
    (on_meta, "'0.weight' is on the device 'meta'.*to_empty"),
    (lazy, "'1.weight' has no numbers before the network has run"),
])
@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_refuses_tensors_that_cannot_be_worked_with(name, make, words):
    given = inspect.signature(ENTRIES[name]).parameters.values()
    rest = [None for parameter in given if parameter.default is parameter.empty
            and parameter.kind is parameter.POSITIONAL_OR_KEYWORD][1:]
    more = {parameter.name: None for parameter in given if parameter.default is parameter.empty
            and parameter.kind is parameter.KEYWORD_ONLY}
    with pytest.raises(ArgumentError, match=words):
        ENTRIES[name](make(), *rest, **more)


def test_there_are_entries():
    assert {"prune", "prune_filters", "fuse", "emulate", "measure", "svd", "tucker2", "nsr",
            "run_rounds", "make_permanent", "drop_unread"} < set(ENTRIES)


def test_the_ways_out_lead_out():
    net = copy.deepcopy(made_in_inference_mode())
    assert compress.fold_batchnorm(net, randn(1, 3, 9, 9)) == ("n",)
    net = on_meta().to_empty(device="cpu")
    net.load_state_dict(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict())
    assert compress.fold_batchnorm(net.eval(), randn(1, 3, 9, 9)) == ("1",)


def test_weights_that_overflow_in_the_last_step_are_told():
    train = compress.FineTune(inputs=randn(8, 1, 8, 8), labels=torch.arange(8) % 4,
                              learning_rate=1e38, optimizer="sgd", momentum=0.9, weight_decay=10)
    with pytest.raises(CelosiaError, match="is not finite after round 0; lower the learning rate"):
        train(Shifts(), 0)
