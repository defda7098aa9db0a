"""Networks with block-formatted operands, against integers computed without the library."""

from __future__ import annotations

import copy
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torch.nn import functional

from celosia.compress.masks.weights import apply_mask, current_mask, make_permanent
from celosia.compress.precision.emulate import BlockLayer, block_format, emulate
from celosia.compress.precision.partition import PARTITIONS, mean_bits
from celosia.frontend import import_model
from celosia.models import ResNet
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_sim import golden
from celosia_spec.block import bfp
from celosia_spec.errors import ArgumentError
from tolerance import rounding

ROUNDINGS = ("nearest-even", "zero", "up", "down")
WHOLE_ROUNDINGS = {"nearest-even": round, "zero": math.trunc, "up": math.ceil, "down": math.floor}


class Net(nn.Module):
    """Two convolutions (the second grouped and strided), then a linear layer."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2, bias=False)
        self.last = nn.Linear(6 * 3 * 4, 5)
        with torch.no_grad():       # rows of different scale, so that partitions differ
            self.first.weight *= 2.0 ** torch.arange(-2, 2).view(-1, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.flatten(1))


def some_inputs(seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 5, 5, generator=generator)
    return x * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)


# Against integers


def whole_block(numbers, bits: int, rounding: str) -> tuple[list[int], int]:
    """Return a block's mantissas and the exponent of their last bit, by exact fractions."""
    exact = [Fraction(float(number)) for number in numbers]
    largest = max(map(abs, exact))
    exponent = -16
    while Fraction(2) ** (exponent + 1) <= largest:
        exponent += 1
    last = exponent - (bits - 2)
    most = 2 ** (bits - 1) - 1
    found = [WHOLE_ROUNDINGS[rounding](number / Fraction(2) ** last) for number in exact]
    return [min(max(number, -most), most) for number in found], last


def matrix(numbers: np.ndarray, bits: int, rounding: str, by: str) -> tuple[np.ndarray, np.ndarray]:
    """Return mantissas (int64) and last-bit exponents of a matrix, both of its shape.

    by : "whole", "rows" or "columns".
    """
    table = numbers if by != "columns" else numbers.T
    if by == "whole":
        m, last = whole_block(table.ravel(), bits, rounding)
        return np.array(m).reshape(table.shape), np.full(table.shape, last)
    pairs = [whole_block(row, bits, rounding) for row in table]
    m = np.array([pair[0] for pair in pairs])
    lasts = np.repeat(np.array([[pair[1]] for pair in pairs]), table.shape[1], axis=1)
    return (m, lasts) if by != "columns" else (m.T, lasts.T)


def patches(m: np.ndarray, kernel, stride, padding) -> np.ndarray:
    """Return the columns (K, positions) of one map (C, H, W), one by one."""
    m = np.pad(m, ((0, 0), (padding[0],) * 2, (padding[1],) * 2))
    rows = range(0, m.shape[1] - kernel[0] + 1, stride[0])
    columns = range(0, m.shape[2] - kernel[1] + 1, stride[1])
    return np.stack([m[:, i:i + kernel[0], j:j + kernel[1]].ravel() for i in rows
                     for j in columns], axis=1)


def integer_layer(layer, image: np.ndarray, bits: tuple[int, int], partition: str,
                  rounding: str) -> np.ndarray:
    """Return a layer's outputs for one float32 image: integer sums, one rounding, the bias."""
    blocks = PARTITIONS[partition]
    weight = layer.weight.detach().numpy()
    w, sw = matrix(weight.reshape(len(weight), -1), bits[0], rounding,
                   "rows" if blocks.weight_rows else "whole")
    groups = getattr(layer, "groups", 1)
    conv = isinstance(layer, nn.Conv2d)
    how = (layer.kernel_size, layer.stride, layer.padding) if conv else None
    sums = []
    if not blocks.input_columns:
        m, last = whole_block(image.ravel(), bits[1], rounding)
        image, step = np.array(m).reshape(image.shape), last
    for part, rows, steps in zip(np.split(image, groups), np.split(w, groups),
                                 np.split(sw, groups), strict=True):
        columns = patches(part, *how) if conv else part[:, None]
        scale = np.full(columns.shape, 0 if blocks.input_columns else step)
        if blocks.input_columns:
            columns, scale = matrix(columns, bits[1], rounding, "columns")
        exact = rows.astype(np.int64) @ columns.astype(np.int64)
        sums.append(np.ldexp(exact.astype(np.float64), steps[:, :1] + scale[:1]))
    total = np.concatenate(sums).astype(np.float32)
    return total if layer.bias is None else total + layer.bias.detach().numpy()[:, None]


