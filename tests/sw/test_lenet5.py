"""The LeNet-5 checkpoints that come with the package, and the script that prunes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from celosia.datasets import preprocess, shipped_test_images
from celosia.evaluate import accuracy
from celosia.models import lenet5_metadata, load_lenet5


def weights(model: nn.Module) -> list[np.ndarray]:
    return [layer.weight.detach().numpy() for layer in model.children()]


@pytest.mark.parametrize("pruned", [False, True])
def test_shipped_network_is_as_good_as_recorded(pruned):
    images, labels = shipped_test_images()
    with torch.no_grad():
        score = accuracy(load_lenet5(pruned)(torch.from_numpy(preprocess(images))), labels)
    recorded = lenet5_metadata(pruned)
    assert recorded["test_images"] == "10000"
    assert float(recorded["accuracy"]) >= 0.90
    assert score == pytest.approx(float(recorded["accuracy"]), abs=0.02)


def test_shipped_pruned_network_is_sparse_and_close_to_the_dense_one():
    layers = weights(load_lenet5(pruned=True))
    kept = sum(np.count_nonzero(weight) for weight in layers)
    total = sum(weight.size for weight in layers)
    assert total == 44_190
    assert kept / total <= 0.20
    assert float(lenet5_metadata(True)["density"]) == pytest.approx(kept / total, abs=1e-4)
    loss = float(lenet5_metadata(False)["accuracy"]) - float(lenet5_metadata(True)["accuracy"])
    assert loss <= 0.010


def test_quick_example_prunes_the_shipped_network(tmp_path):
    root = Path(__file__).parents[2]
    output = tmp_path / "quick.safetensors"
    command = [sys.executable, root / "examples/lenet5/prune.py", "--quick", "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "density of all weights: 15.44%" in done.stdout
    tensors = load_file(output)
    dense = load_lenet5().state_dict()
    kept = {name: int(tensors[name].count_nonzero()) for name in tensors if "weight" in name}
    assert list(kept.values()) == [90, 960, 3379, 2016, 378]
    for name, tensor in tensors.items():
        assert torch.equal(tensor, torch.where(tensor == 0, 0, dense[name]))


def test_a_missing_checkpoint_says_how_to_make_it(monkeypatch, tmp_path):
    from celosia.models import lenet5

    monkeypatch.setattr(lenet5, "_DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"examples/lenet5/prune\.py --output"):
        load_lenet5(pruned=True)
