"""Filters of random networks: what is left computes what the network does with them zeroed."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from celosia.compress.cost import measure
from celosia.compress.filters.mask_layer import add_masks, fold_masks
from celosia.compress.filters.prune import FilterReport, prune_filters
from celosia.compress.masks.filters import filter_masks
from celosia_spec.errors import ArgumentError

ACTIVATIONS = [
    F.relu, F.relu_, F.relu6, torch.tanh, F.gelu, F.silu, F.hardswish, F.mish, F.softsign, F.elu,
    torch.sigmoid, F.softplus, F.hardsigmoid, F.logsigmoid, lambda x: 1 - x, lambda x: x * x,
    lambda x: x.clamp(-0.4, 0.7), lambda x: torch.exp(-x), lambda x: torch.maximum(x, 0.3 * x),
    lambda x: torch.where(x > 0.1, x, x - 0.2), lambda x: F.dropout(x, 0.5, False)]


class Random(nn.Module):
    """A network drawn from a seed.   norms : {convolution: the normalisation that it has alone}."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.default_rng(seed)
        self.steps: list[Callable[[torch.Tensor], torch.Tensor]] = []
        self.norms: dict[str, str] = {}
        self.width = 3
        self.add("conv")
        for _ in range(self.random.integers(2, 6)):
            self.add(str(self.random.choice([
                "conv", "conv", "depthwise", "residual", "join", "gate", "pool", "norm", "size"])))
        self.end()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for step in self.steps:
            x = step(self, x)
        return x

    def layer(self, make: Callable[..., nn.Module], *sizes: int, **settings) -> str:
        name = f"layer{len(self._modules)}"
        setattr(self, name, make(*sizes, **settings))
        return name

    def conv(self, width: int, out: int, size: int | None = None, groups: int = 1) -> Callable:
        """Return a step: a convolution that keeps the size, and perhaps a normalisation."""
        size = size or int(self.random.choice([1, 3]))
        name = self.layer(nn.Conv2d, width, out, size, bias=bool(self.random.integers(2)),
                          groups=groups, padding=size // 2,
                          padding_mode=str(self.random.choice(["zeros", "replicate"])))
        norm = self.layer(nn.BatchNorm2d, out) if self.random.integers(2) else None
        if norm is not None and groups == 1:
            self.norms[name] = norm
        return lambda net, x: (net.get_submodule(name)(x) if norm is None else
                               net.get_submodule(norm)(net.get_submodule(name)(x)))

    def act(self) -> Callable:
        found = ACTIVATIONS[self.random.integers(len(ACTIVATIONS))]
        return lambda net, x: found(x)

    def add(self, kind: str) -> None:
        width, out = self.width, int(self.random.integers(2, 9))
        act = self.act()
        if kind == "conv":
            self.steps += [self.conv(width, out), act]
            self.width = out
        elif kind == "depthwise":
            size = int(self.random.choice([1, 3]))
            self.steps += [self.conv(width, width, size, width), act]
        elif kind == "residual":
            inner = self.conv(width, out), self.conv(out, width)
            self.steps.append(lambda net, x: x + inner[1](net, act(net, inner[0](net, x))))
        elif kind == "join":
            one, two = self.conv(width, out), self.conv(width, out + 1)
            both = bool(self.random.integers(2))
            self.steps.append(lambda net, x: torch.cat(
                [one(net, x), act(net, two(net, x))] + ([x] if both else []), 1))
            self.width = 2 * out + 1 + both * width
        elif kind == "gate":
            down, up = self.conv(width, out, 1), self.conv(out, width, 1)
            self.steps.append(lambda net, x: x * torch.sigmoid(
                up(net, act(net, down(net, x.mean((2, 3), keepdim=True))))))
        elif kind == "pool":
            pool = [lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 2, 1),
                    lambda x: F.avg_pool2d(x, 3, 1, 1),
                    lambda x: F.max_pool2d(x, 2, 1)][self.random.integers(4)]
            self.steps.append(lambda net, x: pool(x))
        elif kind == "norm":
            name = self.layer(nn.BatchNorm2d, width)
            slopes = self.layer(nn.PReLU, width)
            self.steps.append(lambda net, x: net.get_submodule(slopes)(
                net.get_submodule(name)(act(net, x))))
        else:
            sizes = [lambda x: F.interpolate(x, scale_factor=2), lambda x: x[:, :, ::2, 1:],
                     lambda x: F.pad(x, (1, 0, 0, 1)), lambda x: x.transpose(2, 3)]
            size = sizes[self.random.integers(len(sizes))]
            self.steps.append(lambda net, x: size(x))

    def end(self) -> None:
        kind, width = self.random.integers(4), self.width
        if kind == 0:
            name = self.layer(nn.Conv2d, width, 4, 1, bias=bool(self.random.integers(2)))
            self.steps.append(lambda net, x: net.get_submodule(name)(x))
            return
        name = self.layer(nn.Linear, width * (1 if kind == 1 else 9), 4)
        flat = [lambda x: x.mean((2, 3)), lambda x: F.adaptive_avg_pool2d(x, 3).flatten(1),
                lambda x: F.adaptive_max_pool2d(x, 3).permute(0, 2, 3, 1).reshape(len(x), -1),
                ][kind - 1]
        self.steps.append(lambda net, x: net.get_submodule(name)(flat(x)))