def integer_net(net: Net, x: torch.Tensor, *how) -> np.ndarray:
    outputs = []
    for image in x.numpy():
        a = np.maximum(integer_layer(net.first, image, *how), 0).reshape(4, 5, 5)
        b = np.maximum(integer_layer(net.second, a, *how), 0)
        outputs.append(integer_layer(net.last, b.ravel(), *how)[:, 0])
    return np.stack(outputs)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_a_network_computes_the_integers_bit_for_bit(partition, rounding):
    net, x = Net(), some_inputs()
    for bits in ((4, 4), (5, 8), (6, 6), (7, 9), (8, 8), (9, 5), (9, 9), (16, 16)):
        found = emulate(net, weight_bits=bits[0], activation_bits=bits[1], partition=partition,
                        rounding=rounding)(x)
        wanted = integer_net(net, x, bits, partition, rounding)
        np.testing.assert_array_equal(found.numpy(), wanted, err_msg=f"{bits}")


def test_sums_in_float32_are_those_in_float64():
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    layer = emulate(nn.Sequential(conv), weight_bits=8, activation_bits=8)[0]
    assert not layer.wide
    x = torch.relu(torch.randn(20, 64, 16, 16))
    exact = functional.conv2d(layer.format(*layer.operand(x)).double(), layer.weight.double(),
                              padding=1)
    for given_x in (x, x.to(memory_format=torch.channels_last), x[:1]):
        assert torch.equal(layer(given_x), exact[:len(given_x)].float())


def test_sums_that_need_more_than_24_bits_run_in_float64():
    conv = nn.Conv2d(300, 1, 1, bias=False)
    nn.init.constant_(conv.weight, 1.999)       # mantissas 255 at nine bits
    x = torch.full((1, 300, 1, 1), 1.999)
    layer = emulate(nn.Sequential(conv), weight_bits=9, activation_bits=9)[0]
    assert layer.wide
    assert layer(x).item() == np.float32(300 * 255 * 255 / 2**14)
    small = emulate(nn.Sequential(conv), weight_bits=8, activation_bits=8)[0]
    assert not small.wide
    assert small(x).item() == 300 * 127 * 127 / 2**12


@pytest.mark.parametrize("bits", [(4, 4), (5, 9), (8, 8)])
def test_by_rows_it_is_the_golden_model_with_signs_but_for_biases(bits):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2),
                          nn.Conv2d(8, 6, 3, bias=False), nn.ReLU(), nn.Flatten(),
                          nn.Linear(54, 7, bias=False)).eval()
    x = torch.randn(6, 2, 10, 10)
    graph = quantise(optimise(import_model(model, x[:1])), weight_bits=bits[0],
                     activation_bits=bits[1], unsigned=False)
    right, name = golden.run(graph, x.numpy()), graph.output
    lsb = right.exponents[name][:, None] - 14       # of the outputs' 16-bit mantissas
    values = np.ldexp(right.mantissas[name].reshape(6, 7).astype(np.float64), lsb)
    found = emulate(model, weight_bits=bits[0], activation_bits=bits[1])(x).double().numpy()
    assert (np.abs(values - found) <= np.ldexp(0.5, lsb)).all()


# The formatting is compress.bfp's


@settings(deadline=None, max_examples=150)
@given(x=arrays.arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3),
                       elements=st.floats(-2**15, 2**15, width=32, allow_subnormal=False)),
       bits=st.integers(2, 24), rounding=st.sampled_from(ROUNDINGS))
def test_formatting_is_that_of_bfp(x, bits, rounding):
    for axis, axes in ((None, (0, 1, 2)), (0, (1, 2)), (1, (0, 2))):
        m, exponents = bfp(x, bits, axis, rounding)
        shape = [1] * 3 if axis is None else [-1 if i == axis else 1 for i in range(3)]
        values = np.ldexp(m.astype(np.float64), (exponents - (bits - 2)).reshape(shape))
        found = block_format(torch.from_numpy(x.copy()), bits, axes, rounding)
        np.testing.assert_array_equal(found.numpy(), values)


# What it does to a network


def test_an_image_is_formatted_by_itself():
    net, x = Net(), some_inputs()
    for partition in PARTITIONS:
        emulated = emulate(net, weight_bits=6, activation_bits=6, partition=partition)
        assert torch.equal(emulated(x), torch.cat([emulated(part) for part in x.split(1)]))


