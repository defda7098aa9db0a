"""What leads to an output, operator by operator: rows that nothing reads go, all others stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune

from celosia import compress
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.compress.promise import run_once
from celosia_spec.errors import ArgumentError, CelosiaError

ROWS = 8
NOTHING, FIRST = set(), {0, 1, 2}
"""Rows of a layer; the layer behind it reads all of its columns but the FIRST."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def set_zero(y: torch.Tensor) -> torch.Tensor:
    y = y.clone()
    y[:, 5] = 0
    return y


# {operator: (what stands between two layers, rows of the first that nothing reads)}
VECTORS = {kind.__name__: (kind(), FIRST) for kind in (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.Softsign,
    nn.LogSigmoid, nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Dropout, nn.Identity)} | {
    "threshold": (nn.Threshold(0.1, 2.0), FIRST), "1 - x": (lambda y: 1 - y, FIRST),
    "maximum": (lambda y: torch.maximum(y, 0 * y), FIRST), "abs": (torch.abs, FIRST),
    "maximum of neighbours": (lambda y: torch.maximum(y, y.roll(1, 1)), {0, 1}),
    "minimum with the reverse": (lambda y: torch.minimum(y, y.flip(1)), NOTHING),
    "largest of all": (lambda y: y - y.amax(1, keepdim=True), NOTHING),
    "largest of some": (lambda y: y - y[:, 1:].amax(1, keepdim=True), {0}),
    "max with index": (lambda y: y + y[:, 2:].max(1, keepdim=True)[0], {0, 1}),
    "softmax": (nn.Softmax(1), NOTHING), "log_softmax": (nn.LogSoftmax(1), NOTHING),
    "logsumexp": (lambda y: y - y.logsumexp(1, keepdim=True), NOTHING),
    "max_pool1d": (lambda y: functional.max_pool1d(y[:, None], 3, 1, 1)[:, 0], {0, 1}),
    "avg_pool1d": (lambda y: functional.avg_pool1d(y[:, None], 2).repeat_interleave(2, 2)[:, 0],
                   {0, 1}),
    "top-k": (lambda y: torch.cat([y[:, :4], y[:, 2:].topk(4, 1)[0]], 1), {0, 1}),
    "sort": (lambda y: y.sort(1)[0], NOTHING), "cumsum": (lambda y: y.cumsum(1), NOTHING),
    "reverse cumsum": (lambda y: y.flip(1).cumsum(1).flip(1), FIRST),
    "roll": (lambda y: y.roll(1, 1), {7, 0, 1}), "flip": (lambda y: y.flip(1), {5, 6, 7}),
    "own square": (lambda y: y * y, FIRST), "clamp": (lambda y: y.clamp(0.1, 0.5), FIRST),
    "clamp to another": (lambda y: torch.clamp(y, max=y.roll(1, 1)), {0, 1}),
    "division": (lambda y: y / (2 + y.abs()), FIRST), "norm": (functional.normalize, NOTHING),
    "gate": (lambda y: y * (y.roll(1, 1) > 0), {0, 1}),
    "gate of zeros": (lambda y: y * torch.tensor([1.0, 1, 1, 0, 0, 1, 1, 1]), {0, 1, 2, 3, 4}),
    "where": (lambda y: torch.where(y.roll(1, 1) > 0, y, -y), {0, 1}),
    "where fixed": (lambda y: torch.where(torch.arange(8) > 5, y, 0 * y.roll(1, 1)),
                    {0, 1, 2, 3, 4, 5}),
    "masked_fill": (lambda y: y.masked_fill(torch.arange(8) < 5, 0.5), {0, 1, 2, 3, 4}),
    "layer norm": (nn.LayerNorm(8), NOTHING), "group norm": (nn.GroupNorm(4, 8), {0, 1}),
    "batch norm": (nn.BatchNorm1d(8), FIRST),
    "batch norm of the batch": (nn.BatchNorm1d(8, track_running_stats=False), FIRST),
    "deviation": (lambda y: (y - y.mean(1, keepdim=True)) / y.std(1, keepdim=True), NOTHING),
    "local response norm": (
        lambda y: functional.local_response_norm(y[:, :, None, None], 3)[:, :, 0, 0], {0, 1}),
    "ones in a matrix": (lambda y: y @ torch.ones(8, 8), NOTHING),
    "identity in a matrix": (lambda y: y @ torch.eye(8), FIRST),
    "outer product": (lambda y: (y[:, :, None] @ y[:, None, :]).sum(2), NOTHING),
    "einsum": (lambda y: torch.einsum("nc,nc->nc", y, y), FIRST),
    "gated linear unit": (lambda y: functional.pad(functional.glu(y, 1), (4, 0)), NOTHING),
    "chunk": (lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), {4, 5, 6}),
    "index": (lambda y: y[:, [7, 6, 5, 0, 0, 0, 1, 1]], {2, 3, 4, 5, 6, 7}),
    "index_select": (lambda y: y.index_select(1, torch.arange(7, -1, -1)), {5, 6, 7}),
    "in place": (lambda y: y.clone().mul_(2).relu_().sub_(1), FIRST),
    "set in place": (set_zero, FIRST | {5}),
    "sum of all": (lambda y: y + y.sum(), NOTHING), "round": (torch.round, FIRST),
    "power": (lambda y: y.abs() ** 0.5 + 2.0**y, FIRST), "product": (
        lambda y: y * y[:, 4:].prod(1, keepdim=True), FIRST),
    "double and back": (lambda y: y.double().float(), FIRST),
    "detached": (lambda y: y.detach() + 0, FIRST),
    "without gradient": (torch.no_grad()(lambda y: y.relu()), FIRST),
    "cosine": (lambda y: y * functional.cosine_similarity(y[:, 1:4], y[:, 2:5])[:, None], {0}),
}  # fmt: skip

