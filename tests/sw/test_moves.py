"""Networks that join, split, slice, shuffle and enlarge tensors: what the passes make of them, in
float64, is what PyTorch computes, and nothing but layers is left."""


import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celosia.graph import Conv
from celosia_spec.errors import CompileError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from moved import compare  # noqa: E402
from returning import Function, conv  # noqa: E402

MAP, LINE, VECTOR = (1, 4, 8, 8), (1, 4, 16), (1, 16)

def halves(function, *layers: nn.Module) -> nn.Module:
    """A function of the halves of eight channels."""
    return Function(lambda first, *others: function(*others[:-1], *first(others[-1]).chunk(2, 1)),
                    conv(8), *layers)


def unet(x, down, up, join, last):
    y = F.relu(down(x))
    inner = F.interpolate(F.relu(up(F.max_pool2d(y, 2))), scale_factor=2)
    return last(F.relu(join(torch.cat([inner, y], 1))))


def shuffle_unit(before, depthwise, after, last, x):
    first, second = x.chunk(2, 1)
    y = torch.cat([first, F.relu(after(depthwise(F.relu(before(second)))))], 1)
    return last(y.view(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8))


def focus(layer, x):
    return layer(torch.cat([x[:, :, ::2, ::2], x[:, :, 1::2, ::2], x[:, :, ::2, 1::2],
                            x[:, :, 1::2, 1::2]], 1))


def twice(layer, x):
    return torch.cat([layer(x), layer(x)], 1)


