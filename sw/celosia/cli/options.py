"""The options of ``celosia prune``: what each says, and reading those that hold several values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia.cli.network import SEARCH_IMAGES
from celosia_spec.errors import CelosiaError

Output = Annotated[Path, typer.Option("--output", "-o", help="The pruned model, a .pt2 file.")]
Method = Annotated[str, typer.Option(
    help="Single weights go by magnitude, correlation or ae-lip; whole filters by std, l1 or mask; "
         "combined takes filters of convolutions and weights of hidden linear layers.")]
Rate = Annotated[float | None, typer.Option(
    help="Share of each layer's weights, or filters, to remove. Of weights 0.8 if nothing else is "
         "given.")]
Rates = Annotated[str | None, typer.Option(
    help="A rate for each layer, LAYER=RATE,...; or search: found by the accuracy curve of each "
         f"layer on up to {SEARCH_IMAGES:,} training images, see --accuracy-budget.")]
AccuracyBudget = Annotated[float | None, typer.Option(
    help="With --rates search: fall of accuracy allowed in each layer's curve; 0.01 is one point.")]
BudgetCycles = Annotated[int | None, typer.Option(
    min=1, help="Instead of rates: predicted cycles of one inference to come down to.")]
MacsRemoved = Annotated[float | None, typer.Option(
    help="Filters: share of the network's multiply-accumulates to remove; combined: of the "
         "convolutions'.")]
ParametersRemoved = Annotated[float | None, typer.Option(
    help="Filters: share of the network's parameters to remove.")]
Strength = Annotated[float | None, typer.Option(
    help="Of mask and combined: the factor of the L1 term on the masks.")]
Order = Annotated[str | None, typer.Option(
    help="Of weights: together, or layer by layer: forward, backward.")]
Scope = Annotated[str | None, typer.Option(
    help="Where weights or filters compete: layer or global. layer; of masks global.")]
Select = Annotated[str | None, typer.Option(help="Of weights: topk_abs or sun2016.")]
Setting = Annotated[list[str] | None, typer.Option(
    "--option", metavar="NAME=VALUE",
    help="An option of the method itself, such as intervals=32; may be given again.")]
Fuse = Annotated[bool, typer.Option(
    "--fuse", help="First fold batch normalisation and average pools, exactly.")]
FuseRetrained = Annotated[str | None, typer.Option(
    metavar="LAYERS", help="As --fuse, and retrain convolutions to take over the pools and "
                           "normalisations behind them: LAYER,... or all.")]
Weights = Annotated[Path | None, typer.Option(
    help="Trained weights for MODEL, a .safetensors file.")]
Data = Annotated[str | None, typer.Option(
    help="fashion-mnist; a folder of IDX files, CIFAR-10's binary batches or pictures; or a .npz "
         "file. Without it nothing is retrained or measured.")]
Mean = Annotated[str | None, typer.Option(
    help="Of the pixels / 255, one number a channel: 0.485,0.456,0.406.")]
Deviation = Annotated[str | None, typer.Option(help="Likewise.")]
Rounds = Annotated[int | None, typer.Option(
    min=1, help="5 for weights with data, else 1.")]
Epochs = Annotated[int | None, typer.Option(
    min=1, help="Of retraining after each round, and of training masks; 1.")]
LearningRate = Annotated[float | None, typer.Option(help="Its peak; 0.001.")]
Optimizer = Annotated[str | None, typer.Option(help="adamw or sgd, with momentum 0.9; adamw.")]
Checkpoint = Annotated[Path | None, typer.Option(
    help="A folder for finished rounds; the same command goes on after them.")]
Report = Annotated[Path | None, typer.Option(
    help="A JSON file for the result with every round and choice.")]
Target = Annotated[str, typer.Option(help="Whose cycles to predict.")]


def read_rates(text: str) -> dict[str, float]:
    """Return the rates of "conv1=0.4,fc1=0.9"."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found = {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise CelosiaError(f"--rates {text!r}: give LAYER=RATE with commas between, such as "
                           "conv1=0.4,fc1=0.9; or search") from None
    if len(found) != len(pairs):
        raise CelosiaError(f"--rates {text!r}: a layer stands there twice; give each once")
    return found


def read_layers(text: str) -> list[str] | None:
    """Return the layers of "conv1,conv2", or None for "all"."""
    return None if text == "all" else [name.strip() for name in text.split(",") if name.strip()]


def read_settings(method: str, texts: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return {name: value} of ``--option NAME=VALUE``, given {name: default} of those there are.

    A value is of the type of the default; a number or a word where that is None, and names with
    commas between where it is a tuple.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise CelosiaError(f"--option {text!r}: give NAME=VALUE, such as intervals=32")
        if name not in known:
            raise CelosiaError(f"method {method!r} has no option {name!r}; its options: "
                               f"{', '.join(known) or 'none'}")
        if name in found:
            raise CelosiaError(f"--option {name} is given twice; give it once")
        found[name] = _read_value(text, value, known[name])
    return found


def _read_value(text: str, value: str, default: Any) -> Any:
    """Return a value as the type of `default` has it."""
    if isinstance(default, str):
        return value
    if isinstance(default, tuple):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise CelosiaError(f"--option {text}: give true or false")
        return value == "true"
    kinds: list[tuple[type, str]] = [(int, "a whole number"), (float, "a number")]
    if isinstance(default, int | float):
        kinds = [(kind, what) for kind, what in kinds if isinstance(default, kind)]
    for kind, _ in kinds:
        try:
            number = kind(value)
        except ValueError:
            continue
        if math.isfinite(number):
            return number
    if isinstance(default, int | float):
        raise CelosiaError(f"--option {text}: give {kinds[0][1]}")
    return value