# The same for channels of maps 9 x 9, between convolutions 3 x 3 that pad.
MAPS = {
    "max_pool2d": (lambda y: functional.max_pool2d(y, 3, 2, 1), FIRST),
    "max_pool2d dilated": (lambda y: functional.max_pool2d(y, 2, 1, dilation=3), FIRST),
    "max_pool2d rounded up": (lambda y: functional.max_pool2d(y, 2, ceil_mode=True), FIRST),
    "avg_pool2d": (lambda y: functional.avg_pool2d(y, (2, 3), 1, 1), FIRST),
    "lp_pool2d": (lambda y: functional.lp_pool2d(y, 2, 2), FIRST),
    "adaptive": (lambda y: functional.adaptive_avg_pool2d(y, 2)
                 + functional.adaptive_max_pool2d(y, 2), FIRST),
    "max_pool3d over channels": (
        lambda y: functional.max_pool3d(y[:, None], (3, 1, 1), 1, (1, 0, 0))[:, 0], {0, 1}),
    "batch norm": (nn.BatchNorm2d(8), FIRST), "instance norm": (nn.InstanceNorm2d(8), FIRST),
    "group norm": (nn.GroupNorm(2, 8), NOTHING),
    "local response norm": (nn.LocalResponseNorm(3), {0, 1}),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), FIRST),
    "nearest": (nn.Upsample(scale_factor=2), FIRST),
    "reflected border": (nn.ReflectionPad2d(2), FIRST),
    "border of ones": (lambda y: functional.pad(y, (1, 1), value=1.0), FIRST),
    "depthwise": (nn.Conv2d(8, 8, 3, groups=8), FIRST),
    "grouped": (nn.Conv2d(8, 8, 1, groups=4), {0, 1}),
    "transposed": (nn.ConvTranspose2d(8, 8, 2, groups=8), FIRST),
    "squeeze and excite": (lambda y: y * y.mean((2, 3), keepdim=True).sigmoid(), FIRST),
    "attention over channels": (lambda y: y * y.mean((2, 3), keepdim=True).softmax(1), NOTHING),
    "channel shuffle": (lambda y: functional.channel_shuffle(y, 2), {0, 1, 4}),
    "pixel shuffle and back": (
        lambda y: functional.pixel_unshuffle(functional.pixel_shuffle(y, 2), 2), FIRST),
    "half of it shifted": (lambda y: torch.cat([y[:, :4], y[:, 4:].roll(1, 2)], 1), FIRST),
    "unfolded": (lambda y: functional.fold(functional.unfold(y, 3), y.shape[2:], 3), FIRST),
    "transposed axes": (lambda y: y.transpose(2, 3).permute(0, 2, 3, 1).permute(0, 3, 1, 2), FIRST),
    "softmax over rows": (lambda y: y.softmax(2), FIRST),
}  # fmt: skip


class Parallel(nn.Module):
    """Each entry of a table between two layers of its own; one network, traced once."""

    def __init__(self, table, layer) -> None:
        super().__init__()
        self.table = list(table)
        for index, name in enumerate(self.table):
            torch.manual_seed(index)
            between = table[name][0]
            setattr(self, f"a{index}", layer(3))
            setattr(self, f"b{index}", layer(ROWS))
            setattr(self, f"m{index}", between)
            last = getattr(self, f"b{index}")
            kept = torch.ones_like(last.weight, dtype=torch.bool)
            kept[:, list(FIRST)] = False
            apply_mask(last, kept)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        rows = [[getattr(self, f"{part}{index}") for part in "amb"]
                for index in range(len(self.table))]
        return [last(between(first(x))) for first, between, last in rows]


