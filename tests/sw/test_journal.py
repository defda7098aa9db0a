"""Runs that are stopped and go on: at every point of a round, with the bits of an unbroken run.

Run as a script it does such runs, each ended hard at a point, in copies of a process that has
imported all they need.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from celosia import compress
from celosia.compress.masks.weights import current_mask
from celosia.compress.training import journal as journal_file
from celosia.compress.training.journal import INDEX, Journal, describe, fingerprint
from celosia.compress.training.rounds import run_rounds
from celosia.compress.weights import prune as pruning
from celosia_spec.errors import ArgumentError
from celosia_spec.files import replacing

ROUNDS = 3
STATUS = 77
"""Exit status of a process that ended where it was told to."""

POINTS = ("before choosing", "masked", "fine-tuning", "measuring", "half a tensor file",
          "tensor file unnamed", "tensor file written", "half an index", "index unnamed",
          "old tensor file still there", "finished")


def make_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2),
                             nn.Flatten(), nn.Linear(64, 5))


def make_task() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(40, 1, 6, 6, generator=generator),
            torch.randint(0, 5, (40,), generator=generator))


def do_run(folder: Path | None, end=lambda point, round: None) -> tuple[nn.Module, object]:
    """Prune in three rounds; `end` is called at the points of a round."""
    inputs, labels = make_task()
    train = compress.FineTune(
        inputs=inputs, labels=labels, epochs=2, batch_size=8, learning_rate=0.01,
        augment=compress.flip_and_shift,
        on_epoch=lambda round, epoch, loss: end("fine-tuning", round) if epoch == 0 else None)
    done = []

    def finetune(model: nn.Module, round: int) -> None:
        done.append(round)
        end("masked", round)
        train(model, round)

    def measure(model: nn.Module) -> dict[str, float]:
        end("measuring", done[-1])
        return {"accuracy": float(model[5].weight.detach().sum())}

    model = make_net()
    report = compress.prune(
        model, "magnitude", rates={"0": 0.3, "5": 0.7}, rounds=ROUNDS, finetune=finetune,
        checkpoint=folder, measure=measure, progress=lambda record: end("finished", record.round))
    return model, report


def end_hard(wanted: str, wanted_round: int):
    """Return a function that ends the process at a point, and hook the points in the journal."""
    def end(point: str, round: int) -> None:
        if (point, round) == (wanted, wanted_round):
            os._exit(STATUS)

    choose, write, clean = pruning._Chooser.__call__, journal_file._write, Journal._clean

    def choosing(self, model, index):
        end("before choosing", index)
        return choose(self, model, index)

    def writing(path: Path, content: bytes) -> None:
        is_index = path.name == INDEX
        round = len(json.loads(content)["rounds"]) - 1 if is_index else int(path.stem[6:]) - 1
        what = "index" if is_index else "tensor file"
        half = (wanted, wanted_round) == (f"half {'an' if is_index else 'a'} {what}", round)
        if half or (wanted, wanted_round) == (f"{what} unnamed", round):
            with replacing(path) as file:
                file.write(content[:len(content) // 2] if half else content)
                file.flush()
                os._exit(STATUS)
        write(path, content)
        end(f"{what} written", round)

    def cleaning(self, folder) -> None:
        end("old tensor file still there", len(self.records) - 1)
        clean(self, folder)

    pruning._Chooser.__call__ = choosing
    journal_file._write = writing
    Journal._clean = cleaning
    return end


def content(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def unbroken() -> tuple[dict[str, bytes], object]:
    model, report = do_run(None)
    return content(model), report


@pytest.fixture(scope="module")
def run_until() -> Iterator[Callable[[Path, str, int], None]]:
    """A function that does a run in a process which ends hard at a point of a round."""
    with subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}) as server:

        def until(folder: Path, point: str, round: int) -> None:
            print(json.dumps([str(folder), point, round]), file=server.stdin, flush=True)
            assert int(server.stdout.readline()) == STATUS

        yield until
        server.stdin.close()


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, unbroken, run_until, point):
    run_until(tmp_path / "run", point, 1)
    torch.manual_seed(99)
    model, report = do_run(tmp_path / "run")
    assert content(model) == unbroken[0]
    assert report.rounds == unbroken[1].rounds
    assert report.choices == unbroken[1].choices
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        f"round-000{ROUNDS}.safetensors", INDEX]


def test_a_run_killed_in_every_round_goes_on_with_the_same_bits(tmp_path, unbroken, run_until):
    for round, point in enumerate(("half a tensor file", "fine-tuning", "index unnamed")):
        run_until(tmp_path, point, round)
    model, report = do_run(tmp_path)
    assert content(model) == unbroken[0]
    assert report.rounds == unbroken[1].rounds


def test_the_run_itself_removes_weights_and_trains(unbroken):
    model = make_net()
    assert unbroken[0].keys() != content(model).keys(), "masks must be in the state"
    assert unbroken[0]["1.running_mean"] != content(model)["1.running_mean"]
    assert unbroken[1].density == pytest.approx((25 + 96) / 356)
    assert len({record.accuracy for record in unbroken[1].rounds}) == ROUNDS


def test_a_finished_run_is_only_read(tmp_path, unbroken):
    do_run(tmp_path)

    def refuse(point: str, round: int) -> None:
        raise AssertionError(f"{point} in round {round}")

    model, report = do_run(tmp_path, refuse)
    assert content(model) == unbroken[0]
    assert report.rounds == unbroken[1].rounds


def prune_into(folder: Path, **changes):
    settings = {"rates": 0.5, "rounds": 2, "checkpoint": folder} | changes
    model = settings.pop("model", None) or make_net()
    return compress.prune(model, "magnitude", **settings)


@pytest.mark.parametrize(("changes", "message"), [
    ({"rates": {"0": 0.5, "5": 0.6}}, r"rates\.5 was 0\.5, is 0\.6; give another folder, or del"),
    ({"rounds": 3}, "rounds was 2, is 3"),
    ({"schedule": "linear"}, 'schedule was "cubic", is "linear"'),
    ({"seed": 4}, "seed was 0, is 4"),
    ({"finetune": lambda model, round: None}, "finetune was null, is "),
    ({"inputs": np.zeros((2, 1, 6, 6))}, 'start was "'),
    ({"model": nn.Sequential(nn.Conv2d(1, 4, 3), *make_net()[1:])}, 'start was "'),
])  # fmt: skip
def test_a_folder_of_another_run_is_refused_and_stays(tmp_path, changes, message):
    prune_into(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ArgumentError, match=message):
        prune_into(tmp_path, **changes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert prune_into(tmp_path).density == pytest.approx(0.5)


@pytest.mark.parametrize("damage", ["index", "foreign index", "changed index", "tensors",
                                    "no tensors"])
def test_a_damaged_folder_is_refused(tmp_path, damage):
    prune_into(tmp_path)
    tensors = tmp_path / "round-0002.safetensors"
    if damage == "index":
        (tmp_path / INDEX).write_text((tmp_path / INDEX).read_text()[:-10])
    elif damage == "foreign index":
        (tmp_path / INDEX).write_text('{"rounds": 3}')
    elif damage == "changed index":
        text = (tmp_path / INDEX).read_text()
        assert '"seconds": ' in text
        (tmp_path / INDEX).write_text(text.replace('"seconds": ', '"seconds": 1'))
    elif damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x7f")
    else:
        tensors.unlink()
    with pytest.raises(ArgumentError, match=r"give another folder, or delete .* to start anew"):
        prune_into(tmp_path)


@pytest.mark.parametrize("change", [
    {"rounds": [1]}, {"rounds": {}}, {"notes": []}, {"tensors": {"file": "/etc/passwd"}},
    {"tensors": {"file": "../round-0001.safetensors", "sha256": ""}}, {"more": 1},
])
def test_an_index_that_no_journal_wrote_is_refused(tmp_path, change):
    Journal(tmp_path, {}).finish({"round": 0}, {"w": torch.ones(2)})
    content = json.loads((tmp_path / INDEX).read_text()) | change
    content.pop("sha256")
    content["sha256"] = journal_file._digest(content)
    (tmp_path / INDEX).write_text(json.dumps(content))
    with pytest.raises(ArgumentError, match=r"run\.json: not written by this version; give"):
        Journal(tmp_path, {})


# The journal by itself


def test_without_a_folder_records_stay_in_memory():
    journal = Journal(None, {"anything": object()})
    journal.finish({"round": 0}, {"w": torch.ones(2)})
    journal.note("found", 3)
    assert journal.records == [{"round": 0}]
    assert journal.notes == {"found": 3}
    assert journal.restore() is None


def test_tensors_come_back_bit_for_bit(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "b": shared.T, "nan": torch.tensor([float("nan"), -0.0]),
               "half": torch.ones(3, dtype=torch.bfloat16), "count": torch.tensor(7),
               "kept": torch.tensor([True, False])}
    Journal(tmp_path, {"a": (1, 2)}).finish({}, tensors)
    again = Journal(tmp_path, {"a": [1, 2]}).restore()
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        assert fingerprint(nn.Module(), again[name]) == fingerprint(nn.Module(), tensor)


def test_what_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="choices of a run that is kept must be what JSON"):
        Journal(tmp_path, {"rate": float("nan")})
    with pytest.raises(ArgumentError, match="must be what JSON can hold"):
        Journal(tmp_path, {}).finish({"value": object()}, {})
    assert Journal(tmp_path, {}).records == []


def test_fingerprints_tell_apart():
    model = make_net()
    base = fingerprint(model, np.zeros(4, np.float32))
    assert base == fingerprint(make_net(), torch.zeros(4))
    others = [fingerprint(model), fingerprint(model, None), fingerprint(model, np.zeros(4)),
              fingerprint(model, np.zeros((2, 2), np.float32))]
    with torch.no_grad():
        model[1].running_mean[0] += 1e-7
    others.append(fingerprint(model, np.zeros(4, np.float32)))
    assert len({base, *others}) == 6


def test_settings_are_described():
    tune = compress.FineTune(inputs=torch.zeros(2, 3), labels=torch.zeros(2).long(),
                             epochs=(1, 2), teacher=make_net(), on_epoch=print)
    told = describe(tune)
    assert told["epochs"] == [1, 2]
    assert told["inputs"].startswith("array [2, 3] sha256:")
    assert told["teacher"].startswith("Sequential sha256:")
    assert "on_epoch" not in told
    assert describe({"a": {3, 1}, "b": np.float64(0.5), "c": make_net}) == {
        "a": [1, 3], "b": 0.5, "c": "make_net"}
    json.dumps(told, allow_nan=False)


# The engine by itself


def test_masks_never_grow_and_modes_come_back():
    model = make_net().eval()
    first = np.arange(320).reshape(5, 64) % 2 == 0
    masks = [first, np.ones((5, 64), bool), ~first | (np.arange(64) < 32)]

    def finetune(model: nn.Module, round: int) -> None:
        model.train()
        model[5].requires_grad_(True)

    seen = []
    records = run_rounds(model, 3, lambda model, index: {"5": masks[index]}, finetune=finetune,
                         measure=lambda model: {"predicted_cycles": 12}, progress=seen.append)
    assert [record.layers["5"].kept for record in records] == [160, 160, 80]
    assert records == tuple(seen)
    assert records[0].predicted_cycles == 12
    assert records[0].accuracy is None
    assert not any(module.training for module in model.modules())
    assert current_mask(model[0]).all() and not hasattr(model[0], "parametrizations")
    np.testing.assert_array_equal(current_mask(model[5]).numpy(), first & masks[2])


@pytest.mark.parametrize(("masks", "message"), [
    ({"conv": np.ones(3, bool)}, "layer 'conv', which is not among the prunable layers '0', '5'"),
    ({"5": np.ones((5, 64))}, r"layer '5' must be bool of shape \(5, 64\), not float64"),
    ({"5": np.ones((64, 5), bool)}, r"not bool \(64, 5\)"),
    ({"5": np.zeros((5, 64), bool)}, "leave layer '5' without a weight"),
])  # fmt: skip
def test_wrong_masks_are_refused_before_any_is_set(masks, message):
    model = make_net()
    good = {"0": np.arange(36).reshape(4, 1, 3, 3) > 3}
    with pytest.raises(ArgumentError, match=message):
        run_rounds(model, 1, lambda model, index: good | masks)
    assert current_mask(model[0]).all()


def test_a_network_with_channels_last_goes_on_the_same_way(tmp_path):
    def run(folder: Path | None, stop: int | None = None) -> nn.Module:
        def progress(record) -> None:
            if record.round == stop:
                raise KeyboardInterrupt

        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(),
                              nn.Linear(32, 5)).to(memory_format=torch.channels_last)
        inputs = torch.randn(64, 8, 6, 6).to(memory_format=torch.channels_last)
        train = compress.FineTune(inputs=inputs, labels=torch.arange(64) % 5, batch_size=16)
        compress.prune(model, "magnitude", rates=0.6, rounds=3, finetune=train, checkpoint=folder,
                       progress=progress)
        return model

    unbroken = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, stop=0)
    model = run(tmp_path)
    assert content(model) == content(unbroken)
    for at in (0, 2):
        assert model[at].weight.stride() == unbroken[at].weight.stride()
        assert current_mask(model[at]).stride() == current_mask(unbroken[at]).stride()


def test_no_rounds_are_refused():
    with pytest.raises(ArgumentError, match="rounds must be at least 1, not 0"):
        run_rounds(make_net(), 0, lambda model, index: {})


def serve() -> None:
    """Do a run in a process of its own for each line of stdin; print the status it ended with."""
    importlib.import_module("torch._dynamo")    # which a training step imports
    torch.set_num_threads(1)
    for line in sys.stdin:
        folder, point, round = json.loads(line)
        child = os.fork()
        if child == 0:
            do_run(Path(folder), end_hard(point, round))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
