"""Pools whose windows are apart, of several sizes, or count other elements from place to place; the
largest of channels; maps whose corners stay where they are."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia_spec.errors import CompileError
from moved import compare, near
from returning import Function, conv

MAP = (1, 3, 9, 11)


def attention(body, gate, last, x):
    """Spatial attention, as CBAM has it."""
    y = F.relu(body(x))
    both = torch.cat([y.amax(1, keepdim=True), y.mean(1, keepdim=True)], 1)
    return last(y * torch.sigmoid(gate(both)))


def behind(layer, channels: int = 4) -> nn.Module:
    """A layer between convolutions."""
    return nn.Sequential(conv(channels, 3), layer, nn.Conv2d(channels, 2, 1))


NETWORKS = {
    **{f"dilated, {fields}": (lambda fields=fields: behind(nn.MaxPool2d(**fields)), MAP) for fields
       in ({"kernel_size": 2, "dilation": 2}, {"kernel_size": 3, "stride": 1, "dilation": 2},
           {"kernel_size": 3, "stride": 1, "dilation": 2, "padding": 1},
           {"kernel_size": 2, "stride": 3, "dilation": 2, "padding": 1},
           {"kernel_size": 3, "stride": 2, "dilation": 4, "padding": 1},
           {"kernel_size": 2, "stride": 4, "dilation": 2, "ceil_mode": True},
           {"kernel_size": (2, 3), "stride": (1, 2), "dilation": (3, 2), "padding": (1, 0)},
           {"kernel_size": (1, 2), "dilation": (1, 3), "ceil_mode": True})},
    "dilated lines": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.MaxPool1d(3, 1, 1, 2),
                                            nn.Conv1d(4, 2, 1)), (1, 3, 20)),
    **{f"largest of {size}": (lambda size=size: behind(nn.AdaptiveMaxPool2d(size)), MAP)
       for size in ((4, 5), (2, 3), (6, 4), (7, 7), (1, 8), (9, 2))},
    "largest, with a common divisor": (lambda: behind(nn.AdaptiveMaxPool2d((6, 4))), (1, 3, 9, 10)),
    "largest of lines": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.AdaptiveMaxPool1d(7),
                                               nn.Conv1d(4, 2, 1)), (1, 3, 20)),
    **{f"average, {fields}": (lambda fields=fields: behind(nn.AvgPool2d(**fields)), MAP) for fields
       in ({"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False},
           {"kernel_size": 4, "stride": 3, "padding": 2, "count_include_pad": False},
           {"kernel_size": (2, 5), "padding": (0, 2), "count_include_pad": False},
           {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
           {"kernel_size": 4, "ceil_mode": True},
           {"kernel_size": (3, 2), "stride": (2, 1), "padding": 1, "count_include_pad": False},
           {"kernel_size": 2, "stride": 2, "padding": 1, "count_include_pad": False},
           {"kernel_size": (1, 3), "stride": (1, 2), "padding": (0, 1), "ceil_mode": True,
            "count_include_pad": False},
           {"kernel_size": 4, "padding": 1, "ceil_mode": True, "count_include_pad": False},
           {"kernel_size": 4, "padding": 1, "ceil_mode": True, "divisor_override": 5},
           {"kernel_size": 3, "padding": 1, "count_include_pad": False, "divisor_override": 7})},
    "average of lines": (lambda: nn.Sequential(
        nn.Conv1d(3, 4, 3), nn.AvgPool1d(3, 2, 1, count_include_pad=False)), (1, 3, 20)),
    **{f"the largest of {rows} channels": (lambda rows=rows: Function(
        lambda a, b, x: b(a(x).amax(1, keepdim=True)), conv(rows, 3), conv(2, 1)), MAP)
       for rows in (1, 2, 3, 5, 8)},
    "the largest of channels and places": (lambda: Function(
        lambda a, l, x: l(torch.cat([a(x).amax((1, 2)), a(x).amax((1, 3)), a(x).amax(
            (1, 2, 3), True).flatten(1)], 1)), conv(5, 3), nn.Linear(21, 3)), MAP),
    "the largest of channels of lines": (lambda: Function(
        lambda a, l, x: l(torch.max(a(x), 1)[0]), nn.Conv1d(3, 5, 3), nn.Linear(18, 3)),
        (1, 3, 20)),
    "no axis kept": (lambda: Function(lambda a, x: a(x).amax(1), conv(6, 3)), MAP),
    **{f"corners, {size}": (lambda size=size: behind(nn.Upsample(
        size=size, mode="bilinear", align_corners=True)), (1, 3, 5, 6))
       for size in ((9, 11), (10, 12), (5, 9), (3, 4), (1, 6))},
    "corners of lines": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.Upsample(
        scale_factor=2, mode="linear", align_corners=True)), (1, 3, 12)),
    **{f"other factors, {mode}": (lambda mode=mode: behind(nn.Upsample(
        scale_factor=(1.3, 0.7), mode=mode)), MAP) for mode in ("nearest", "bilinear")},
    "16 times, nearest": (lambda: behind(nn.Upsample(scale_factor=16), 2), (1, 3, 2, 3)),
    "16 times, bilinear": (lambda: nn.Sequential(
        conv(2, 3), nn.Upsample(scale_factor=16, mode="bilinear")), (1, 3, 2, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    network = make().eval()
    near(network, shape)
    compare(network, shape)


def test_spatial_attention() -> None:
    torch.manual_seed(0)
    network = Function(attention, conv(8, 3), nn.Conv2d(2, 1, 7, padding=3), conv(2, 8)).eval()
    x = np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)
    with torch.no_grad():
        wanted = network(torch.from_numpy(x)).numpy()
    program = celosia.compile(network, (1, 3, 8, 8), target="ulx3s-85f", calibration=x)
    noise = celosia.run(program, x).answer - wanted
    assert 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()) > 25


def test_what_has_no_room_is_refused() -> None:
    for layer, words in (
            (nn.AvgPool2d(5, 1, 2, count_include_pad=False), "how many elements count, and of a "
             "layer with weights for each place 4,096 elements are made at most, not 8,192; use "
             "ceil_mode=False, and padding=0 or count_include_pad=True"),
            (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "with align_corners="
             "True weights differ .*; give it a size or a factor by which it becomes just that"),
            (nn.Upsample(size=(22, 22), mode="bilinear", align_corners=True), "weights for each "
             "place has 16,777,216 places for them at most, not 31,719,424"),
            (nn.MaxPool2d(2, 3, 1, 33), "a window lies beyond the map, and the largest of nothing "
             "is no number; use less padding, or ceil_mode=False"),
            (nn.MaxPool2d(2, 1, dilation=9), "those of more than 16 pools; use dilation=1")):
        with pytest.raises(CompileError, match=words):
            celosia.compile(nn.Sequential(conv(8, 3), layer), (1, 3, 32, 32))
