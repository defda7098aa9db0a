"""``celosia prune``."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from celosia import api
from celosia.cli import common
from celosia.errors import CelosiaError
from celosia.files import replacing

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False, kw_only=True)
class _Data:
    """Network inputs float32 (N, ...) and labels int64 (N,); training and test."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def prune(
    model: common.ModelName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The pruned model, a .pt2 file.")],
    method: Annotated[str, typer.Option(help="What makes a weight important.")] = "magnitude",
    rate: Annotated[float, typer.Option(help="Share of each layer's weights to remove.")] = 0.8,
    data: Annotated[str | None, typer.Option(
        help="fashion-mnist, or a .npz file with train_images, train_labels, test_images and "
             "test_labels; without it nothing is retrained or measured.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="5 with data, else 1.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of retraining after each round.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    seed: int = 0,
    target: Annotated[str, typer.Option(help="Whose cycles to predict.")] = "icebreaker",
    json: common.Json = False,
) -> None:
    """Remove a model's least important weights, retraining between the rounds."""
    import torch

    from celosia import compress

    module, example = common.find_model(model)
    if not isinstance(module, torch.nn.Module):
        raise CelosiaError(f"{model}: an exported program has no layers left to prune; name the "
                           f"function that makes the module, package.module:function")
    loaded = None if data is None else _load(data)
    example = common.example_input(model, example, None if loaded is None else loaded.test_images)
    with api.refusals(), common.progress("pruning") as report:
        pruned = compress.prune(
            module, method, inputs=None if loaded is None else loaded.train_images[:1000],
            rates=rate, rounds=rounds, seed=seed, progress=_rounds(report),
            finetune=None if loaded is None else compress.FineTune(
                inputs=torch.from_numpy(loaded.train_images),
                labels=torch.from_numpy(loaded.train_labels),
                epochs=epochs, learning_rate=learning_rate, seed=seed))
        compress.make_permanent(module)
    _save(module, example, output)
    result = {"method": method, "rate": rate, "output": str(output), "density": pruned.density,
              "rounds": len(pruned.rounds),
              "parameters": int(sum(np.count_nonzero(p.detach().numpy())
                                    for p in module.parameters())),
              "accuracy": None if loaded is None else _accuracy(module, loaded)}
    result |= _cost(module, example, target)
    if json:
        common.emit(result)
    else:
        _print(result)


def _load(data: str) -> _Data:
    from celosia import datasets

    if data == "fashion-mnist":
        with api.refusals():
            train, test = (datasets.load_fashion_mnist(split) for split in ("train", "test"))
        return _Data(train_images=datasets.preprocess(train[0]), train_labels=train[1],
                     test_images=datasets.preprocess(test[0]), test_labels=test[1])
    if not zipfile.is_zipfile(data):
        raise CelosiaError(f"{data}: not a .npz file; write one with {', '.join(_ARRAYS)}")
    try:
        with np.load(data, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
    except (ValueError, KeyError, zipfile.BadZipFile) as problem:
        raise CelosiaError(f"{data}: {problem}; write one with {', '.join(_ARRAYS)}") from None
    return _Data(**{name: api.as_array(array, name) if name.endswith("images")
                    else array.astype(np.int64) for name, array in arrays.items()})


def _rounds(report: Callable[[int, int], None] | None) -> Callable[[Any], None] | None:
    if report is None:
        return None
    return lambda record: report(record.round + 1, record.rounds)


def _save(module: Any, example: np.ndarray, output: Path) -> None:
    import torch

    exported = torch.export.export(module.eval(), (torch.from_numpy(example),))
    with replacing(output) as file:
        torch.export.save(exported, file)


def _accuracy(module: Any, data: _Data) -> float:
    import torch

    from celosia.evaluate import accuracy

    with torch.no_grad():
        logits = [module(part) for part in torch.from_numpy(data.test_images).split(api.CHUNK)]
    return accuracy(torch.cat(logits), data.test_labels)


def _cost(module: Any, example: np.ndarray, target: str) -> dict[str, Any]:
    """Return useful multiply-accumulates and predicted cycles, or why there is no program."""
    try:
        program = api.compile(module, example, target=target)
    except CelosiaError as problem:
        return {"macs": None, "predicted_cycles": None, "target": target, "refused": str(problem)}
    return {"macs": sum(layer.macs for layer in program.layers), "target": target,
            "predicted_cycles": program.predicted_cycles, "refused": None}


def _print(result: dict[str, Any]) -> None:
    print(f"{result['method']}: density {result['density']:.1%}, {result['parameters']:,} "
          f"parameters, {result['rounds']} rounds")
    if result["accuracy"] is not None:
        print(f"accuracy {result['accuracy']:.2%}")
    if result["refused"] is None:
        print(f"{result['macs']:,} useful multiply-accumulates, {result['predicted_cycles']:,} "
              f"cycles on {result['target']}")
    else:
        print(f"no program for {result['target']}: {result['refused']}")
    print(f"wrote {result['output']}")
