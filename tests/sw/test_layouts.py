"""Linear layers over the last of several axes, and what else works on tensors whose axes were
moved: the numbers are those of torch, and nothing is moved where nothing has to be."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import celosia
from celosia import compress
from celosia.compiler import Compiler
from celosia_spec.errors import CompileError
from moved import compare, near
from returning import Function, conv

TOKENS, LINE, MAP = (1, 12, 10), (1, 5, 14), (1, 3, 8, 6)


def last(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """A layer over the channels of a map, as ConvNeXt has it."""
    return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def next_block(before, wide, narrow, scale, x):
    y = before(x).permute(0, 2, 3, 1)
    y = scale.weight[0] * narrow(F.silu(wide(y)))
    return x + y.permute(0, 3, 1, 2)


def mixer(stem, tokens_up, tokens_down, up, down, head, x):
    y = stem(x).flatten(2).transpose(1, 2)
    y = y + tokens_down(F.relu(tokens_up(y.transpose(1, 2)))).transpose(1, 2)
    y = y + down(F.relu(up(y)))
    return head(y.mean(1))


NETWORKS = {        # the network, the shape of its input, its layers
    "tokens": (lambda: nn.Sequential(nn.Linear(10, 7), nn.ReLU(), nn.Linear(7, 4)), TOKENS, 2),
    "without a bias": (lambda: nn.Sequential(nn.Linear(10, 7, bias=False), nn.Tanh(),
                                             nn.Linear(7, 9)), TOKENS, 4),
    "maps with channels last": (lambda: nn.Sequential(nn.Linear(6, 7), nn.LeakyReLU(0.1),
                                                      nn.Linear(7, 3)), (1, 5, 4, 6), 4),
    "channels of a map": (lambda: Function(
        lambda a, l, b, x: b(F.relu(last(l, a(x)))), conv(4, 3), nn.Linear(4, 5), conv(2, 5)),
        MAP, 3),
    "ConvNeXt": (lambda: Function(
        next_block, conv(3, 3, 5, groups=3), nn.Linear(3, 8), nn.Linear(8, 3), nn.Linear(3, 1)),
        MAP, 7),
    "lines": (lambda: Function(lambda a, l, x: l(F.relu(a(x)).transpose(1, 2)).transpose(1, 2),
                               nn.Conv1d(5, 4, 3, padding=1), nn.Linear(4, 3)), LINE, 2),
    "along the time of an input": (lambda: nn.Sequential(nn.Linear(14, 9), nn.ReLU(),
                                                         nn.Conv1d(5, 2, 3)), LINE, 4),
    "along a line": (lambda: Function(
        lambda a, l, b, x: b(F.relu(l(a(x)))), nn.Conv1d(5, 4, 3), nn.Linear(12, 10),
        nn.Conv1d(4, 2, 1)), LINE, 5),
    "mixer": (lambda: Function(
        mixer, nn.Conv2d(3, 9, 2, 2), nn.Linear(12, 7), nn.Linear(7, 12), nn.Linear(9, 11),
        nn.Linear(11, 9), nn.Linear(9, 3)), MAP, 10),
    "all but the last axis in one": (lambda: Function(
        lambda a, b, x: b(F.relu(a(x.view(-1, 10)))).view(1, 12, 4), nn.Linear(10, 7),
        nn.Linear(7, 4)), TOKENS, 2),
    "a product for each line": (lambda: Function(
        lambda a, x: x @ (a.weight * 2), nn.Linear(6, 6)), (1, 5, 9, 6), 1),
    "a product of matrices": (lambda: Function(
        lambda a, x: F.relu6(x @ a.weight) * 0.5 + a.weight[0], nn.Linear(10, 10)), TOKENS, 2),
    "sums of two orders": (lambda: Function(
        lambda a, b, c, x: c((a(x) + b(x).transpose(1, 2).contiguous().transpose(1, 2)).relu()),
        nn.Linear(10, 4), nn.Linear(10, 4), nn.Linear(4, 2)), TOKENS, 3),
    "a number of more axes": (lambda: Function(
        lambda a, b, x: b(torch.kron(a(x), torch.tensor(2.0)) - torch.ones(1, 1, 1, 1)),
        conv(4, 3), conv(2, 4)), MAP, 2),
    "the larger of two": (lambda: Function(
        lambda a, b, x: torch.maximum(a(x), b(x)).clamp(-0.5, 0.75), nn.Linear(10, 4),
        nn.Linear(10, 4)), TOKENS, None),
    "slopes of its own": (lambda: Function(
        lambda a, p, b, x: b(p(a(x).transpose(1, 2)).transpose(1, 2)), nn.Linear(10, 4),
        nn.PReLU(4), nn.Linear(4, 2)), TOKENS, None),
    "the largest of all tokens": (lambda: Function(
        lambda a, l, x: l(F.relu(a(x)).amax(1)), nn.Linear(10, 7), nn.Linear(7, 3)), TOKENS, 2),
    "sums of tokens": (lambda: Function(
        lambda a, l, x: l(a(x).sum(1, keepdim=True)), nn.Linear(10, 7), nn.Linear(7, 3)), TOKENS,
        None),
    "flattened": (lambda: Function(lambda a, l, x: l(F.relu(a(x)).flatten(1)), nn.Linear(10, 7),
                                   nn.Linear(84, 3)), TOKENS, 2),
    "a part of the tokens": (lambda: Function(lambda a, l, x: l(F.relu(a(x))[:, 2:5, 1:]),
                                              nn.Linear(10, 7), nn.Linear(6, 3)), TOKENS, 3),
    "mixed along height": (lambda: Function(
        lambda a, l, b, x: b(F.relu(l(a(x).transpose(2, 3)).transpose(2, 3))), conv(3, 3),
        nn.Linear(8, 4), conv(2, 3)), MAP, 5),
    "axes at the end": (lambda: Function(
        lambda a, x: a(x).view(1, 3, 4, 8, 6).permute(0, 1, 3, 4, 2), conv(12, 3)), MAP, 1),
    "axes at the end, flat": (lambda: Function(
        lambda a, x: a(x).view(1, 3, 9, 8, 6).permute(0, 1, 3, 4, 2).reshape(1, -1, 9).sigmoid(),
        conv(27, 3)), MAP, 1),
    "channels last at the end": (lambda: Function(
        lambda a, x: F.relu(a(x)).permute(0, 2, 3, 1).softmax(3), conv(12, 3)), MAP, 1),
    "all axes the other way": (lambda: Function(lambda a, x: a(x).permute(0, 3, 2, 1), conv(12, 3)),
                               MAP, 1),
    "turned over at the end": (lambda: Function(lambda a, x: a(x).flip(2), conv(2, 3)), MAP, 2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_torch(name: str) -> None:
    torch.manual_seed(0)
    make, shape, layers = NETWORKS[name]
    network = make().eval()
    program = near(network, shape)
    assert len(program.layers) == layers or layers is None
    if not {"SiLU", "Tanh", "silu", "tanh"} & set(" ".join(program.remarks).split(":")[0].split()):
        compare(network, shape)


def test_a_linear_layer_over_channels_is_a_convolution_of_one_place() -> None:
    torch.manual_seed(0)
    linear, wide = NETWORKS["channels of a map"][0]().layers[1], conv(4, 3)
    found = Compiler().graph(Function(last, linear).eval(), (1, 4, 8, 6)).nodes
    assert [(node.kernel, node.groups, node.map) for node in found] == [((1, 1), 1, None)]
    assert np.array_equal(found[0].weight[:, :, 0, 0], linear.weight.detach().numpy())
    heads = Function(lambda a, b, x: (
        a(x).permute(0, 2, 3, 1), b(x).view(1, 2, 3, 8, 6).permute(0, 1, 3, 4, 2)), wide,
        conv(6, 3)).eval()
    x = np.random.default_rng(1).standard_normal((2, 3, 8, 6)).astype(np.float32)
    program = celosia.compile(heads, (1, 3, 8, 6), target="ulx3s-25f")
    assert len(program.layers) == 1
    answers = celosia.run(program, x).answers
    with torch.no_grad():
        for at, one in enumerate(x):
            for found_one, wanted in zip(answers.values(), heads(torch.from_numpy(one[None])),
                                         strict=True):
                assert found_one[at].shape == wanted.shape[1:]
                assert np.abs(found_one[at] - wanted[0].numpy()).max() < 0.05


def test_layers_of_several_axes_may_be_pruned() -> None:
    torch.manual_seed(0)
    network = NETWORKS["ConvNeXt"][0]().eval()
    compress.prune(network, "magnitude", rates=0.5)
    x = torch.randn(MAP)
    with torch.no_grad():
        wanted = network(x)
        assert sum(compress.drop_unread(network, x).values()) > 0
        assert torch.equal(network(x), wanted)
    program = celosia.compile(network, MAP, target="ulx3s-25f")
    linear = next(layer for layer in program.layers if layer.name == "layers.1")
    assert linear.nonzeros <= linear.weights / 2 == 12
    assert np.abs(celosia.run(program, x.numpy()).answer - wanted.numpy()).max() < 0.05


def test_what_is_refused() -> None:
    with pytest.raises(CompileError, match=r"^1 \(LayerNorm\): not supported by this machine; "
                       "replace it with BatchNorm"):
        celosia.compile(nn.Sequential(nn.Linear(10, 7), nn.LayerNorm(7), nn.Linear(7, 2)), TOKENS)
    attention = Function(lambda a, x: a(x) @ a(x).transpose(1, 2), nn.Linear(10, 7)).eval()
    with pytest.raises(CompileError, match=r"bmm|matmul"):
        celosia.compile(attention, TOKENS)