def test_batch_normalisation_is_folded_and_the_model_is_not_changed():
    model = ResNet(8, "B").train()
    before = copy.deepcopy(model.state_dict())
    emulated = emulate(model, weight_bits=16, activation_bits=16)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in emulated.modules())
    assert not emulated.training and model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.eval()(x)
    torch.testing.assert_close(emulated(x), wanted, rtol=2e-3, atol=2e-3)


def test_masked_weights_are_zeros():
    net, x = Net(), some_inputs()
    weight = net.second.weight
    apply_mask(net.second, torch.arange(weight.numel()).view_as(weight) % 3 > 0)
    masked = emulate(net, weight_bits=5, activation_bits=5)
    assert current_mask(net.second).sum() == 48      # the given network keeps its mask
    make_permanent(net)
    assert torch.equal(masked(x), emulate(net, weight_bits=5, activation_bits=5)(x))
    assert int((masked.second.weight != 0).sum()) <= 48


def test_only_the_named_layers_are_emulated():
    net, x = Net(), some_inputs()
    emulated = emulate(net, weight_bits=4, activation_bits=4, layers=["last"])
    kinds = {name: isinstance(part, BlockLayer) for name, part in emulated.named_children()}
    assert kinds == {"first": False, "second": False, "last": True}
    inner = torch.relu(net.second(torch.relu(net.first(x)))).flatten(1).detach()
    assert torch.equal(emulated(x), emulated.last(inner))


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("kernel, dilation", [((2, 4), 1), ((3, 3), 2)])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_padding_same(kernel, dilation, partition):
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, kernel, padding="same", dilation=dilation)
    x = torch.randn(2, 2, 7, 6)
    found = emulate(nn.Sequential(conv), weight_bits=22, activation_bits=22,
                    partition=partition)(x)
    # Both factors of a product are off by half a step, 2**-21 of the largest at most; then float32.
    weight, terms = conv.weight.detach(), conv.weight[0].numel()
    most = terms * float(weight.abs().max() * x.abs().max()) * (
        2 * 2**-21 + rounding(terms + 1, torch.float32))
    torch.testing.assert_close(found, conv(x).detach(), rtol=0, atol=most)


def test_linear_layers_take_sequences():
    torch.manual_seed(0)
    linear = nn.Linear(6, 3)
    x = torch.randn(2, 4, 6) * torch.tensor([1.0, 100, 1, 1]).view(1, 4, 1)
    columns = emulate(nn.Sequential(linear), weight_bits=8, activation_bits=8,
                      partition="columns")
    assert torch.equal(columns(x)[:, 1], columns(x[:, 1]))
    whole = emulate(nn.Sequential(linear), weight_bits=8, activation_bits=8, partition="whole")
    error = [(found(x) - linear(x))[:, 0].square().sum() for found in (columns, whole)]
    assert error[0] < error[1] / 100        # the large vector shares its exponent in one of them


def test_refusals():
    net = Net()
    for changes, message in (
        ({"weight_bits": 1}, "weight_bits must be 2 to 24"),
        ({"activation_bits": 25}, "activation_bits must be 2 to 24"),
        ({"partition": "tiles"}, "partition must be one of whole, rows-columns, rows, columns"),
        ({"rounding": "even"}, "rounding must be one of"),
        ({"layers": ["third"]}, "no layer is called 'third'; layers: 'first', 'second', 'last'"),
    ):
        with pytest.raises(ArgumentError, match=message):
            emulate(net, **{"weight_bits": 8, "activation_bits": 8} | changes)
    mirrored = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ArgumentError, match="layer '0' pads with 'reflect'"):
        emulate(mirrored, weight_bits=8, activation_bits=8)
    emulated = emulate(net, weight_bits=8, activation_bits=8)
    for bad in (2.0**16, float("nan"), float("inf")):
        x = some_inputs()
        x[0, 0, 0, 0] = bad
        with pytest.raises(ArgumentError, match="layer 'first', inputs: .* largest exponent is 15"):
            emulated(x)
    with torch.no_grad():
        net.last.weight[0, 0] = 2.0**16
    with pytest.raises(ArgumentError, match="layer 'last', weight: .* above 15"):
        emulate(net, weight_bits=8, activation_bits=8)


# Bits


