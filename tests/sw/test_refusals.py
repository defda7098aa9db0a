"""What the machine does not have: named as the user named it, with a way out that was taken."""

import functools
import re
import sys
import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

import celosia
from celosia.compiler import Compiler
from celosia_boards.targets import target
from celosia_spec.errors import ArgumentError, CompileError, FitError, quoted
from registered import carrying

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from celosia.frontend import import_model  # noqa: E402
from celosia.frontend.refusals import REMEDIES, REMEDY  # noqa: E402

SHAPE = (1, 4, 8, 8)


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(self.conv(x), 0.5, self.training)


class Function(nn.Module):
    """A forward pass given as a function of x, or of the layers and x."""

    def __init__(self, function, *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x):
        return self.function(*self.layers, x)


@dataclass
class Pair:
    """What torch.export knows nothing of."""

    first: torch.Tensor
    second: torch.Tensor


class Known(Pair):
    """What it has been told of."""


torch.export.register_dataclass(Known)


def conv(channels: int = 4) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1)


def between(layer: nn.Module) -> nn.Module:
    """A network with the layer in the middle."""
    return nn.Sequential(conv(), layer, conv())


def head(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 5))


def varied(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    d = a(x)
    d = d - d.mean((2, 3), keepdim=True)
    return b(x / 2 + (d * d).mean((2, 3), keepdim=True) * 64 / 63)


def deviating(a: nn.Module, b: nn.Module, x: torch.Tensor) -> torch.Tensor:
    d = a(x)
    d = d - d.mean((2, 3), keepdim=True)
    return b(x / 2 + ((d * d).mean((2, 3), keepdim=True) * 64 / 63).clamp(0.01, 4).sqrt())


@pytest.mark.parametrize(("written", "whole"), [(varied, torch.var), (deviating, torch.std)])
def test_variances_as_they_are_written_out_are_those_of_torch(written, whole) -> None:
    x = torch.rand(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
    torch.testing.assert_close(written(nn.Identity(), nn.Identity(), x),
                               x / 2 + whole(x, (2, 3), keepdim=True))


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.conv(x)
        return x.float()


def compile_graph(model: nn.Module, shape: tuple[int, ...] = SHAPE):
    return Compiler().graph(model, np.zeros(shape, np.float32))


MANY = "of a map of 72 x 8 x 8 it moves elements one by one, and 4,096 at most are moved so"
RELU = "replace it with ReLU and train the model again"
BEFORE = ("clamp layers.0, the tensor that it is computed from, before anything else, such as "
          f"x.clamp(-4, 4), or {RELU}")
CLAMP = f"clamp what it takes to where it is needed, such as x.clamp(-4, 4), or {RELU}"
SAID = "not supported by this machine"
OUTPUTS = "leave it out of the network and apply it to the outputs on the host"
INPUTS = "leave it out of the network and apply it to the inputs on the host"
WIDE = lambda: nn.Conv2d(4, 72, 3, padding=1)
A_RELU, ALONE = (lambda: between(nn.ReLU())), conv
MAX_POOL, NORM = (lambda: nn.Sequential(nn.MaxPool2d(3, 2))), (lambda: between(nn.BatchNorm2d(4)))
MASK, EXPONENTS = torch.ones(8, 8).bool(), torch.tensor([2.0, 3.0, 2.0, 1.0]).view(4, 1, 1)

REFUSED = {     # what a user brings; the message; the same with the advice taken
    **{f"{layer.__name__} inside": (
        lambda layer=layer: between(layer()), f"1 ({layer.__name__}): {SAID}; {RELU}", A_RELU)
       for layer in (nn.Hardshrink, nn.Softmin)},
    "functional": (lambda: Function(lambda a, b, x: b(F.hardshrink(a(x))), conv(), conv()),
                   f"hardshrink (hardshrink): {SAID}; {RELU}", A_RELU),
    "exponential": (lambda: Function(lambda a, b, x: b(a(x).exp()), conv(), conv()),
                    f"exp (exp): it does not run straight far from 0; {CLAMP}",
                    lambda: Function(lambda a, b, x: b(a(x).clamp(-4, 4).exp()), conv(), conv())),
    "sine": (lambda: Function(lambda a, b, x: b(a(x).sin()), conv(), conv()),
             f"sin (sin): it does not run straight far from 0; {CLAMP}",
             lambda: Function(lambda a, b, x: b(a(x).clamp(-4, 4).sin()), conv(), conv())),
    "sine at the end": (lambda: Function(lambda a, x: a(x).sin(), conv()), "sin (sin): it does "
                        f"not run straight far from 0; {OUTPUTS}", ALONE),
    "a share of an amount": (
        lambda: Function(lambda a, b, x: b(1 / (1 + a(x).abs())), conv(), conv()), "reciprocal "
        f"(reciprocal): 12 straight pieces are off by up to 2% of its span; {BEFORE}",
        lambda: Function(lambda a, b, x: b(1 / (1 + a(x).clamp(-4, 4).abs())), conv(), conv())),
    "a logarithm of a sum": (
        lambda: Function(lambda a, b, x: b((a(x) + 5).log()), conv(), conv()),
        f"log (log): it is not finite everywhere; {BEFORE}",
        lambda: Function(lambda a, b, x: b((a(x).clamp(-4, 4) + 5).log()), conv(), conv())),
    "variance": (lambda: Function(lambda a, b, x: b(x / 2 + a(x).var((2, 3), keepdim=True)), conv(),
                                  conv()), f"var (var): {SAID}; {REMEDIES['var']}",
                 lambda: Function(varied, conv(), conv())),
    "deviation": (lambda: Function(lambda a, b, x: b(x / 2 + a(x).std((2, 3), keepdim=True)),
                                   conv(), conv()), f"std (std): {SAID}; {REMEDIES['std']}",
                  lambda: Function(deviating, conv(), conv())),
    "autocast": (Autocast, "wrap_with_autocast (wrap_with_autocast): converts to torch.bfloat16; "
                 "keep the network in float32, without torch.autocast", conv),
    "narrow clamp": (lambda: between(nn.Hardtanh(0, 1e-6)), "1 (hardtanh): clamps to 0 ... 1e-06: "
                     "a clamp's upper bound must be 2^-16 to below 2^16, not 1e-06; scale the "
                     "layer before it, or leave the clamp out", A_RELU),
    "clamp beyond all": (lambda: Function(lambda a, x: a(x).clamp(min=1e9), conv()), "clamp "
                         "(clamp): clamps at 1e+09, and the machine's numbers are below 65536; "
                         f"{RELU}", lambda: Function(lambda a, x: a(x).clamp(max=1e9), conv())),
    "clamp": (lambda: Function(lambda a, x: a(x).clamp(2, 1), conv()), "clamp (clamp): clamps to "
              f"2 ... 1; {RELU}",
              lambda: Function(lambda a, x: a(x).clamp(1, 2), conv())),
    "larger of two ranks": (lambda: Function(
        lambda a, x: torch.maximum(a(x), x[:, 0]), conv()), "maximum (maximum): shapes "
        "(1, 4, 8, 8) and (1, 8, 8) differ in their axes; give both the same number of axes",
        lambda: Function(lambda a, x: torch.maximum(a(x), x[:, :1]), conv())),
    "larger of numbers": (lambda: Function(lambda a, x: torch.maximum(
        a(x), torch.arange(4.0).reshape(4, 1, 1)), conv()), "maximum (maximum): it compares with "
        f"several numbers; {REMEDIES['maximum']}",
        lambda: Function(lambda a, x: F.relu(a(x) - torch.arange(4.0).reshape(4, 1, 1))
                         + torch.arange(4.0).reshape(4, 1, 1), conv())),
    "chosen": (lambda: Function(lambda a, x: torch.where(a(x) > x, a(x), x), conv()),
               f"gt (gt): {SAID}; {REMEDIES['where']}",
               lambda: Function(lambda a, x: a(x) * MASK, conv())),
    "a sign": (lambda: Function(lambda a, x: torch.where(a(x) > 0, 1.0, -1.0), conv()), "where "
               f"(where): 12 straight pieces are off by up to 84% of its span; {RELU}", A_RELU),
    "a wide exponent": (
        lambda: Function(lambda a, x: a(x).mean((2, 3), True) ** torch.full((4, 8, 8), 2.0),
                         conv()), "pow (pow): a constant widens the shape (1, 4, 1, 1) to (1, 4, "
        "8, 8); give it the number 2", lambda: Function(
            lambda a, x: a(x).mean((2, 3), True) ** 2, conv())),
    "raised to several powers": (
        lambda: Function(lambda a, x: a(x) ** EXPONENTS, conv()), "pow (pow): its exponent is not "
        "the number 2; write powers as products, such as x * x * x",
        lambda: Function(lambda a, x: a(x) * a(x), conv())),
    "threshold at the end": (lambda: nn.Sequential(conv(), nn.Threshold(2.0, 0.0)),
                             f"1 (Threshold): {SAID}; {OUTPUTS}", ALONE),
    "topk at the end": (lambda: Function(lambda a, x: a(x).topk(2)[1], head()),
                        f"topk (topk): {SAID}; {OUTPUTS}", head),
    "softmax over the batch": (lambda: Function(lambda a, x: a(x).softmax(0), head()), "softmax "
                               "(softmax): it works over axis 0, the batch, and so mixes the "
                               "inputs; use dim=1, on outputs (1, F) or (1, C, H, W)",
                               lambda: Function(lambda a, x: a(x).softmax(1), head())),
    "softmax inside": (lambda: between(nn.Softmax(1)), f"1 (Softmax): {SAID}; {RELU}", A_RELU),
    "axes in the middle": (lambda: Function(lambda a, b, x: b(a(x).transpose(2, 3)), WIDE(),
                                            conv(72)),
                           f"transpose (transpose): {MANY}; {REMEDIES['permute']}",
                           lambda: Function(lambda a, b, x: b(a(x).transpose(2, 3)), conv(),
                                            conv())),
    "product": (lambda: Function(lambda a, x: a(x) * x.flatten(1)[:, :8], conv()), "mul (mul): "
                "shapes (1, 4, 8, 8) and (1, 8) differ in their axes; multiply tensors of one "
                "number of axes",
                lambda: Function(lambda a, x: a(x) * a(x).mean((2, 3), True), conv())),
    **{f"{layer.__class__.__name__} inside": (
        lambda layer=layer: between(layer),
        f"1 ({layer.__class__.__name__}): {SAID}; {REMEDIES['group_norm']}",
        NORM)
       for layer in (nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LocalResponseNorm(2))},
    "turned over": (lambda: Function(lambda a, b, x: b(a(x).flip(2)), WIDE(), conv(72)),
                    f"flip (flip): {MANY}; {REMEDIES['flip']}",
                    lambda: Function(lambda a, b, x: b(a(x).flip(2)), conv(), conv())),
    "turned over, of many": (
        lambda: Function(lambda a, b, x: b(a(x)[:, :64].flip(2)), WIDE(), conv(64)), "flip (flip): "
        "of a map of 64 x 8 x 8 it moves elements one by one, and 16,777,216 weights at most do "
        f"so, not 4,096 for each of 4,608 elements; {REMEDIES['flip']}",
        lambda: Function(lambda a, b, x: b(a(x)[:, :2].flip(2)), conv(), conv(2))),
    "enlarged smoothly": (lambda: between(nn.Upsample(scale_factor=2, mode="bicubic")),
                          f"1 (Upsample): {SAID}; {REMEDIES['interpolate']}",
                          lambda: between(nn.Upsample(scale_factor=2, mode="bilinear"))),
    "enlarged by cubes": (
        lambda: between(nn.Upsample(scale_factor=2, mode="bicubic")), f"1 (Upsample): {SAID}; "
        f"{REMEDIES['interpolate']}", lambda: between(nn.Upsample(size=(12, 12)))),
    "drawn slopes": (
        lambda: nn.Sequential(conv(), nn.RReLU()), "1 (rrelu): its slope is drawn while training; "
        "use LeakyReLU((lower + upper) / 2), which it is in evaluation",
        lambda: nn.Sequential(conv(), nn.LeakyReLU((1 / 8 + 1 / 3) / 2))),
    "dropout that is always on": (
        lambda: Function(lambda a, x: F.dropout(a(x)), conv()), "dropout (dropout): it is on in "
        "evaluation, too; make it an nn.Dropout, or F.dropout(x, p, self.training); a program is "
        "exported after model.eval()", lambda: nn.Sequential(conv(), nn.Dropout())),
    "dropout of the forward pass": (
        lambda: Function(lambda a, x: F.dropout(a(x), 0.5), conv()), "dropout (dropout): it is on "
        "in evaluation, too; make it an nn.Dropout, or F.dropout(x, p, self.training); a program "
        "is exported after model.eval()", Dropped),
    "enlarged and pooled": (
        lambda: nn.Sequential(WIDE(), nn.Upsample(scale_factor=2), nn.MaxPool2d(2)), "2 "
        "(max_pool2d): it pools a map that was enlarged; pool it before, or use a convolution with "
        "a stride", lambda: between(nn.Sequential(nn.Upsample(scale_factor=2),
                                                  nn.Conv2d(4, 4, 2, 2)))),
    "enlarged to an odd size": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 3, 2, 1)), "0 (conv): its output of 15 x 15 "
        "does not divide into the 2 by which its input was enlarged; give it an output that does "
        "(output_padding=1)", lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, 1)),
    "enlarged, and cut to an odd size": (
        lambda: nn.Sequential(WIDE(), nn.Upsample(scale_factor=2), nn.Conv2d(72, 4, 2)), "2 "
        "(conv): its "
        "output of 15 x 15 does not divide into the 2 by which its input was enlarged; pad it so "
        "that it does, or pad it before it is enlarged",
        lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3, padding=1))),
    "enlarged, padded and added": (
        lambda: Function(lambda a, b, x: a(x) + F.pad(F.interpolate(b(x), scale_factor=2), (1, 0)),
                         nn.Conv2d(4, 72, (1, 2), padding=(4, 5)), WIDE()), "add (add): a map of "
        "16 x 17 does not divide into 2 x 2, by which maps were enlarged; use maps whose size "
        "does", lambda: Function(lambda a, b, x: a(x) + F.interpolate(b(x), scale_factor=2),
                                 nn.ConvTranspose2d(4, 4, 2, 2), conv())),
    "enlarged, padded to an odd size": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 72, 2, 2), nn.ZeroPad2d((1, 0, 2, 1))),
        "1 (pad): a map of 19 x 17 does not divide into 2 x 2, by which maps were enlarged; use "
        "maps whose size does",
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 4, 2, 2), nn.ZeroPad2d((1, 1, 2, 2)))),
    "as many as differ": (lambda: Function(lambda a, x: a(x).unique(), conv()),
                          f"unique (unique): {SAID}; {OUTPUTS}", ALONE),
    "where it is positive": (lambda: Function(lambda a, x: a(x)[a(x) > 0], conv()),
                             f"gt (gt): {SAID}; {REMEDIES['gt']}", ALONE),
    "joined constant": (
        lambda: Function(lambda a, x: a(torch.cat([x, torch.arange(4160.0).view(1, 65, 8, 8)], 1)),
                         nn.Conv2d(69, 4, 3)),
        "cat (cat): it joins a constant of 4,160 elements to a tensor of the network, of 256, "
        "which takes a layer with weights for each place, and that would be too large; join one "
        "value for each channel, or give the network the constant as a second input",
        lambda: Function(lambda a, x: a(torch.cat([x, torch.arange(65.0).view(1, 65, 1, 1).expand(
            1, 65, 8, 8)], 1)), nn.Conv2d(69, 4, 3))),
    "joined lines": (lambda: Function(lambda a, b, x: b(torch.cat([a(x), a(x)], 2)), WIDE(),
                                      conv(72)),
                     f"cat (cat): {MANY.replace('72 x 8', '72 x 16')}; {REMEDIES['cat']}",
                     lambda: Function(lambda a, x: a(torch.cat([x, a(x)], 2)), conv())),
    "zeros reflected": (lambda: nn.Sequential(
        WIDE(), nn.ZeroPad2d(1), nn.Conv2d(72, 4, 3, padding=1, padding_mode="reflect")),
        f"2 (pad): {MANY.replace('8 x 8', '12 x 12')}; {REMEDIES['pad']}", lambda: nn.Sequential(
            conv(), nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))),
    "padded with infinity": (
        lambda: Function(lambda a, x: a(F.pad(x, (1, 1), value=torch.inf)), conv()),
        "pad (pad): pads [1, 1] with inf; pad height and width with zeros or another number",
        lambda: Function(lambda a, x: a(F.pad(x, (1, 1), value=2.0)), conv())),
    "padded with a number and cut": (
        lambda: Function(lambda a, x: a(F.pad(x, (2, -1), value=2.0)), conv()),
        "pad (pad): pads [2, -1] with 2, and a side below zero cuts lines or columns off; cut them "
        "off by a slice, and pad what is left",
        lambda: Function(lambda a, x: a(F.pad(x[..., :-1], (2, 0), value=2.0)), conv())),
    "reshaped in the middle": (
        lambda: Function(lambda a, b, x: b(a(x).reshape(1, 64, 9, 8)), WIDE(), conv(64)),
        "reshape (reshape): of a map of 64 x 9 x 8 it moves elements one by one, and 4,096 at most "
        "are moved so; flatten maps into vectors, and make maps of vectors only",
        lambda: Function(lambda a, b, x: b(a(x).reshape(1, 16, 4, 4)), conv(), conv(16))),
    "flattened and not": (
        lambda: Function(lambda a, x: a(x.flatten(1)) + x.flatten(1), nn.Linear(256, 256)),
        "add (add): adds flattened tensors of the shapes (256, 1, 1) and (4, 8, 8); let a linear "
        "layer of its own read the flattened map",
        lambda: Function(lambda a, b, x: a(x.flatten(1)) + b(x.flatten(1)), nn.Linear(256, 256),
                         nn.Linear(256, 256))),
    "cumsum": (lambda: Function(lambda a, b, x: b(a(x).cumsum(1)), conv(), conv()),
               f"cumsum (cumsum): {SAID}; {REMEDY}", ALONE),
    "max pool dilation": (lambda: nn.Sequential(nn.MaxPool2d(2, 1, 1, 5)), "0 (max_pool2d): "
                          "its windows would be those of more than 16 pools; use dilation=1",
                          MAX_POOL),
    "max pool indices": (lambda: Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[1]),
                         "max_pool2d (max_pool2d_with_indices): its second result (the indices) is "
                         "used; use the pooled values only",
                         lambda: Function(lambda x: F.max_pool2d(x, 2, return_indices=True)[0])),
    **{f"average pool, {fields}": (
        lambda fields=fields: nn.Sequential(WIDE(), nn.AvgPool2d(5, **fields)), "1 (avg_pool2d): "
        "its windows differ in how many elements count, and of a layer with weights for each place "
        f"4,096 elements are made at most, not {rows}; use ceil_mode=False, and padding=0 or "
        "count_include_pad=True", lambda fields=fields: nn.Sequential(conv(), nn.AvgPool2d(
            5, **fields)))
       for fields, rows in (({"stride": 1, "padding": 2, "count_include_pad": False}, "4,608"),
                            ({"stride": 1, "padding": 2, "count_include_pad": False,
                              "ceil_mode": True}, "4,608"))},
    "mean of the batch": (
        lambda: Function(lambda x: x.mean((0, 2), keepdim=True)), "mean (mean): the mean over axes "
        "[0, 2] of shape (1, 4, 8, 8) is not supported; take the mean over channels, height and "
        "width, without a dtype", lambda: Function(lambda x: x.mean((1, 2), keepdim=True))),
    "largest of the batch": (lambda: Function(lambda x: x.amax((0, 3), True)), "amax (amax): the "
                             "maximum over axes [0, 3] of shape (1, 4, 8, 8) is not supported; "
                             "take the maximum over the axes (2, 3) of a map",
                             lambda: Function(lambda x: x.amax((1, 3), True))),
    "no statistics": (lambda: nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)), "0 "
                      "(batch_norm): it takes its statistics from the batch; export the model "
                      "after model.eval(), with track_running_stats=True",
                      lambda: nn.Sequential(nn.BatchNorm2d(4))),
    "double": (lambda: Function(lambda x: x.double()), "double (double): converts to "
               "torch.float64; keep the network in float32", ALONE),
    "a number among outputs": (
        lambda: Function(lambda x: {"y": F.relu(x), "classes": 3}), "classes (output): the model "
        "returns a value there that is no tensor; leave it out of what the model returns",
        lambda: Function(F.relu)),
    "a constant among outputs": (
        lambda: Function(lambda x: (F.relu(x), torch.ones(1, 3))), "1 (output): it does not depend "
        "on the input; return tensors that the network computes from its input",
        lambda: Function(F.relu)),
    "many outputs": (
        lambda: Function(lambda x: [F.relu(x) for _ in range(65)]), "output (output): the model "
        "returns 65 tensors, above 64; join some of them along axis 1 (torch.cat)",
        lambda: Function(lambda x: [F.relu(x) for _ in range(64)])),
    "large maps of two sizes": (
        lambda: Function(lambda x: [F.interpolate(x, scale_factor=6), F.relu(x)]),
        "0 (output): maps of several sizes are joined number by number, up to 4,096, and "
        "0, 1 have 9,472; return maps of one size (pool or enlarge some), or each from a network "
        "of its own", lambda: Function(lambda x: [F.relu(x), F.relu(x) * 0.5])),
    "nothing": (lambda: Function(lambda x: None), "output (output): the model returns no tensor; "
                "return a tensor that the network computes from its input",
                lambda: Function(F.relu)),
    "no output": (lambda: Function(lambda x: 3), "output (output): the model returns a value there "
                  "that is no tensor; leave it out of what the model returns",
                  lambda: Function(F.relu)),
    "empty": (lambda: Function(lambda x: F.linear(x.flatten(1), torch.zeros(0, 256))),
              "linear (linear): its result has the shape (1, 0); keep every tensor as (1, C, H, "
              "W), (1, C, L) or (1, F)", head),
    "ends the process": (lambda: Function(lambda x: sys.exit(3)), "model (torch.export): the model "
                         "cannot be exported (3); make its forward pass accept one float32 tensor "
                         "of the shape (1, 4, 8, 8), or give example_input (--input-shape, "
                         "--data) the shape that it takes", lambda: Function(F.relu)),
    "object": (lambda: Function(lambda x: Pair(F.relu(x), x)), "model (torch.export): the model "
               "returns a Pair, whose parts torch does not know; return a tuple or a dictionary, "
               "or call torch.export.register_dataclass with its class before",
               lambda: Function(lambda x: Known(F.relu(x), x))),
    "constant output": (lambda: Function(lambda x: torch.ones(1, 3)), "output (output): it does "
                        "not depend on the input; return tensors that the network computes from "
                        "its input", lambda: Function(F.relu)),
    "dynamic weight": (lambda: Function(lambda x: F.conv2d(x, x)), "conv2d (conv2d): its weight is "
                       "computed from the input; keep the weight a parameter of the layer", ALONE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_compile_is_named_and_the_advice_leads_out(name: str) -> None:
    model, message, mended = REFUSED[name]
    with pytest.raises(CompileError) as caught:
        compile_graph(model())
    text, source = str(caught.value), caught.value.source
    assert text == message + ("" if source is None else f" [{quoted(source)}]")
    if isinstance(model(), Function) and caught.value.operator != "output" and (
            caught.value.node != "model"):
        assert re.match(r"test_refusals\.py:\d+: return self\.function\(", source)
    compiles(mended)
    assert checked(model()) in ("it does not fit", text)


def checked(model: nn.Module) -> str:
    """Return what `celosia.check` says of a model; where nothing of it is known, its refusal."""
    try:
        report = celosia.check(model, np.zeros(SHAPE, np.float32), "icebreaker")
    except CompileError as refusal:
        return str(refusal)
    return "it fits" if report.fits else "it does not fit"


def test_what_may_be_done_to_a_large_input_is_advised() -> None:
    model = Function(lambda a, x: a(x.transpose(2, 3)), conv())
    with pytest.raises(CompileError, match=rf"^transpose \(transpose\): of a map .*; {INPUTS} "):
        compile_graph(model, (1, 4, 40, 40))
    compile_graph(conv(), (1, 4, 40, 40))


@functools.cache
def compiles(make) -> None:
    """Compile what a function returns; one function is enough for all that give its advice."""
    compile_graph(make())


OTHERS = {      # networks whose inputs have other shapes; the layer is named, not the shape
    "LSTM": (lambda: Function(lambda r, x: r(x)[0][:, -1], nn.LSTM(8, 16, batch_first=True)),
             torch.zeros(1, 10, 8), f"layers.0 (LSTM): {SAID}; {REMEDIES['lstm']}",
             lambda: nn.Linear(80, 16), (1, 80)),
    "attention": (lambda: Function(lambda a, x: a(x, x, x)[0],
                                   nn.MultiheadAttention(16, 2, batch_first=True)),
                  torch.zeros(1, 10, 16), f"layers.0 (MultiheadAttention): {SAID}; "
                  f"{REMEDIES['multiheadattention']}", lambda: nn.Linear(160, 160), (1, 160)),
    "Conv3d": (lambda: nn.Sequential(nn.Conv3d(3, 4, 3)), torch.zeros(1, 3, 4, 4, 4),
               f"0 (Conv3d): {SAID}; {REMEDIES['conv3d']}",
               lambda: nn.Sequential(nn.Conv2d(12, 4, 3)), (1, 12, 4, 4)),
    "Embedding": (lambda: nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(80, 4)),
                  torch.zeros(1, 10, dtype=torch.int64),
                  f"0 (Embedding): {SAID}; {REMEDIES['embedding']}",
                  lambda: nn.Sequential(nn.Linear(80, 4)), (1, 80)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_layers_for_other_inputs_are_named(name: str) -> None:
    model, example, message, mended, shape = OTHERS[name]
    with pytest.raises(CompileError) as caught:
        import_model(model(), example)
    assert str(caught.value).split(" [")[0] == message
    compile_graph(mended(), shape)


@pytest.mark.parametrize(("layer", "bounds"),
                         [(nn.ReLU6(), "0 ... 6"), (nn.Hardtanh(), "-1 ... 1")])
def test_an_array_without_a_clamp_names_the_layer_and_two_ways_out(layer, bounds) -> None:
    example = torch.zeros(SHAPE)
    plain = replace(target("upduino").array, clamp=False)
    with carrying(plain, "plain", "upduino"):
        with pytest.raises(FitError) as caught:
            celosia.compile(head(conv(), layer), example, target="plain")
        assert str(caught.value) == (f"0 (clamp): a clamp to {bounds} follows it, and the array "
                                     "has ReLU only; compile it for icebreaker")
        assert celosia.compile(head(conv(), nn.ReLU()), example, target="plain").layers
    assert celosia.compile(head(conv(), layer), example, target="icebreaker").layers


def test_the_line_of_a_program_of_another_machine_is_shown_harmlessly(tmp_path) -> None:
    """Names and lines come from the file: they may hold what a terminal obeys."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(REFUSED["cumsum"][0](), (torch.zeros(SHAPE),))
    for node in program.graph.nodes:
        if "cumsum" in str(node.target):
            node.meta["stack_trace"] = 'File "C:\\nets\\\x1b[2Jnet.py", line 7, in forward\n    y'
    with pytest.raises(CompileError) as caught:
        compile_graph(program)
    assert str(caught.value).endswith(r"[\x1b[2Jnet.py:7: y]")


def test_a_branch_on_data_is_said_in_words(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(CompileError, match="a branch depends on the values of a tensor; "):
        compile_graph(Function(lambda x: x if x.sum() > 0 else -x))
    assert capfd.readouterr() == ("", "")


def test_an_error_of_the_models_own_code_names_its_line() -> None:
    with pytest.raises(CompileError, match="to broadcast a dimension of length 7 at") as caught:
        compile_graph(Function(lambda x: x + torch.ones(7)))
    assert caught.value.source.startswith("test_refusals.py:")


def test_torchscript_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(conv(), torch.zeros(SHAPE))
    with pytest.raises(ArgumentError, match="^model is a TorchScript module, .*; give the torch"):
        compile_graph(traced)


def test_parameters_without_values_are_refused() -> None:
    with pytest.raises(CompileError, match=r"^0\.weight \(parameter\): it has no values, only a"):
        compile_graph(nn.Sequential(nn.Linear(4, 2, device="meta")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(CompileError, match=r"^0\.weight \(parameter\): it has no shape and no "):
        compile_graph(lazy)
