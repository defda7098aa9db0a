"""Maps around which lines and columns of their own stand again, and maps that are resized with what
lies between their elements: what the passes make of them is what PyTorch computes."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import celosia
from celosia_boards.targets import target as find_target
from celosia_spec.errors import CompileError
from celosia_spec.graph_rules import check_nodes
from celosia_spec.qgraph import Edge

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend.decomposed import _around  # noqa: E402
from moved import compare  # noqa: E402
from returning import Function, conv  # noqa: E402

MAP, LINE = (1, 4, 8, 8), (1, 4, 16)


def between(scale_factor=2, mode="bilinear", **more) -> nn.Module:
    return nn.Upsample(scale_factor=scale_factor, mode=mode, **more)


def around(mode: str, rows: int = 3, **more) -> nn.Module:
    return nn.Conv2d(4, rows, 3, padding=1, padding_mode=mode, **more)


NETWORKS = {
    "reflected": (lambda: nn.Sequential(around("reflect"), nn.ReLU(), conv(2, 3)), MAP),
    "replicated, every third": (lambda: around("replicate", stride=3), MAP),
    "circular, dilated": (lambda: nn.Conv2d(4, 3, 3, padding=2, dilation=2,
                                            padding_mode="circular"), MAP),
    "circular, cut at the other side": (lambda: nn.Sequential(nn.CircularPad2d((2, -1, -2, 1)),
                                                              conv(3)), MAP),
    "one side": (lambda: nn.Sequential(nn.ReplicationPad2d((3, 0, 0, 1)), conv(3)), MAP),
    "by channel": (lambda: nn.Sequential(conv(4), around("reflect", 4, groups=4)), MAP),
    "of a line": (lambda: nn.Sequential(nn.ReflectionPad1d(3), nn.Conv1d(4, 3, 7),
                                        nn.CircularPad1d((1, 0)), nn.Conv1d(3, 2, 2)), LINE),
    "zeros around it": (lambda: nn.Sequential(nn.ReplicationPad2d(1), conv(3)), MAP),
    "of a part": (lambda: Function(lambda c, x: c(F.pad(x[:, 1:3, 1:-2], (1, 1, 1, 1),
                                                        mode="reflect")), conv(3, 2)), MAP),
    "joined": (lambda: Function(lambda a, b, c, x: c(F.pad(torch.cat([a(x), b(x)], 1), (
        1, 1, 1, 1), mode="replicate")), conv(3), conv(2), nn.Conv2d(5, 3, 3)), MAP),
    "written by hand": (lambda: Function(lambda c, x: c(torch.cat(
        [x[..., :1], x, x[..., -1:]], 3)), conv(3)), MAP),
    "pooled": (lambda: nn.Sequential(nn.ReflectionPad2d(1), nn.MaxPool2d(2), conv(3)), MAP),
    "at the end": (lambda: nn.Sequential(conv(3), nn.ReflectionPad2d((2, 1, 0, 3))), MAP),
    "of an enlarged map": (lambda: nn.Sequential(
        conv(4), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(4, 3, 3)), MAP),
    "of phases, reflected": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 4, 2, 2), around("reflect")), MAP),
    "of phases, replicated": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 4, 2, 2), nn.ReplicationPad2d(3), nn.Conv2d(4, 3, 7)), MAP),
    "of phases, circular": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 4, 3, 3), around("circular")), MAP),
    "bilinear": (lambda: nn.Sequential(conv(4), nn.ReLU(), between(), conv(3)), MAP),
    "bilinear, by three and one": (lambda: nn.Sequential(between((3, 1)), conv(3)), MAP),
    "bilinear, of a size": (lambda: nn.Sequential(
        conv(4), nn.Upsample(size=(32, 16), mode="bilinear"), conv(3)), MAP),
    "bilinear, twice": (lambda: nn.Sequential(
        conv(4), between(), conv(4), nn.ReLU(), between(), conv(2)), MAP),
    "bilinear, smaller": (lambda: nn.Sequential(conv(4), between(0.5), conv(3)), MAP),
    "bilinear, to a third": (lambda: nn.Sequential(conv(4), between(1 / 3), conv(3)),
                             (1, 4, 9, 6)),
    "bilinear, of one element": (lambda: nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(6, 6), mode="bilinear", align_corners=True),
        conv(3)), MAP),
    "bilinear, the skip of a U-Net": (lambda: Function(
        lambda a, b, c, x: c(torch.cat([x, F.interpolate(b(a(x)), x.shape[2:], mode="bilinear")],
                                       1)), conv(3, stride=2), conv(3, 3), conv(2, 7)), MAP),
    "bilinear, borders behind": (lambda: nn.Sequential(
        conv(4), between(), around("replicate", 4), between(), around("reflect")), MAP),
    "linear": (lambda: nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), between(2, "linear"),
                                     nn.Conv1d(4, 3, 3, padding=1)), LINE),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_what_stands_around_is_what_pytorch_has_there(name: str) -> None:
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    compare(make(), shape)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_border_takes_no_layer(mode: str) -> None:
    graph = compare(nn.Sequential(around(mode, 4), nn.ReLU(), around(mode)), MAP)
    assert len(graph.nodes) == 2


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_a_border_costs_no_map(mode: str) -> None:
    """Filled beside what is computed, it takes one cycle in fifty."""
    torch.manual_seed(0)
    zeros, own = (celosia.compile(nn.Conv2d(16, 16, 3, padding=1, padding_mode=kind).eval(),
                                  (1, 16, 16, 16)) for kind in ("zeros", mode))
    assert own.predicted_cycles < 1.05 * zeros.predicted_cycles


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_a_constant_stays_constant(factor: int) -> None:
    """Weights of other factors than powers of two are rounded."""
    model = nn.Sequential(nn.ReflectionPad2d(2), between(factor)).eval()
    x = np.full((1, 3, 6, 5), 0.40625, np.float32)
    program = celosia.compile(model, x.shape)
    answer = celosia.run(program, x).answer
    assert answer.shape == (1, 3, 10 * factor, 9 * factor)
    off = 0.02 if factor == 3 else 0.0
    assert np.abs(answer / 0.40625 - 1).max() <= off


def test_a_ramp_is_a_ramp_and_flat_at_its_ends() -> None:
    """In numbers that the format has, borders too."""
    x = np.broadcast_to(np.arange(8) / 8 + np.arange(8)[:, None], (1, 1, 8, 8)).astype(np.float32)
    x = x / 16
    for model in (between(), nn.ReplicationPad2d(2), nn.ReflectionPad2d(3), nn.CircularPad2d(4)):
        program = celosia.compile(model.eval(), x.shape)
        assert np.array_equal(celosia.run(program, x).answer, model(torch.from_numpy(x)).numpy())


REFUSED = {
    "corners": (lambda: nn.UpsamplingBilinear2d(scale_factor=2), "align_corners=True", between),
    "bicubic": (lambda: between(2, "bicubic"), "not supported by this machine", between),
    "another factor than the size's": (lambda: between(2.1), "resizes 24 x 24 to 50 x 50", between),
    "reflected too far": (lambda: nn.Sequential(
        nn.ConvTranspose2d(4, 4, 2, 2), nn.ReflectionPad2d(3), nn.Conv2d(4, 4, 7)),
        "of a map that was enlarged", lambda: nn.Sequential(
            nn.ReflectionPad2d(3), nn.ConvTranspose2d(4, 4, 2, 2), nn.Conv2d(4, 4, 7))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_a_way_out(name: str) -> None:
    refused, problem, instead = REFUSED[name]
    with pytest.raises(CompileError, match=problem):
        celosia.compile(nn.Sequential(conv(4), refused(), nn.Conv2d(4, 2, 1)).eval(),
                        (*MAP[:2], 24, 24))
    if name != "bicubic":               # of smaller maps each element is made by a row of its own
        compare(nn.Sequential(conv(4), refused(), nn.Conv2d(4, 2, 1)), MAP)
    compare(nn.Sequential(conv(4), instead(), nn.Conv2d(4, 2, 1)), MAP)


def test_a_file_keeps_borders_and_their_channels(tmp_path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), around("replicate"))
    program = celosia.compile(model.eval(), MAP)
    border = program.graph.nodes[-1].geometry.border
    assert [len(edges) for edges in border] == [1, 1, 1, 1] and border[0][0].channels
    program.save(tmp_path / "net.celo")
    found = celosia.load(tmp_path / "net.celo")
    assert found.graph.nodes[-1].geometry == program.graph.nodes[-1].geometry


def test_a_border_over_time_is_refused_in_a_stream() -> None:
    model = nn.Conv1d(4, 3, 3, padding=1, padding_mode="replicate").eval()
    with pytest.raises(CompileError, match="it pads time by 1 lines before and 1 behind"):
        celosia.compile(model, LINE, stream="time", exponents="static",
                        calibration=np.ones((8, *LINE[1:]), np.float32))


WRONG = {"a line": (Edge(8), "line or column of the border must be 0 to 7, not 8"),
         "channels": (Edge(0, (0, 1)), "a border of 2 channels, it reads 4"),
         "a channel": (Edge(0, (0, 1, 2, 4)), "channel of the border must be 0 to 3, not 4")}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_map_has_is_no_border(name: str) -> None:
    edge, problem = WRONG[name]
    graph = celosia.compile(around("replicate").eval(), MAP).graph
    node, = graph.nodes
    node = replace(node, geometry=replace(node.geometry, border=((edge,), *node.geometry.border[1:])
                                          ))
    with pytest.raises(ValueError, match=problem):
        check_nodes(graph.tensors, [node], find_target("icebreaker").array, input=graph.input,
                    output=graph.output)


def test_the_other_end_is_pytorchs_whatever_is_cut() -> None:
    x = torch.arange(60.0).reshape(1, 2, 6, 5)
    for pad in product(range(-2, 3), repeat=4):
        assert torch.equal(_around(x, list(pad)), F.pad(x, pad, mode="circular")), pad
