"""Slopes of LeakyReLU that a row of few bits does not hold are told."""

import pytest
import torch
from torch import nn

import celosia


@pytest.mark.parametrize(("slope", "bits", "told"), [
    (0.01, 8, "becomes 0.00781 with 8-bit"), (0.01, 6, "becomes 0 with 6-bit"), (0.125, 4, ""),
    (0.1, 8, "")])
def test_a_slope_that_becomes_another_is_told(slope: float, bits: int, told: str) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LeakyReLU(slope), nn.Conv2d(4, 2, 3)).eval()
    program = celosia.compile(network, (1, 1, 8, 8), weight_bits=bits)
    found = [remark for remark in program.remarks if "slope" in remark]
    assert len(found) == bool(told)
    assert all(remark.startswith("1: its slope") and told in remark for remark in found)


def test_the_worst_of_several_slopes_is_told() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.PReLU(4), nn.Conv2d(4, 2, 3)).eval()
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([0.25, 0.003, 0.5, 0.125]))
    (told,) = celosia.compile(network, (1, 1, 8, 8)).remarks
    assert told.startswith("1: its slope 0.003 becomes 0 with 8-bit weights")
