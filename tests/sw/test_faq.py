"""What docs/faq.md quotes is what the compiler says, and its ways out compile."""

import itertools
import re
from pathlib import Path

import pytest

from celosia.compiler import Compiler
from celosia.passes import optimise
from celosia.program import Program
from celosia_spec.errors import CelosiaError, CompileError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from celosia.frontend import import_model  # noqa: E402

PAGE = (Path(__file__).parents[2] / "docs" / "faq.md").read_text(encoding="utf-8")


def without_numbers(text: str) -> str:
    """Return the text on one line; numbers of a network differ with its random weights."""
    return re.sub(r"[0-9,]+", "#", re.sub(r"\s+", " ", text))


QUOTED = without_numbers(PAGE)


class Joined(nn.Module):
    """Two layers that read one input, their results joined by a function."""

    def __init__(self, join) -> None:
        super().__init__()
        self.join, self.one, self.other = join, nn.Linear(16, 4), nn.Linear(16, 4)

    def forward(self, x):
        return self.join(self.one(x), self.other(x))


class Branch(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Exponential(nn.Module):
    def forward(self, x):
        return torch.exp(x)


def between(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), layer, nn.Linear(16, 4))


def normalised(**options: bool) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, **options), nn.Flatten(),
                         nn.Linear(144, 4))


def picture(channels: int, *tail: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), *tail)


def pooled(channels: int) -> nn.Module:
    return picture(channels, nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                   nn.Linear(channels, 10))


def wide() -> nn.Module:
    """Rows whose sums may leave 24 bits, however few bits weights have."""
    layer = nn.Linear(5000, 4)
    nn.init.constant_(layer.weight, 0.9)
    return layer


def compiled(model: nn.Module, shape: tuple[int, ...], target: str = "icebreaker") -> Program:
    """Compile without trying ways out."""
    settings = Compiler(target=target)
    graph = optimise(import_model(model.eval(), torch.zeros(shape)))
    return settings.program(settings.quantised(graph, None))


def dense(*sizes: int) -> nn.Module:
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    return nn.Sequential(*layers)


def halved(model: nn.Module) -> nn.Module:
    for layer in model:
        layer.weight.data[:, ::2] = 0
    return model


def averaged(*before: nn.Module) -> nn.Module:
    return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))


PICTURE, LARGE, VECTOR = (1, 1, 28, 28), (1, 3, 100, 100), (1, 16)
REFUSED = {     # the network, its input's shape, a target; the same with the way out taken
    "bank rows": (averaged, LARGE, "ulx3s-85f",
                  lambda: averaged(nn.AvgPool2d(2)), LARGE, "ulx3s-85f"),
    "main memory": (lambda: dense(784, 20, 10), (1, 784), "hx8k",
                    lambda: dense(784, 20, 10), (1, 784), "hx8k-b-evn"),
    "maps": (lambda: pooled(16), PICTURE, "hx8k-b-evn",
             lambda: picture(16, nn.AvgPool2d(14), nn.Flatten(), dense(64, 10)), PICTURE,
             "icebreaker"),
    "sums": (wide, (1, 5000), "icebreaker", wide, (1, 5000), "ecp5-85f"),
    "residual": (lambda: Joined(torch.add), VECTOR, "hx8k",
                 lambda: Joined(torch.add), VECTOR, "icebreaker"),
    "exponential": (lambda: between(Exponential()), VECTOR, "icebreaker",
                    lambda: between(nn.ReLU()), VECTOR, "icebreaker"),
    "LayerNorm": (lambda: between(nn.LayerNorm(16)), VECTOR, "icebreaker",
                  lambda: between(nn.BatchNorm1d(16)), VECTOR, "icebreaker"),
    "batch statistics": (
        lambda: normalised(track_running_stats=False), (1, 1, 8, 8), "icebreaker",
        normalised, (1, 1, 8, 8), "icebreaker"),
    "align_corners": (lambda: picture(4, nn.UpsamplingBilinear2d(scale_factor=2),
                                      nn.Conv2d(4, 1, 1)), (1, 1, 24, 24), "ulx3s-85f",
                      lambda: picture(4, nn.Upsample(scale_factor=2, mode="bilinear"),
                                      nn.Conv2d(4, 1, 1)), (1, 1, 24, 24), "ulx3s-85f"),
    "a number returned": (lambda: Joined(lambda a, b: {"y": a, "classes": 4}), VECTOR, "icebreaker",
                          lambda: Joined(lambda a, b: {"y": a, "z": b}), VECTOR, "icebreaker"),
    "branch": (Branch, VECTOR, "icebreaker", lambda: nn.Linear(16, 4), VECTOR, "icebreaker"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_quoted_and_their_ways_out_work(name: str) -> None:
    model, shape, target, other_model, other_shape, other_target = REFUSED[name]
    with pytest.raises(CelosiaError) as caught:
        compiled(model(), shape, target)
    refusal = caught.value
    words = (refusal.problem if isinstance(refusal, CompileError)
             else str(refusal).split(";", maxsplit=1)[0])
    assert without_numbers(words) in QUOTED
    assert compiled(other_model(), other_shape, other_target).predicted_cycles > 0