def dropped(table, layer, shape) -> dict[str, tuple[set[int], int, float]]:
    """Return {name: rows of the first layer that went, weights lost behind, change of outputs}."""
    net, x = Parallel(table, layer).eval(), torch.randn(3, *shape, generator=generator(1))
    before = [y.detach() for y in net(x)]
    lost = compress.drop_unread(net, x[:2])
    return {name: ({int(row) for row in (~current_mask(getattr(net, f"a{index}"))).flatten(
                        1).all(1).nonzero()}, lost[f"b{index}"],
                   float((y - want).detach().abs().max()))
            for index, (name, want, y) in enumerate(zip(table, before, net(x), strict=True))}


@pytest.fixture(scope="module")
def vectors():
    return dropped(VECTORS, lambda inputs: nn.Linear(inputs, ROWS), (3,))


@pytest.fixture(scope="module")
def maps():
    return dropped(MAPS, lambda inputs: nn.Conv2d(inputs, ROWS, 3, padding=1), (3, 9, 9))


@pytest.mark.parametrize("name", VECTORS)
def test_rows_of_a_linear_layer(vectors, name):
    rows, behind, change = vectors[name]
    assert rows == VECTORS[name][1] and behind == 0 and change < 1e-5


@pytest.mark.parametrize("name", MAPS)
def test_channels_of_a_convolution(maps, name):
    rows, behind, change = maps[name]
    assert rows == MAPS[name][1] and behind == 0 and change < 1e-5


# Whole networks


class Net(nn.Module):
    """Layers 4 -> 8 -> 3 whose second reads the columns 3 to 7; forward is a function of both."""

    def __init__(self, forward, **layers) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, ROWS), nn.Linear(ROWS, 3)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.steps = forward
        kept = torch.ones(3, ROWS, dtype=torch.bool)
        kept[:, list(FIRST)] = False
        apply_mask(self.b, kept)

    def forward(self, x):
        return self.steps(self, x)


def two_names() -> nn.Module:
    net = Net(lambda s, x: s.all(x))
    net.all = nn.Sequential(net.a, nn.Tanh(), net.b)
    return net


def shared() -> nn.Module:
    """Two layers hold one weight; what reads the second reads other columns."""
    net = Net(lambda s, x: s.b(s.a(x).tanh()) + s.c(s.d(x).tanh()),
              c=nn.Linear(ROWS, 3, bias=False), d=nn.Linear(4, ROWS))
    net.d.weight = net.a.weight
    kept = torch.zeros(3, ROWS, dtype=torch.bool)
    kept[:, 2] = True
    apply_mask(net.c, kept)
    return net


def with_hook(hook) -> nn.Module:
    net = Net(lambda s, x: s.b(s.a(x).tanh()))
    net.a.register_forward_hook(lambda module, given, output: hook(net, output))
    return net


class Standardised(nn.Linear):
    def forward(self, x):
        weight = self.weight - self.weight.mean(1, keepdim=True)
        return functional.linear(x, weight / (weight.norm(dim=1, keepdim=True) + 1), self.bias)


class LowRankAdded(nn.Linear):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Linear(inputs, 2), nn.Linear(2, outputs)

    def forward(self, x):
        return super().forward(x) + self.up(self.down(x))


def held_in_a_list() -> nn.Module:
    net = Net(lambda s, x: s.b(s.a(x).tanh()) + functional.linear(x, s.held[0])[:, :3])
    net.held = [net.a.weight]
    return net


def sliced() -> nn.Module:
    """A constant that looks into a part of the weight's memory."""
    net = Net(lambda s, x: s.b(s.a(x).tanh()) + x @ s.part)
    net.part = net.a.weight.detach()[:2].T[:, :1]
    return net


def counting() -> nn.Module:
    """A gate that is zero until the first run."""
    def forward(s, x):
        y = s.b(s.a(x) * s.gate)
        s.gate.add_(1)
        return y

    net = Net(forward)
    net.register_buffer("gate", torch.zeros(ROWS))
    return net


