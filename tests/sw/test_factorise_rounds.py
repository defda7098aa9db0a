"""Factorised networks over rounds: fine-tuning, seeds, resuming, refusals."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

import celosia
from celosia.compress import FineTune
from celosia.compress.lowrank.factorise import FactoriseRound, factorise
from celosia.models import LeNet5, load_lenet5
from low_rank_task import EXAMPLE, Net, task


def state(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in model.state_dict().items()}


def equal(first: dict, second: dict) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first)


# Rounds, seeds, resuming


def tuner(epochs: int = 2) -> FineTune:
    inputs, labels = task()
    return FineTune(inputs=inputs, labels=labels, epochs=epochs, batch_size=8, seed=5)


@pytest.mark.parametrize("method", ["svd", "tucker"])
def test_finetuning_keeps_the_structure_and_learns(method):
    inputs, labels = task()
    model = Net().eval()
    settings = {"ranks": {"body.0": 3}} | ({} if method == "svd" else {"ranks": {"body.0": (3, 4)}})
    alone = copy.deepcopy(model)
    factorise(alone, EXAMPLE, method, **settings)
    factorise(model, EXAMPLE, method, **settings, finetune=tuner(40))
    with torch.no_grad():
        loss = [float(nn.functional.cross_entropy(net(inputs), labels)) for net in (alone, model)]
    assert loss[1] < 0.5 * loss[0]
    assert not model.training
    assert [part.weight.shape for part in model.body[0]] == [
        part.weight.shape for part in alone.body[0]]
    kernel = model.body[0][-1].weight[:, :, 0, 0].detach()
    assert torch.linalg.matrix_rank(kernel) == 3
    assert not torch.equal(kernel, alone.body[0][-1].weight[:, :, 0, 0])


def test_ranks_fall_over_the_rounds_and_start_from_the_product():
    seen = []
    model = Net().double().eval()
    x = task()[0].double()
    report = factorise(model, EXAMPLE.double(), "svd", ranks={"body.0": 5, "last": 1}, rounds=3,
                       progress=seen.append, measure=lambda net: {"accuracy": 0.5})
    assert tuple(seen) == report.rounds
    # The largest ranks that save weights are 14 of body.0 and 4 of last.
    assert [record.ranks["body.0"] for record in seen] == [(11,), (8,), (5,)]
    assert [record.ranks["last"] for record in seen] == [(3,), (2,), (1,)]
    assert [record.accuracy for record in seen] == [0.5] * 3
    assert sorted((record.macs for record in seen), reverse=True) == [r.macs for r in seen]
    # Without training between, falling ranks end where one step does.
    once = Net().double().eval()
    factorise(once, EXAMPLE.double(), "svd", ranks={"body.0": 5, "last": 1})
    torch.testing.assert_close(model(x), once(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("method", "scheme"), [("svd", "spatial"), ("tucker", "channel")])
def test_products_of_other_structures_are_rebuilt(method, scheme):
    x = task()[0].double()
    kernel = torch.einsum("op,pqyx,iq->oiyx", torch.randn(16, 3), torch.randn(3, 3, 3, 3),
                          torch.randn(16, 3)).double()
    models = []
    for rounds in (1, 3):
        model = Net().double().eval()
        with torch.no_grad():
            model.body[0].weight.copy_(kernel)
        factorise(model, EXAMPLE.double(), method, ranks={"body.0": 9 if method == "svd" else 3},
                  scheme=scheme, rounds=rounds, minimum=1)
        models.append(model(x))
    torch.testing.assert_close(*models, rtol=1e-9, atol=1e-9)


class StopError(Exception):
    pass


def run(folder, stop=None, seed=0):
    """Factorise with noisy fine-tuning; stop before or after the training of a round."""
    model, tune = Net().eval(), tuner()

    def finetune(net: nn.Module, index: int) -> None:
        if stop == (index, "before"):
            raise StopError
        tune(net, index)
        with torch.no_grad():
            net.first.bias.add_(torch.randn(16))
        if stop == (index, "after"):
            raise StopError

    def measured(net: nn.Module) -> dict[str, float]:
        return {"accuracy": float(net(task()[0]).detach().mean())}

    report = factorise(model, EXAMPLE, "svd", rule="energy", value=0.5, layers=["body.0", "last"],
                       rounds=3, finetune=finetune, checkpoint=folder, seed=seed, measure=measured)
    return model, report


@pytest.mark.parametrize("stop", [(index, when) for index in range(3)
                                  for when in ("before", "after")])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, stop):
    whole, wanted = run(None)
    with pytest.raises(StopError):
        run(tmp_path, stop)
    resumed, report = run(tmp_path)
    assert equal(state(whole), state(resumed))
    assert report.rounds == wanted.rounds
    assert report.layers == wanted.layers
    assert report.choices == wanted.choices
    again, _ = run(tmp_path)
    assert equal(state(whole), state(again))


def test_a_resumed_run_does_not_measure_its_curves_again(tmp_path):
    calls = []

    def evaluate(model: nn.Module) -> float:
        calls.append(model)
        return 1.0

    def run_once(fail: bool) -> dict:
        model = Net()

        def finetune(net: nn.Module, index: int) -> None:
            if fail:
                raise StopError

        report = factorise(model, EXAMPLE, "svd", rule="curve", evaluate=evaluate,
                           accuracy_budget=0.1, finetune=finetune, checkpoint=tmp_path)
        return report.choices["curves"]

    with pytest.raises(StopError):
        run_once(True)
    count = len(calls)
    assert count > 8
    assert len(run_once(False)) == 3
    assert len(calls) == count


def test_seed_decides_and_the_generator_is_put_back(tmp_path):
    torch.manual_seed(9)
    before = torch.get_rng_state()
    first, _ = run(None)
    other, _ = run(None, seed=1)
    torch.manual_seed(9)
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(state(first), state(other))
    run(tmp_path)
    with pytest.raises(ValueError, match="seed was 0, is 1"):
        run(tmp_path, seed=1)


def test_records_survive_json():
    record = factorise(Net(), EXAMPLE, "tucker", ranks={"body.0": (3, 4)}).rounds[0]
    assert FactoriseRound.from_json(json.loads(json.dumps(record.as_json()))) == record


# Refusals


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("cp", {"rule": "evbmf"}, "method must be one of svd, tucker, not 'cp'"),
        ("svd", {"rule": "evbmf", "scheme": "rows"}, "scheme must be one of"),
        ("svd", {}, "give ranks, or else a rule, a budget"),
        ("svd", {"ranks": {"first": 1}, "rule": "evbmf"}, "give ranks, or else a rule"),
        ("svd", {"ranks": {}}, "no layer is left that method 'svd' can decompose"),
        ("svd", {"ranks": {"second": 1}}, "no layer is called 'second'; layers: 'first', "),
        ("svd", {"ranks": {"first": 17}}, "layer 'first': .*from 1 to 16, not 17"),
        ("svd", {"ranks": {"first": (2, 2)}}, r"SVD takes one rank, not \(2, 2\)"),
        ("tucker", {"ranks": {"first": (2, 4)}}, r"layer 'first': .*not \(2, 4\)"),
        ("tucker", {"ranks": {"last": 2}}, "no decomposition for layer 'last', Linear"),
        ("svd", {"rule": "guess"}, "rule must be one of"),
        ("svd", {"rule": "energy"}, "rule 'energy' wants a value, the share of energy"),
        ("svd", {"rule": "speedup"}, "rule 'speedup' wants a value, the speed-up"),
        ("svd", {"rule": "energy", "value": 2}, "share of energy must be above 0"),
        ("tucker", {"rule": "speedup", "value": 0}, "speed-up must be above 0"),
        ("svd", {"rule": "evbmf", "weakening": 2}, "weakening must be from 0"),
        ("svd", {"rule": "evbmf", "minimum": 0}, "minimum rank must be at least 1"),
        ("svd", {"rule": "evbmf", "rounds": 0}, "rounds must be at least 1, not 0"),
        ("svd", {"rule": "curve", "accuracy_budget": 0.1}, "rule 'curve' needs evaluate="),
        ("svd", {"rule": "curve", "evaluate": len}, "rule 'curve' needs evaluate="),
        ("svd", {"rule": "evbmf", "evaluate": len}, "evaluate and accuracy_budget go with"),
        ("svd", {"macs_removed": 0.5, "parameters_removed": 0.5}, "not both"),
        ("svd", {"macs_removed": 1.0}, "share of macs to remove must be above 0 and below 1"),
    ],
)
def test_refusals_leave_the_model_alone(method, settings, message):
    model = Net()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        factorise(model, EXAMPLE, method, **settings)
    assert equal(before, state(model))


def test_a_single_layer_is_refused():
    with pytest.raises(ValueError, match="give that layer to svd or tucker2"):
        factorise(nn.Conv2d(3, 4, 3), EXAMPLE, "svd", rule="evbmf")


# Compiling


@pytest.mark.parametrize(("method", "scheme"),
                         [("svd", "channel"), ("svd", "spatial"), ("tucker", "channel")])
def test_a_factorised_lenet5_compiles_and_runs(method, scheme):
    model = load_lenet5(pruned=True)
    example = np.zeros((1, 1, 28, 28), np.float32)
    ranks = {"conv2": (10, 5)} if method == "tucker" else {"conv2": 10, "fc1": 40, "fc2": 30}
    report = factorise(model, example, method, ranks=ranks, scheme=scheme)
    assert all(row.kept < row.weights for row in report.layers.values())
    program = celosia.compile(model, example, target="ulx3s-85f")
    assert len(program.layers) == len(list(LeNet5().children())) + (
        2 if method == "tucker" else len(ranks))
    assert sum(layer.macs for layer in program.layers) <= report.macs
    x = np.random.default_rng(0).random((30, 1, 28, 28), np.float32)
    found = celosia.run(program, x)
    with torch.no_grad():
        wanted = model(torch.from_numpy(x)).numpy()
    noise = found.values - wanted
    assert 10 * np.log10((wanted**2).sum() / (noise**2).sum()) > 24