NETWORKS = {
    "Inception": (lambda: Function(
        lambda a, b, l, x: l(torch.cat([F.relu(a(x)), F.relu(b(x))], 1).mean((2, 3))),
        conv(5, kernel=1), conv(6), nn.Linear(11, 3)), MAP),
    "DenseNet": (lambda: Function(
        lambda a, n, b, x: b(F.relu(n(torch.cat([x, a(x)], 1)))), conv(5), nn.BatchNorm2d(9),
        conv(3, 9)), MAP),
    "joined input": (lambda: Function(lambda a, b, x: b(torch.cat([x, a(x), x], 1)), conv(5),
                                      conv(3, 13)), MAP),
    "joined and pooled": (lambda: Function(
        lambda a, b, c, x: c(F.max_pool2d(torch.cat([a(x), b(x)], 1), 2)), conv(3), conv(2),
        conv(3, 5)), MAP),
    "joined at the end": (lambda: Function(lambda a, b, x: torch.cat([a(x), b(x)], 1),
                                           conv(5), conv(2)), MAP),
    "joined with itself": (lambda: Function(lambda a, b, x: b(twice(a, x)), conv(3),
                                            conv(2, 6)), MAP),
    "joined vectors": (lambda: Function(
        lambda a, b, c, x: c(torch.cat([F.relu(a(x)), b(x)], 1)), nn.Linear(16, 4),
        nn.Linear(16, 6), nn.Linear(10, 3)), VECTOR),
    "joined flat maps": (lambda: Function(
        lambda a, b, c, x: c(torch.cat([a(x).flatten(1), b(x).flatten(1)], 1)), conv(2),
        conv(3, stride=2), nn.Linear(128 + 48, 3)), MAP),
    "one half": (lambda: halves(lambda l, a, b: l(a.mean((2, 3))), nn.Linear(4, 3)), MAP),
    "halves, added": (lambda: halves(lambda a, b: F.relu(a) + b), MAP),
    "halves, their own layers": (lambda: halves(
        lambda f, g, a, b: torch.cat([f(a), g(b)], 1), conv(3), conv(2)), MAP),
    "C2f": (lambda: halves(
        lambda f, o, a, b: o(torch.cat([a, b, b + F.relu(f(b))], 1)), conv(4), conv(3, 12)), MAP),
    "two inputs in one": (lambda: Function(lambda a, b, x: a(x[:, :10]) + b(x[:, 10:]),
                                           nn.Linear(10, 4), nn.Linear(6, 4)), VECTOR),
    "channels by number": (lambda: Function(lambda a, x: a(x[:, [2, 0, 2]]), conv(3, 3)), MAP),
    "flipped channels": (lambda: Function(lambda a, x: a(x.flip(1)), conv(3)), MAP),
    "unbound and stacked": (lambda: Function(
        lambda a, x: a(torch.stack([x.unbind(1)[3], x[:, 0]], 1)), conv(3, 2)), MAP),
    "one channel": (lambda: Function(lambda a, x: a(x.narrow(1, 2, 1)), conv(3, 1)), MAP),
    "channel shuffle": (lambda: nn.Sequential(conv(8, groups=2), nn.ChannelShuffle(2), nn.ReLU(),
                                              conv(4, 8, groups=2)), MAP),
    "ShuffleNet": (lambda: Function(shuffle_unit, conv(2, 2, 1), conv(2, 2, groups=2),
                                    conv(2, 2, 1), conv(3)), MAP),
    "ShuffleNet, averaged": (lambda: Function(
        lambda *layers: shuffle_unit(*layers).mean((2, 3)), conv(2, 2, 1), conv(2, 2, groups=2),
        conv(2, 2, 1), nn.AvgPool2d(2)), MAP),
    "a part, normalised": (lambda: halves(
        lambda n, a, b: n(torch.cat([b[:, :3], a[:, 2:]], 1)).relu(), nn.BatchNorm2d(5)), MAP),
    "repeated": (lambda: Function(lambda a, x: a(x.repeat(1, 2, 1, 1)), conv(3, 8)), MAP),
    "flat in another order": (lambda: Function(
        lambda a, l, x: l(F.relu(a(x)).permute(0, 2, 3, 1).flatten(1)), conv(2),
        nn.Linear(128, 3)), MAP),
    "channels last": (lambda: Function(lambda a, x: a(x.permute(0, 3, 1, 2)), conv(3)),
                      (1, 8, 6, 4)),
    "channels last, strides": (lambda: Function(
        lambda a, l, x: l(F.relu(a(x.permute(0, 3, 1, 2))).flatten(1)), conv(3, stride=2),
        nn.Linear(36, 2)), (1, 8, 6, 4)),
    "channels last of lines": (lambda: Function(
        lambda a, x: a(x.transpose(1, 2)), nn.Conv1d(4, 3, 3, padding=1)), (1, 16, 4)),
    "every second": (lambda: Function(lambda a, x: a(x[:, :, ::2, ::2]), nn.Conv2d(4, 3, 3)), MAP),
    "every second, padded": (lambda: Function(lambda a, x: a(x[:, :, 1::2, ::3]), conv(3)), MAP),
    "cropped": (lambda: Function(lambda a, x: a(x[:, :, 1:-1, 2:]), nn.Conv2d(4, 3, 3)), MAP),
    "cropped, padded": (lambda: Function(lambda a, x: a(x[:, :, 1:-1, 2:]), conv(3)), MAP),
    "cropped, pooled": (lambda: Function(lambda a, x: F.max_pool2d(a(x)[:, :, 1:-1, 2:], 2),
                                         conv(3)), MAP),
    "cropped by padding": (lambda: Function(lambda a, x: a(F.pad(x, (-1, 1, 0, -2))), conv(3)),
                           MAP),
    "padded, then pooled": (lambda: Function(
        lambda a, x: F.max_pool2d(F.pad(a(x), (1, 0, 2, 1)), 3), conv(3)), MAP),
    "padded at the end": (lambda: Function(lambda a, x: F.relu(F.pad(a(x), (1, 0, 2, 1))), conv(3)),
                          MAP),
    "max pool with padding": (lambda: nn.Sequential(conv(3), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
                                                    conv(2, 3)), MAP),
    "max pool, ceil_mode": (lambda: nn.Sequential(conv(3), nn.MaxPool2d(3, 2, ceil_mode=True),
                                                  nn.ReLU6(), conv(2, 3)), MAP),
    "max pools with padding": (lambda: nn.Sequential(
        nn.AvgPool2d(2), nn.ReLU(), nn.MaxPool2d(2, 1, 1), nn.MaxPool2d((3, 2), (1, 2), 1)), MAP),
    "SPP": (lambda: Function(
        lambda a, b, x: b(torch.cat([a(x).relu(), *(F.max_pool2d(a(x).relu(), k, 1, k // 2)
                                                    for k in (3, 5))], 1)), conv(3), conv(2, 9)),
        MAP),
    "padded, below zero": (lambda: nn.Sequential(
        conv(3), nn.MaxPool2d((3, 5), (2, 1), (1, 2)), conv(2, 3)), MAP),
    "beyond the map, below zero": (lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True)), MAP),
    "SPPF": (lambda: Function(
        lambda a, b, x: b(torch.cat([y := F.leaky_relu(a(x)), z := F.max_pool2d(y, 5, 1, 2),
                                     F.max_pool2d(z, 5, 1, 2)], 1)), conv(3), conv(2, 9)), MAP),
    "max pool of lines": (lambda: nn.Sequential(nn.Conv1d(4, 3, 3), nn.ReLU(),
                                                nn.MaxPool1d(3, 2, 1, ceil_mode=True)), LINE),
    "cropped at the end": (lambda: Function(lambda a, x: a(x)[:, 1:, 2:6], conv(3)), MAP),
    "the last of a line": (lambda: Function(lambda a, l, x: l(a(x)[:, :, -1]),
                                            nn.Conv1d(4, 5, 3), nn.Linear(5, 3)), LINE),
    "option A": (lambda: Function(
        lambda a, x: F.relu(a(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))),
        conv(8, stride=2)), MAP),
    "zeros joined": (lambda: Function(
        lambda a, x: F.relu(a(x) + torch.cat([x, torch.zeros(1, 2, 8, 8)], 1)), conv(6)), MAP),
    "pixel unshuffle": (lambda: nn.Sequential(nn.PixelUnshuffle(2), conv(3, 16)), MAP),
    "Focus": (lambda: Function(focus, conv(3, 16)), MAP),
    "pixel shuffle": (lambda: nn.Sequential(conv(8), nn.ReLU(), conv(12, 8), nn.PixelShuffle(2)),
                      MAP),
    "behind a pixel shuffle": (lambda: nn.Sequential(conv(8), nn.PixelShuffle(2), nn.ReLU(),
                                                     conv(3, 2)), MAP),
    "height and width": (lambda: Function(
        lambda a, b, x: b(F.relu(a(x)).transpose(2, 3)), conv(3), conv(2, 3)), (1, 4, 6, 9)),
    "height and width of an input": (lambda: Function(
        lambda a, x: a(x.transpose(2, 3)), conv(2)), (1, 4, 6, 9)),
    "channels and height": (lambda: Function(
        lambda a, b, x: b(a(x).permute(0, 2, 1, 3)), conv(3), conv(2, 6)), (1, 4, 6, 9)),
    "turned over": (lambda: Function(lambda a, b, x: b(a(x).flip(2, 3)), conv(3), conv(2, 3)), MAP),
    "rolled": (lambda: Function(lambda a, b, x: b(a(x).roll(3, 3)), conv(3), conv(2, 3)), MAP),
    "joined lines": (lambda: Function(
        lambda a, b, x: b(torch.cat([x[:, :3], F.relu(a(x)), a(x)], 2)), conv(3), conv(2, 3)), MAP),
    "joined columns of two sizes": (lambda: Function(
        lambda a, b, c, x: c(torch.cat([F.pad(a(x), (0, 1)), b(x).repeat_interleave(2, 2)], 3)),
        conv(3), conv(3, stride=2), conv(2, 3)), MAP),
    "another map": (lambda: Function(
        lambda a, b, x: b(F.relu(a(x)).reshape(1, 6, 4, 8)), conv(3), conv(2, 6)), MAP),
    "a map of other channels": (lambda: Function(
        lambda a, b, x: b(a(x).reshape(1, 4, 6, 8)), conv(3), conv(2)), MAP),
    "lines of maps": (lambda: Function(
        lambda a, b, c, x: b(y := a(x).flatten(2)) + c(y), conv(3), nn.Conv1d(3, 2, 3),
        nn.Conv1d(3, 2, 3)), MAP),
    "lines of maps, leaky": (lambda: Function(
        lambda a, b, c, x: b(y := F.leaky_relu(a(x).flatten(2))) + c(y), conv(3),
        nn.Conv1d(3, 2, 3), nn.Conv1d(3, 2, 3)), MAP),
    "enlarged and pooled": (lambda: nn.Sequential(
        conv(3), nn.ConvTranspose2d(3, 2, 2, 2), nn.MaxPool2d(3, 2), conv(2, 2)), MAP),
    "enlarged, and cut to an odd size": (lambda: nn.Sequential(
        conv(3), nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 2), conv(2, 2)), MAP),
    "enlarged, padded and added": (lambda: Function(
        lambda a, b, x: a(x) + F.pad(F.interpolate(b(x), scale_factor=2), (1, 0)),
        nn.Conv2d(4, 2, (1, 2), padding=(4, 5)), conv(2)), MAP),
    "enlarged, padded to an odd size": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 2, 2, 2), nn.ZeroPad2d((1, 0, 2, 1))), MAP),
    "zeros reflected": (lambda: nn.Sequential(
        conv(3), nn.ZeroPad2d(1), nn.Conv2d(3, 2, 3, padding=1, padding_mode="reflect")), MAP),
    "enlarged": (lambda: nn.Sequential(conv(3, stride=2), nn.ReLU(), nn.Upsample(scale_factor=2),
                                       conv(2, 3)), MAP),
    "enlarged at the end": (lambda: nn.Sequential(conv(3), nn.Upsample(scale_factor=(3, 2))), MAP),
    "enlarged twice": (lambda: nn.Sequential(
        conv(3, stride=2), nn.Upsample(scale_factor=2), conv(3, 3), nn.ReLU(),
        nn.Upsample(size=(24, 16)), conv(2, 3), nn.Sigmoid()), MAP),
    "enlarged, strides": (lambda: nn.Sequential(
        nn.Upsample(scale_factor=2), conv(3, stride=2), conv(3, 3)), MAP),
    "enlarged, dilated": (lambda: nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 3, padding=2, dilation=2)), MAP),
    "enlarged, depthwise": (lambda: nn.Sequential(
        nn.Upsample(scale_factor=2), conv(4, groups=4), nn.BatchNorm2d(4), nn.ReLU(),
        conv(3, kernel=1)), MAP),
    "enlarged, averaged": (lambda: nn.Sequential(
        nn.Upsample(scale_factor=2), conv(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(3, 2)), (1, 4, 3, 3)),
    "enlarged, flattened": (lambda: nn.Sequential(
        nn.Upsample(scale_factor=2), conv(3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)),
        (1, 4, 4, 4)),
    "enlarged, added": (lambda: Function(
        lambda a, b, c, x: c(F.relu(F.interpolate(a(x), scale_factor=2) + b(x))),
        conv(5, stride=2), conv(5), conv(2, 5)), MAP),
    "enlarged lines": (lambda: nn.Sequential(
        nn.Conv1d(4, 3, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv1d(3, 2, 3, padding=1)),
        LINE),
    "U-Net": (lambda: Function(lambda *all: unet(all[-1], *all[:-1]), conv(6), conv(6, 6),
                               conv(5, 12), conv(2, 5, 1)), MAP),
    "transposed": (lambda: nn.Sequential(conv(5, stride=2), nn.ReLU(),
                                         nn.ConvTranspose2d(5, 3, 2, 2)), MAP),
    "transposed, normalised": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 3, 3, 2, 1, 1), nn.BatchNorm2d(3), nn.ReLU(), conv(2, 3)), MAP),
    "transposed twice": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 6, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(6, 3, 4, 2, 1),
        nn.Tanh()), (1, 4, 4, 4)),
    "transposed, no stride": (lambda: nn.ConvTranspose2d(4, 3, 3, 1, 1), MAP),
    "transposed, grouped": (lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2), MAP),
    "transposed, dilated": (lambda: nn.ConvTranspose2d(4, 3, 3, 2, 2, 1, dilation=2), MAP),
    "transposed, cut off": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 3, 3, 2, 3, 1), nn.ConvTranspose2d(3, 2, 3, 1, 2)), MAP),
    "transposed, padded before": (lambda: nn.Sequential(
        nn.ZeroPad2d((1, 0, 0, 1)), nn.ConvTranspose2d(4, 3, 4, (2, 3), 1, (0, 1))), MAP),
    "transposed lines": (lambda: nn.Sequential(nn.ConvTranspose1d(4, 3, 4, 2, 1), nn.ReLU()), LINE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_moved_is_computed_as_pytorch_does(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    compare(make(), shape)


def test_nothing_is_computed_where_columns_do() -> None:
    """Channels that are joined, split and shuffled, and maps that are enlarged, take no layer."""
    for name, layers in (("Inception", 5), ("channel shuffle", 2), ("flat in another order", 2),
                         ("enlarged", 2), ("transposed twice", 2), ("every second", 1),
                         ("channels last", 1), ("Focus", 1), ("pixel unshuffle", 1)):
        make, shape = NETWORKS[name]
        assert len(compare(make(), shape).nodes) == layers, name


def test_elements_are_moved_one_by_one_once() -> None:
    """A row with one weight each; whatever reads them reads the map that these make."""
    for name, rows in (("height and width", 3 * 9 * 6), ("joined lines", 3 * 24 * 8),
                       ("another map", 0), ("lines of maps", 3 * 64)):
        make, shape = NETWORKS[name]
        found = [node for node in compare(make(), shape).nodes if node.map is not None]
        assert [node.weight.astype(bool).sum() for node in found] == [rows] * bool(rows), name


def test_enlarging_takes_no_more_products() -> None:
    """Each phase of 3 x 3 weights on enlarged maps reads four places."""
    make, shape = NETWORKS["enlarged"]
    last = compare(make(), shape).nodes[-1]
    assert isinstance(last, Conv) and last.live is not None
    assert last.live.sum() == 4 * 2 * 3 * 4     # phases, rows, channels, places


MOVES = {       # of a map (1, C, H, W); None where they do not fit it
    "flip": lambda x, k: x.flip(1), "roll": lambda x, k: x.roll(k, 1),
    "half": lambda x, k: x.chunk(2, 1)[k % 2] if x.shape[1] > 1 else None,
    "join": lambda x, k: torch.cat([x, x[:, :1 + k % x.shape[1]]], 1) if x.shape[1] < 9 else None,
    "lines": lambda x, k: x[:, :, k % 3:] if x.shape[2] > 3 else None,
    "columns": lambda x, k: x[..., :-1 - k % 2] if x.shape[3] > 3 else None,
    "step": lambda x, k: x[:, :, ::1 + k % 3, ::1 + k % 2],
    "enlarge": lambda x, k: F.interpolate(x, scale_factor=(1 + k % 2, 2)) if x.shape[3] < 9
    else None,
    "shuffle": lambda x, k: F.pixel_shuffle(x, 2) if x.shape[1] % 4 == 0 and x.shape[2] < 9
    else None,
    "unshuffle": lambda x, k: F.pixel_unshuffle(x, 2) if x.shape[1] < 5 and not (
        x.shape[2] % 2 or x.shape[3] % 2) else None,
    "pad": lambda x, k: F.pad(x, (k % 3, 1, 0, k % 2)),
    "border": lambda x, k: F.pad(x, (1 + k % 2, 1, 0, k % 2), mode=(
        "reflect", "replicate", "circular")[k % 3]) if min(x.shape[2:]) > 2 else None,
    "between": lambda x, k: F.interpolate(x, scale_factor=(2, 1 + k % 2), mode="bilinear")
    if max(x.shape[2:]) < 9 else None,
    "zeros": lambda x, k: F.pad(x, (0, 0, 0, 0, k % 2, 1)) if x.shape[1] < 6 else None,
    "relu": lambda x, k: F.relu(x),
}


class Moving(nn.Module):
    """Convolutions, and what is moved before, between and behind them."""

    def __init__(self, shape: tuple[int, ...], steps: list[list[tuple[str, int]]],
                 layers: list[tuple[int, int, int, int]]) -> None:
        super().__init__()
        self.shape, self.steps, self.layers = shape, [], nn.ModuleList()
        x = torch.zeros(shape)
        for at, moves in enumerate(steps):
            kept = []
            for name, k in moves:
                found = MOVES[name](x, k)
                if found is not None and found.numel() < 3000:
                    kept.append((name, k))
                    x = found
            self.steps.append(kept)
            if at < len(layers):
                rows, kernel, stride, dilation = layers[at]
                self.layers.append(nn.Conv2d(x.shape[1], rows, kernel, stride, dilation * (
                    kernel // 2), dilation))
                x = self.layers[-1](x)

    def forward(self, x):
        for at, moves in enumerate(self.steps):
            for name, k in moves:
                x = MOVES[name](x, k)
            if at < len(self.layers):
                x = self.layers[at](x)
        return x


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_random_moves(data) -> None:
    torch.manual_seed(data.draw(st.integers(0, 1 << 16)))
    moves = st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 3)), max_size=3)
    layers = data.draw(st.lists(st.tuples(
        st.integers(1, 5), st.sampled_from((1, 3)), st.integers(1, 2), st.integers(1, 2)),
        min_size=1, max_size=3))
    model = Moving((1, data.draw(st.integers(1, 5)), 6, 8),
                   [data.draw(moves) for _ in range(len(layers) + 1)], layers)
    said = ""
    try:
        compare(model, model.shape)
    except CompileError as refusal:
        said = refusal.problem
    assert not said or said.startswith(("its output of", "a map of",
                                        "of a map that was enlarged"))
