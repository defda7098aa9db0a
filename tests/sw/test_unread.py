"""Weights that nothing reads: found by hand, gone without a change of the outputs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.masks.weights import apply_mask, current_mask
from celosia.models import LeNet5, ResNet
from tolerance import operations, rounding


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(),
                         nn.Linear(5, 3)).eval()


def mask_columns(layer: nn.Module, *columns: int) -> None:
    kept = current_mask(layer)
    kept[:, list(columns)] = False
    apply_mask(layer, kept)


def test_what_only_an_unread_neuron_reads_goes_too():
    model, x = chain(), torch.randn(20, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    mask_columns(model[9], 0, 1)            # nothing reads neurons 0 and 1 of layer 7
    kept = current_mask(model[7])
    kept[2:, 3] = False                     # neuron 3 of layer 5 is read by those two only
    apply_mask(model[7], kept)
    mask_columns(model[5], *range(8, 12))   # nothing reads channel 2 of the convolution
    before = model(x).detach()
    lost = compress.drop_unread(model, x[:1])
    assert torch.equal(model(x), before)
    assert lost == {"0": 9, "5": 12, "7": 2 * 6, "9": 0}
    assert not current_mask(model[0])[2].any() and current_mask(model[0])[[0, 1, 3]].all()
    assert not current_mask(model[5])[3].any()
    assert not current_mask(model[7])[:2].any()
    assert compress.drop_unread(model, x[:1]) == {"0": 0, "5": 0, "7": 0, "9": 0}


@pytest.mark.parametrize(("make", "shape"), [
    (LeNet5, (1, 28, 28)), (lambda: ResNet(8, "B"), (3, 32, 32)),
    (lambda: ResNet(8, "A"), (3, 32, 32))])
def test_outputs_stay_whatever_the_input(make, shape):
    torch.manual_seed(2)
    model, x = make().eval().double(), torch.randn(4, *shape).double()
    compress.prune(model, "ae-lip", inputs=torch.rand(64, *shape).double(), rates=0.93)
    before = model(x).detach()
    lost = compress.drop_unread(model, x[:1])
    assert sum(lost.values()) > 0
    torch.testing.assert_close(model(x).detach(), before, rtol=0,
                               atol=rounding(operations(model)) * float(before.abs().max()))


def test_a_whole_network_loses_nothing_and_gets_no_mask():
    model = chain()
    assert sum(compress.drop_unread(model, torch.zeros(1, 1, 6, 6)).values()) == 0
    assert "parametrizations" not in "".join(model.state_dict())


def test_a_layer_that_no_output_depends_on_is_named():
    model = chain()
    model[9] = nn.Linear(5, 3)
    apply_mask(model[9], torch.zeros(3, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="no output depends on layer '0'"):
        compress.drop_unread(model, torch.zeros(1, 1, 6, 6))


def padded(*end: nn.Module) -> nn.Sequential:
    """Padded convolutions on maps of 4 x 4 and 2 x 2, the last pooled to one position."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4),
        *end).eval()


@pytest.mark.parametrize("end", [(), (nn.Softmax(1),), (nn.LogSoftmax(1),)])
@pytest.mark.parametrize("seed", range(4))
def test_single_taps_under_padding_and_a_softmax_hide_no_path(end, seed):
    model, generator = padded(*end).double(), torch.Generator().manual_seed(seed)
    for index in (3, 7):
        apply_mask(model[index], torch.rand(model[index].weight.shape, generator=generator) < 0.1)
    x = torch.randn(50, 1, 4, 4, generator=generator).double()
    before = model(x).detach()
    mask = current_mask(model[9])
    lost = compress.drop_unread(model, x[:1])
    torch.testing.assert_close(model(x).detach(), before, rtol=0,
                               atol=rounding(operations(model)) * float(before.abs().max()))
    read = [bool(current_mask(model[3])[:, channel].any()) for channel in range(8)]
    assert [bool(current_mask(model[0])[channel].any()) for channel in range(8)] == read
    assert torch.equal(current_mask(model[9]), mask) and lost["9"] == 0