WHOLE = {
    # name: (network, {layer: rows that go}); layers not named lose nothing
    "plain": (lambda: Net(lambda s, x: s.b(s.a(x).tanh())), {"a": FIRST}),
    "two names": (two_names, {"a": FIRST}),
    "shared weight": (shared, {"a": {0, 1}}),
    "hook that turns": (lambda: with_hook(lambda net, y: y.flip(1)), {"a": {5, 6, 7}}),
    "hook that reads a weight": (
        lambda: with_hook(lambda net, y: y + net.a.weight[1].sum()), {"a": {0, 2}}),
    "standardised": (lambda: Net(lambda s, x: s.b(s.a(x).tanh()), a=Standardised(4, ROWS)),
                     {"a": FIRST}),
    "low rank added": (lambda: Net(lambda s, x: s.b(s.a(x).tanh()), a=LowRankAdded(4, ROWS)),
                       {"a": FIRST, "a.up": FIRST}),
    "read by a function": (
        lambda: Net(lambda s, x: s.b(s.a(x).tanh()) + functional.linear(x, s.a.weight)[:, :3]),
        {}),
    "a row as the factor of a normalisation": (
        lambda: Net(lambda s, x: s.b(s.a(functional.layer_norm(x, (4,), s.a.weight[1])).tanh())),
        {"a": {0, 2}}),
    "read turned": (
        lambda: Net(lambda s, x: functional.linear(s.b(s.a(x).tanh()), s.b.weight.T)[:, 3:]),
        {"a": FIRST}),
    "held in a list": (held_in_a_list, {}),
    "looked into": (sliced, {}),
    "weight_norm": (lambda: Net(lambda s, x: s.b(s.a(x).tanh()),
                                a=parametrizations.weight_norm(nn.Linear(4, ROWS))), {}),
    "attention": (lambda: Net(lambda s, x: s.b(s.t(*[s.a(x[:, None]).tanh()] * 3)[0][:, 0]),
                              t=nn.MultiheadAttention(ROWS, 2, batch_first=True)),
                  {"t.out_proj": FIRST}),
    "recurrent": (lambda: Net(lambda s, x: s.b(s.r(s.a(x[:, None]))[0][:, -1]),
                              r=nn.GRU(ROWS, ROWS, batch_first=True)), {}),
    "zeros that a run may change": (counting, {"a": FIRST}),
    "outputs in a dictionary": (
        lambda: Net(lambda s, x: {"y": s.b(y := s.a(x).tanh()), "more": [y[:, 1]]}),
        {"a": {0, 2}}),
    "largest as the output": (lambda: Net(lambda s, x: s.b(s.a(x).relu()).argmax(1)),
                              {"a": FIRST}),
}  # fmt: skip


class Together(nn.Module):
    """All of them side by side; one network, traced once."""

    def __init__(self) -> None:
        super().__init__()
        self.nets = nn.ModuleList(make() for make, _ in WHOLE.values())

    def forward(self, x):
        return [net(x) for net in self.nets]


@pytest.fixture(scope="module")
def together():
    net, x = Together().eval(), torch.randn(5, 4, generator=generator(2))
    before = run_once(net, x)
    lost = compress.drop_unread(net, x[:2])
    after = run_once(net, x)
    change = max(float((a - b).abs().max()) for a, b in zip(before, after, strict=True))
    return net, lost, change


@pytest.mark.parametrize("name", WHOLE)
def test_whole_networks(together, name):
    every, lost, change = together
    place = list(WHOLE).index(name)
    for layer, part in every.nets[place].named_modules():
        full = f"nets.{place}.{layer}"
        if isinstance(part, nn.Linear) and full in lost:
            gone = {int(row) for row in (~current_mask(part)).all(1).nonzero()}
            assert gone == WHOLE[name][1].get(layer, set()), layer
            assert lost[full] == len(gone) * part.in_features
    assert change < 1e-6


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_floating_type(kind):
    net = Net(lambda s, x: s.b(s.a(x).tanh())).to(kind).eval()
    x = torch.randn(5, 4, generator=generator(2)).to(kind)
    before = net(x)
    assert compress.drop_unread(net, x.float())["a"] == 12
    assert torch.equal(net(x), before)


