# amaranth: UnusedElaboratable=no
"""Kinds of networks that users bring: the golden model is near PyTorch, and the machine of words
and the gateware are the golden model."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia.compiler import Compiler
from celosia.verify import verify
from stream.compared import compare
from stream.conftest import ARRAY

pytestmark = pytest.mark.usefixtures("target")


class Function(nn.Module):
    """A forward pass given as a function of layers and x."""

    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(*self.layers, x)


def lines() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 16, 5, padding=2), nn.BatchNorm1d(16), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(16, 5))


def residual_lines() -> nn.Module:
    return Function(lambda a, b, x: F.relu(b(F.relu(a(x))) + x).amax(2),
                    nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 3, 3, padding=1))


def joined(first, second, last, x):
    return last(F.max_pool2d(torch.cat([F.relu(first(x)), second(x), x], 1), 2).mean((2, 3)))


def unet(down, inner, join, last, x):
    y = F.relu(down(x))
    z = F.interpolate(F.relu(inner(F.max_pool2d(y, 3, 2, 1))), scale_factor=2)
    return last(F.relu(join(torch.cat([z, y], 1))))


def shuffled(first, second, x):
    y = F.relu(first(x)).chunk(2, 1)
    return second(torch.stack([y[1], y[0]], 2).flatten(1, 2)[:, :, 1:-1, ::2])


NETWORKS = {
    "joined": (lambda: Function(joined, nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(2, 3, 1),
                                nn.Linear(10, 4)), (2, 8, 8)),
    "U-Net": (lambda: Function(unet, nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1),
                               nn.Conv2d(14, 5, 3, padding=1), nn.Conv2d(5, 2, 1)), (2, 8, 8)),
    "shuffled": (lambda: Function(shuffled, nn.Conv2d(2, 8, 3, padding=1),
                                  nn.Conv2d(8, 3, 3, padding=1)), (2, 8, 8)),
    "transposed": (lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(4, 2, 3, padding=1), nn.Sigmoid()), (2, 8, 8)),
    "channels last": (lambda: Function(
        lambda a, l, x: l(F.relu(a(x.permute(0, 3, 1, 2))).mean((2, 3))),
        nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 4)), (8, 8, 3)),
    "leaky": (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.LeakyReLU(0.1), nn.Conv2d(6, 4, 3),
                                    nn.PReLU(4, 0.3), nn.Flatten(), nn.Linear(64, 3)), (2, 8, 8)),
    "pixel shuffle": (lambda: nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(),
                                            nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)),
                      (2, 6, 6)),
    "borders": (lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, 2, 1, padding_mode="reflect"), nn.ReLU(),
        nn.Conv2d(6, 5, 3, padding=1, groups=1, padding_mode="replicate"), nn.ReLU(),
        nn.Conv2d(5, 5, 3, padding=1, groups=5, padding_mode="circular")), (2, 11, 8)),
    "between elements": (lambda: nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.Upsample(scale_factor=2, mode="bilinear"), nn.ReLU(),
        nn.Conv2d(6, 3, 3, padding=1, padding_mode="replicate"),
        nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(3, 2, 3, padding=1)), (2, 4, 4)),
    "decoder": (lambda: nn.Sequential(
        nn.Linear(6, 3 * 5 * 3), nn.ReLU(), nn.Unflatten(1, (3, 5, 3)),
        nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.ReLU(), nn.Conv2d(4, 2, 3)), (6,)),
    "other axes": (lambda: Function(
        lambda a, b, c, x: c(F.relu(b(F.relu(a(x)).transpose(2, 3))).flip(2)),
        nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 3)),
        (2, 6, 5)),
    "pools of all kinds": (lambda: Function(
        lambda a, b, x: b(torch.cat([F.max_pool2d(y := a(x), 3, 1, 1, 2), y.amax(1, True)[
            :, :, 1:-1, 1:-1], F.avg_pool2d(F.adaptive_max_pool2d(y, (3, 4)), 2, 2, 1,
                                            count_include_pad=False).flatten(1)[:, :1, None, None]
            .expand(-1, -1, 5, 4)], 1)), nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(5, 2, 1)),
        (2, 7, 6)),
    "mixed tokens": (lambda: Function(
        lambda a, up, down, b, x: b((y := a(x)) + down(F.relu(up(y.flatten(2)))).view(y.shape)),
        nn.Conv2d(3, 5, 2, 2), nn.Linear(12, 4), nn.Linear(4, 12), nn.Conv2d(5, 2, 1)), (3, 6, 8)),
    "channels last inside": (lambda: Function(
        lambda a, wide, narrow, x: narrow(F.relu(wide(a(x).permute(0, 2, 3, 1)))),
        nn.Conv2d(2, 4, 3), nn.Linear(4, 9), nn.Linear(9, 3)), (2, 6, 7)),
    "lines": (lines, (3, 64)), "residual lines": (residual_lines, (3, 40)),
    "large pools": (lambda: nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1)),
                    (2, 10, 10)),
}


def made(name: str):
    """Return a network in evaluation, the shape of its inputs, and two of them."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    model = make().eval()
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    return model, shape, x


@pytest.mark.parametrize("exponents", ["dynamic", "static"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_machine_of_words_is_the_golden_model_and_near_the_network(name, exponents):
    model, shape, x = made(name)
    samples = x if exponents == "static" else None
    program = celosia.compile(model, shape, target="small", exponents=exponents,
                              calibration=samples)
    found = celosia.run(program, x)
    with torch.no_grad():
        wanted = torch.cat([model(torch.from_numpy(one[None])) for one in x]).numpy()
    assert found.answer.shape == wanted.shape
    assert np.abs(found.answer - wanted).max() < 0.05 * np.abs(wanted).max()
    settings = Compiler(target="small", exponents=exponents)
    compare(settings.quantised(settings.graph(model, shape), samples), ARRAY, x[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gateware_is_the_golden_model(name):
    model, shape, x = made(name)
    found = verify(celosia.compile(model, shape, target="small"), x)
    assert found.passed and found.values > 0


@pytest.mark.parametrize("name", ["lines", "transposed", "channels last"])
def test_a_file_is_read_back(name, tmp_path):
    model, shape, x = made(name)
    program = celosia.compile(model, shape, target="small")
    program.save(tmp_path / "net.celo")
    found = celosia.load(tmp_path / "net.celo")
    assert found.layers == program.layers and found.host == program.host
    assert (celosia.run(found, x).answer == celosia.run(program, x).answer).all()


def test_lines_in_steps_of_time():
    """What a step gives is what the window that ends with it gives."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 3, 3)).eval()
    stream = np.random.default_rng(0).random((2, 12)).astype(np.float32)
    settings = {"target": "small", "exponents": "static",
                "calibration": stream[None, :, :8]}
    program = celosia.compile(model, (1, 2, 8), stream="time", hop=1, **settings)
    whole = celosia.compile(model, (1, 2, 8), **settings)
    with celosia.stream(program) as steps:
        results = [steps.run(stream[:, end - 1:end]) for end in range(1, 13)]
    assert [found is None for found in results] == [True] * 7 + [False] * 5
    for end, found in enumerate(results[7:], 8):
        window = celosia.run(whole, stream[None, :, end - 8:end])
        assert (found.mantissa == window.mantissa[:, :, -1:]).all()
