"""Maps of any other size: nearest elements, those between, and averages, against torch."""

import numpy as np
import pytest

import celosia
from celosia.passes import optimise
from celosia_spec.errors import CompileError
from float_graph import interpret

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from celosia.frontend import import_model  # noqa: E402
from celosia.frontend.periodic import axis  # noqa: E402
from moved import compare  # noqa: E402
from returning import conv  # noqa: E402

WAYS = {
    "nearest": lambda size: nn.Upsample(size=size), "averages": nn.AdaptiveAvgPool2d,
    "bilinear": lambda size: nn.Upsample(size=size, mode="bilinear")}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", range(1, 10))
def test_sizes_become_others(way: str, before: int) -> None:
    """Lines by one ratio, columns by another."""
    rng = np.random.default_rng(before)
    for after in {1, 9, 3 * before % 9 + 1, 5 * before % 8 + 2}:
        shape, size = (1, 2, before, 1 + (before + 4) % 7), (after, 1 + (2 * after) % 9)
        model = WAYS[way](size)
        x = rng.standard_normal(shape).astype(np.float32)
        graph = optimise(import_model(model, np.zeros(shape, np.float32)))
        wanted = model(torch.from_numpy(x).double()).numpy()
        np.testing.assert_allclose(interpret(graph, x[0].astype(float)), wanted.ravel(), atol=1e-12,
                                   err_msg=f"{shape} to {size}")


@pytest.mark.parametrize("way", [*WAYS.values(), nn.AdaptiveMaxPool2d], ids=[*WAYS, "largest"])
def test_one_element_becomes_more_than_a_map_has_phases(way) -> None:
    compare(nn.Sequential(conv(3), way((9, 12))), (1, 4, 1, 1))


NETWORKS = {
    "behind": lambda way: nn.Sequential(conv(3), way((6, 12)), conv(2, 3)),
    "behind, strided": lambda way: nn.Sequential(conv(3), way((12, 12)), conv(2, 3, stride=2)),
    "flattened": lambda way: nn.Sequential(conv(3), nn.ReLU(), way((3, 7)), nn.Flatten(),
                                           nn.Linear(63, 5)),
    "at the end": lambda way: nn.Sequential(conv(3), way((5, 10))),
    "first": lambda way: nn.Sequential(way((5, 5)), conv(3)),
    "twice": lambda way: nn.Sequential(conv(3), way((6, 6)), conv(3, 3), way((9, 4)), conv(2, 3))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_before_and_behind_may_be_anything(name: str, way: str) -> None:
    compare(NETWORKS[name](WAYS[way]), (1, 4, 8, 8))


LINES = {
    "nearest": lambda: nn.Upsample(size=12), "linear": lambda: nn.Upsample(size=6, mode="linear"),
    "by a factor": lambda: nn.Upsample(scale_factor=1.25), "averages":
        lambda: nn.AdaptiveAvgPool1d(12)}


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str) -> None:
    compare(nn.Sequential(nn.Conv1d(4, 3, 3, padding=1), LINES[name](),
                          nn.Conv1d(3, 2, 3, padding=1)), (1, 4, 16))


@pytest.mark.parametrize("size", [(2, 4), (16, 8), (3, 7), (8, 1)])
def test_max_pools_of_windows_of_one_size(size: tuple[int, int]) -> None:
    """Overlapping ones, and one element each."""
    shape = (1, 4, 8, 8) if size != (3, 7) else (1, 4, 7, 8)
    compare(nn.Sequential(conv(3), nn.ReLU(), nn.AdaptiveMaxPool2d(size), conv(2, 3)), shape)


REFUSED = {
    "largest": (nn.Sequential(conv(64), nn.AdaptiveMaxPool2d(5)), "of a map of 64 x 15 x 15 it "
                "moves elements one by one, .*; choose an output size that divides the map, or",
                nn.AdaptiveAvgPool2d(5)),
    "another factor": (nn.Sequential(conv(64), nn.Upsample(scale_factor=1.3)), "of a map of 64 x "
                       "10 x 10 it moves elements one by one, .*; give it a size or a factor",
                       nn.Upsample(size=10)),
    "another factor, bilinear": (
        nn.Sequential(conv(64), nn.Upsample(scale_factor=1.3, mode="bilinear")), "it resizes 8 x 8 "
        "to 10 x 10, by other factors than it was given, and of a layer with weights for each "
        "place 4,096 elements are made at most, not 6,400; give it a size or a factor",
        nn.Upsample(size=10, mode="bilinear"))}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_a_way_out(name: str) -> None:
    layer, problem, instead = REFUSED[name]
    with pytest.raises(CompileError, match=problem):
        celosia.compile(nn.Sequential(conv(4), layer), (1, 4, 8, 8))
    compare(nn.Sequential(conv(4), instead), (1, 4, 8, 8))


def test_what_does_not_come_again_is_no_convolution() -> None:
    assert axis([{0: 1.0}, {1: 1.0}, {2: 1.0}, {3: 1.0}], 4) is not None
    assert axis([{0: 1.0}, {1: 1.0}, {3: 1.0}, {2: 1.0}], 4) is None
    assert axis([{0: 1.0}, {1: 0.5}, {2: 1.0}, {3: 1.0}], 4) is None