REFUSED = {
    "gather": (lambda s, x: s.b((y := s.a(x)).gather(1, y.argsort(1))), {},
               r"operator 'gather' \(test_unread_kinds.py:\d+: .*what that reads is not known"),
    "random": (lambda s, x: s.b(s.a(x) + torch.rand_like(x.repeat(1, 2))), {}, "'rand_like'"),
    "random for any input": (lambda s, x: s.b(s.a(x) * (torch.rand(ROWS) > 0.5)), {}, "'rand'"),
    "branch": (lambda s, x: s.b(s.a(x)) if x.sum() > 0 else s.b(-s.a(x)), {}, "be exported"),
    "not used": (lambda s, x: s.b(s.a(x)), {"c": nn.Linear(2, 2)}, "depends on layer 'c'"),
    "torch's pruning": (lambda s, x: s.b(s.a(x)),
                        {"a": prune.l1_unstructured(nn.Linear(4, ROWS), "weight", 0.5)},
                        "layer 'a' carries a mask of torch.nn.utils.prune; fix it with"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name):
    forward, layers, words = REFUSED[name]
    net, x = Net(forward, **layers).eval(), torch.randn(2, 4)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CelosiaError, match=words) as caught:
        compress.drop_unread(net, x)
    assert "\n" not in str(caught.value)
    assert list(before) == list(net.state_dict())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_layers_in_skip_stay():
    net = Net(lambda s, x: s.b(s.a(x)), c=nn.Linear(2, 2)).eval()
    assert compress.drop_unread(net, torch.zeros(1, 4), skip=["a", "c"]) == {"a": 0, "b": 0, "c": 0}
    with pytest.raises(ArgumentError, match="no layer is called 'd'; layers: 'a', 'b', 'c'"):
        compress.drop_unread(net, torch.zeros(1, 4), skip=["d"])


def test_a_wrong_path_is_found_by_comparing_and_put_back(monkeypatch):
    net, x = Net(lambda s, x: s.b(s.a(x))).eval(), torch.randn(2, 4)
    before = net(x)

    def wrong(program, weights):
        read = [torch.ones(weight.shape, dtype=torch.bool) for weight in weights]
        read[0][:4] = False
        return read

    monkeypatch.setattr("celosia.compress.unread.drop.paths_to_outputs", wrong)
    with pytest.raises(CelosiaError, match="dropping unread weights of 'a' changes the outputs"):
        compress.drop_unread(net, x)
    assert torch.equal(net(x), before) and not hasattr(net.a, "parametrizations")


# Random networks, against numbers

SMOOTH = [torch.tanh, torch.sigmoid, lambda y: 1 - y, lambda y: y * y, lambda y: y.roll(1, 1),
          lambda y: y * y.roll(2, 1), lambda y: y - y[:, 3:].mean(1, keepdim=True),
          lambda y: y / (2 + y.cos()), lambda y: torch.cat([y[:, 4:], y[:, :4].exp()], 1),
          lambda y: functional.softplus(y), lambda y: y @ torch.eye(ROWS).double().flip(0)]


class Chains(nn.Module):
    """Chains of layers with few weights and of random operators."""

    def __init__(self, count: int) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.layers = nn.ModuleList(
            nn.ModuleList([nn.Linear(3, ROWS), *(nn.Linear(ROWS, ROWS) for _ in range(2)),
                           nn.Linear(ROWS, 2)]) for _ in range(count)).double()
        self.between = [[SMOOTH[int(i)] for i in torch.randint(len(SMOOTH), (3,))]
                        for _ in range(count)]
        for chain in self.layers:
            for layer in chain:
                kept = torch.rand(layer.weight.shape) < 0.25
                kept[torch.randint(len(kept), (1,)), torch.randint(kept.shape[1], (1,))] = True
                apply_mask(layer, kept)

    def forward(self, x):
        outputs = []
        for chain, between in zip(self.layers, self.between, strict=True):
            y = x
            for layer, step in zip(chain, [*between, lambda y: y], strict=True):
                y = step(layer(y))
            outputs.append(y)
        return outputs


def test_random_networks_lose_what_has_no_slope_and_nothing_else():
    net, x = Chains(12).eval(), torch.randn(40, 3, generator=generator(3)).double()
    weights = {name: part.parametrizations.weight.original for name, part in net.named_modules()
               if isinstance(part, nn.Linear)}
    slopes = torch.autograd.grad(sum((y * torch.randn(y.shape).double()).sum() for y in net(x)),
                                 list(weights.values()), allow_unused=True)
    steep = dict(zip(weights, slopes, strict=True))
    masks = {name: current_mask(net.get_submodule(name)) for name in weights}
    dead = {name for name, slope in steep.items() if not slope.any()}
    before = run_once(net, x)
    lost = compress.drop_unread(net, x[:2], skip=dead)
    gone = kept = 0
    for name, slope in steep.items():
        layer = net.get_submodule(name)
        if name in dead:
            continue
        rows = slope.any(1)
        assert torch.equal(current_mask(layer).any(1), rows & masks[name].any(1)), name
        gone, kept = gone + lost[name], kept + int(current_mask(layer).sum())
        with torch.no_grad():       # whatever stands in their place
            layer.parametrizations.weight.original[~rows] = 0.5
        apply_mask(layer, masks[name])
    assert gone > 50 and kept > 50
    for a, b in zip(before, run_once(net, x), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
