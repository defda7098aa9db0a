"""Fills that stand before a band's first batch: as many as pay."""

import numpy as np
import pytest
import torch
from torch import nn

from celosia.bands import layer_stream, turns
from celosia.bands.counting import RECORD
from celosia.bands.schedule import stream_schedule
from celosia.compiler import Compiler
from celosia.quantise import quantise
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import HEAD
from celosia_spec.isa.fills import QUEUED

FIELDS = len(HEAD.words)


@pytest.mark.parametrize(("takes", "passes", "groups", "before"), [
    ([100], [10], 1, 1),                    # done in RECORD + 100, not in FIELDS + RECORD + 100
    ([100], [100 + FIELDS], 1, 0),          # the batch is what takes long
    ([100, 100], [10], 1, 1),               # the second waits for the first, told early or late
    ([1, 100], [10], 1, 2),                 # it waits for what is told before it
    ([RECORD + FIELDS, 100], [10], 2, 2),
    ([RECORD + 2 * FIELDS, 100], [10], 2, 1),
    ([1] * (QUEUED - 1) + [100], [10], 1, QUEUED),
    ([1] * QUEUED + [100], [10], 1, 0),     # no room for the last, and the others do not matter
    ([100], [], 1, 0),
])
def test_as_many_as_end_soonest(takes, passes, groups, before, monkeypatch):
    """Worked out by hand: what each fill takes, and each batch; the layer's groups."""
    monkeypatch.setattr(turns, "cycles", lambda taken, array: taken)
    assert turns.ahead(takes, passes, groups, Array()) == before


@pytest.mark.parametrize(("channels", "kept", "found"), [(64, 0.05, 1), (16, 0.1, 0)])
def test_a_pruned_pointwise_layer_takes_fewest_cycles(channels, kept, found, monkeypatch):
    """Of many channels the fill takes longer than the batches, of few it does not."""
    rng = np.random.default_rng(0)
    layer = nn.Conv2d(channels, 16, 1)
    weights = rng.standard_normal(layer.weight.shape) * (rng.random(layer.weight.shape) < kept)
    layer.weight.data = torch.tensor(weights, dtype=torch.float32)
    graph = quantise(Compiler().graph(layer, (1, channels, 14, 14)), acc_bits=24)
    array = Array(main_words=1 << 14, bank_rows=128)
    chosen = stream_schedule(graph, array).predicted_cycles
    taken = []
    for count in (0, 1):
        monkeypatch.setattr(layer_stream, "ahead", lambda *_, count=count: count)
        taken.append(stream_schedule(graph, array).predicted_cycles)
    assert chosen == min(taken) == taken[found] < max(taken)