@pytest.mark.parametrize("partition", PARTITIONS)
def test_mean_bits_count_the_blocks(partition):
    m, k, n = 6, 4, 10
    blocks = PARTITIONS[partition]
    w = {(i if blocks.weight_rows else 0) for i in range(m) for _ in range(k)}
    x = {(j if blocks.input_columns else 0) for _ in range(k) for j in range(n)}
    wanted = (m * k * 8 + len(w) * 5) / (m * k), (k * n * 9 + len(x) * 5) / (k * n)
    assert mean_bits(partition, (m, k, n), 8, 9) == pytest.approx(wanted, rel=1e-15)


def test_mean_bits_of_the_first_vgg_layer():
    shape = (64, 27, 224 * 224)
    assert mean_bits("rows", shape, 8, 8) == (8 + 5 / 27, 8 + 5 / (27 * 50176))
    assert mean_bits("columns", shape, 8, 8, 8) == (8 + 8 / (64 * 27), 8 + 8 / 27)
    with pytest.raises(ArgumentError, match="at least 1"):
        mean_bits("rows", (0, 1, 1), 8, 8)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("partition", ["whole", "rows-columns", "rows", "columns"])
def test_narrow_types_compute_what_float32_does(kind, partition):
    """Inputs near 1e-4 have block exponents at which float16 has no numbers of the step's size."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(180, 3)).to(kind).eval()
    x = (1e-4 * torch.randn(2, 4, 8, 8)).to(kind)
    y = emulate(net, weight_bits=8, activation_bits=8, partition=partition)(x)
    assert y.dtype == kind
    wide = net.to(torch.float64)
    # The narrow network rounds the map between its layers to its type, and the outputs.
    wanted = emulate(wide, weight_bits=8, activation_bits=8, partition=partition)(x.double())
    reach = 16 * torch.finfo(kind).eps + (0 if kind == torch.float64 else 2.0 ** -6)
    assert float((y.double() - wanted).abs().max() / wanted.abs().max()) <= reach


def test_bfloat16_arrays_are_formatted():
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    for found, wanted in zip(bfp(x, 8, 0), bfp(x.double().numpy(), 8, 0), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_model_that_is_one_layer_is_emulated():
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 4).eval(), torch.randn(3, 6)
    found = emulate(layer, weight_bits=5, activation_bits=5)
    wanted = emulate(nn.Sequential(layer), weight_bits=5, activation_bits=5)
    assert torch.equal(found(x), wanted(x))
    assert not torch.equal(found(x), layer(x))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_whole_numbers_give_outputs_that_are_not_cut_to_whole_numbers(kind, partition):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).eval()
    x = torch.randint(0, 100, (2, 2, 6, 6)).to(kind)
    net = emulate(net, weight_bits=8, activation_bits=8, partition=partition)
    assert net(x).dtype == torch.float32
    assert torch.equal(net(x), net(x.float()))


@pytest.mark.parametrize("kinds", [(torch.float32, torch.float64), (torch.float64, torch.float32),
                                   (torch.float32, torch.float16), (torch.bfloat16, torch.float32)])
@pytest.mark.parametrize("partition", ["rows", "columns"])
def test_inputs_of_another_type_than_the_layers(kinds, partition):
    """Each layer computes in the wider of the two, and gives outputs of the inputs' type."""
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3).to(kinds[0])
    x = torch.randn(2, 2, 6, 6).to(kinds[1])
    y = emulate(layer, weight_bits=8, activation_bits=8, partition=partition)(x)
    wanted = emulate(layer.double(), weight_bits=8, activation_bits=8, partition=partition)(
        x.double())
    assert y.dtype == kinds[1]
    reach = torch.finfo(kinds[1]).eps + 2 * torch.finfo(torch.float32).eps
    assert float((y.double() - wanted).abs().max() / wanted.abs().max()) <= reach


def test_sums_beyond_float64_are_refused():
    layer = nn.Linear(600, 2, bias=False)
    nn.init.constant_(layer.weight, 1.9999)
    with pytest.raises(ArgumentError, match=r"^layer '': sums of 24-bit weights and 24-bit inputs "
                                            r"may reach .*, beyond 2\^53, .*; use fewer bits$"):
        emulate(layer, weight_bits=24, activation_bits=24)
    emulate(layer, weight_bits=22, activation_bits=22)


def test_widths_that_are_no_whole_numbers():
    with pytest.raises(ArgumentError, match=r"^weight_bits must be a whole number, not 8\.0$"):
        emulate(nn.Linear(2, 2), weight_bits=8.0, activation_bits=8)
    with pytest.raises(ArgumentError, match="^bits must be a whole number, not '8'$"):
        bfp([1.0], "8")