def drawn(seed: int) -> tuple[Random, torch.Tensor]:
    """Return a network in float64 with parameters none of which is zero, and inputs."""
    model, generator = Random(seed).double().eval(), torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.normal_(0, 0.4, generator=generator)
        if name.endswith("running_var"):
            tensor.abs_().add_(0.5)
    return model, torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=generator)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    scale = max(1.0, float(wanted.abs().max()))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9 * scale)


def prune_some(model: Random, x: torch.Tensor, seed: int) -> FilterReport | None:
    """Prune a random share; None if no filter of this network can go."""
    random = np.random.default_rng(seed)
    try:
        return prune_filters(model, x[:1], "std", rate=float(random.choice([0.2, 0.4, 0.5])),
                             coupled=str(random.choice(["keep", "prune"])))
    except ArgumentError as problem:
        if "no filter can be removed" not in str(problem):
            raise
        return None


SEEDS = range(40)


@torch.no_grad()
def test_random_networks_lose_filters_exactly():
    pruned = []
    for seed in SEEDS:
        model, x = drawn(seed)
        whole = copy.deepcopy(model)
        report = prune_some(model, x, seed)
        if report is None:
            continue
        for name, layer in report.layers.items():
            gone = np.setdiff1d(np.arange(layer.filters), layer.kept)
            for owner in (name, whole.norms.get(name)):
                for tensor in () if owner is None else whole.get_submodule(owner).parameters():
                    tensor[gone] = 0
        close(model(x), whole(x))
        cost = measure(model, x[:1])
        assert (report.after.macs, report.after.parameters) == (cost.macs, cost.parameters)
        pruned.append(len(report.layers))
    assert len(pruned) >= 0.6 * len(SEEDS) and sum(pruned) >= 2 * len(pruned)


@torch.no_grad()
def test_random_networks_fold_their_masks_exactly():
    folded = 0
    for seed in SEEDS:
        model, x = drawn(seed)
        try:
            add_masks(model, x[:1])
        except ArgumentError as problem:
            if "no filter can be removed" not in str(problem):
                raise
            continue
        generator = torch.Generator().manual_seed(seed)
        for mask in filter_masks(model).values():
            mask.normal_(generator=generator)
            mask[torch.rand(mask.shape, generator=generator) < 0.4] = 0
            mask[0] = 2
        wanted = model(x)
        report = fold_masks(model, x[:1], threshold=1e-6)
        close(model(x), wanted)
        folded += sum(len(layer.kept) < layer.filters for layer in report.layers.values())
    assert folded >= len(SEEDS)


@pytest.mark.parametrize("seed", range(3))
def test_a_checkpoint_of_rounds_is_taken_up_by_the_network_with_its_new_biases(seed, tmp_path):
    def make() -> nn.Sequential:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Sigmoid(),
                             nn.Conv2d(8, 4, 1, bias=False))

    x, stop = torch.randn(1, 3, 8, 8), [1]

    def tune(network: nn.Module, round: int) -> None:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.1 * torch.randn(parameter.shape)
        if stop and round == stop[0]:
            stop.clear()
            raise KeyboardInterrupt

    whole = make()
    stop.clear()
    wanted = prune_filters(whole, x, "std", rate=0.5, rounds=3, finetune=tune)
    stop.append(1)
    with pytest.raises(KeyboardInterrupt):
        prune_filters(make(), x, "std", rate=0.5, rounds=3, finetune=tune, checkpoint=tmp_path)
    model = make()
    report = prune_filters(model, x, "std", rate=0.5, rounds=3, finetune=tune, checkpoint=tmp_path)
    assert report.layers == wanted.layers and model[3].bias is not None
    assert all(torch.equal(model.state_dict()[n], v) for n, v in whole.state_dict().items())
