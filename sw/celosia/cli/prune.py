"""``celosia prune``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia import api
from celosia.cli import common, network
from celosia.errors import CelosiaError

DEFAULT_RATE = 0.8
SEARCH_IMAGES = 5000
"""Most training images that the search for rates looks at; a tenth of them if that is less."""


def prune(
    model: common.ModelName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The pruned model, a .pt2 file.")],
    method: Annotated[str, typer.Option(help="What makes a weight important.")] = "magnitude",
    rate: Annotated[float | None, typer.Option(
        help="Share of each layer's weights to remove; 0.8 if nothing else is given.")] = None,
    rates: Annotated[str | None, typer.Option(
        help="A rate for each layer, LAYER=RATE,...; or search: found by the accuracy curve of "
             "each layer, see --accuracy-budget.")] = None,
    accuracy_budget: Annotated[float | None, typer.Option(
        help="With --rates search: fall of accuracy allowed in each layer's curve; 0.01 is one "
             "point.")] = None,
    budget_cycles: Annotated[int | None, typer.Option(
        min=1, help="Instead of rates: predicted cycles of one inference to come down to.")] = None,
    weights: Annotated[Path | None, typer.Option(
        help="Trained weights for MODEL, a .safetensors file.")] = None,
    data: Annotated[str | None, typer.Option(
        help="fashion-mnist; a folder of IDX files, CIFAR-10's binary batches or pictures; or a "
             ".npz file. Without it nothing is retrained or measured.")] = None,
    mean: Annotated[str | None, typer.Option(
        help="Of the pixels / 255, one number a channel: 0.485,0.456,0.406.")] = None,
    deviation: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    order: Annotated[str, typer.Option(
        help="together, or layer by layer: forward, backward.")] = "together",
    scope: Annotated[str, typer.Option(help="layer or global.")] = "layer",
    select: Annotated[str, typer.Option(help="topk_abs or sun2016.")] = "topk_abs",
    rounds: Annotated[int | None, typer.Option(min=1, help="5 with data, else 1.")] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Of retraining after each round.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    checkpoint: Annotated[Path | None, typer.Option(
        help="A folder for finished rounds; the same command goes on after them.")] = None,
    report: Annotated[Path | None, typer.Option(
        help="A JSON file for the result with every round and choice.")] = None,
    seed: int = 0,
    target: Annotated[str, typer.Option(help="Whose cycles to predict.")] = "icebreaker",
    json: common.Json = False,
) -> None:
    """Remove a model's least important weights, retraining between the rounds."""
    import torch

    from celosia import compress
    from celosia.compress.cycles import prune_to_cycles

    module, example = network.find_module(model, weights)
    loaded = network.load_data(data, mean, deviation)
    shape: dict[str, Any] = {"order": order, "scope": scope, "select": select}
    amount = _amount(rate, rates, accuracy_budget, budget_cycles, shape, loaded)
    example = network.example_for(model, example, loaded)
    settings: dict[str, Any] = {"rounds": rounds, "seed": seed, "checkpoint": checkpoint,
                                "measure": network.measurer(loaded, example, target)}
    if loaded is not None:
        settings["inputs"] = loaded.train_inputs[:network.CALIBRATION]
        settings["finetune"] = compress.FineTune(
            inputs=loaded.train_inputs, labels=loaded.train_labels, epochs=epochs,
            learning_rate=learning_rate, seed=seed)
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    with api.refusals(TypeError), network.rounds_shown("pruning") as progress:
        settings["progress"] = progress
        if budget_cycles is None:
            pruned: Any = compress.prune(module, method, **settings, **shape, **amount)
        else:
            pruned = prune_to_cycles(module, method, example_input=example, target=target,
                                     budget=budget_cycles, **settings)
        compress.make_permanent(module.cpu())
    network.save(module, example, output)
    result = _result(pruned, module) | network.cost(module, example, target)
    result |= {"output": str(output), "rate": _one_rate(amount)}
    result["choices"] |= {"model": model, "weights": None if weights is None else str(weights),
                          "torch": torch.__version__, "target": target,
                          **({} if loaded is None else loaded.choices)}
    if report is not None:
        network.write_report(result, report)
    if json:
        common.emit(result)
    else:
        _print(result)


def _amount(rate: float | None, rates: str | None, accuracy_budget: float | None,
            budget_cycles: int | None, shape: dict[str, str],
            loaded: network.Data | None) -> dict[str, Any]:
    """Return the arguments of `compress.prune` that say how much goes, from the options."""
    given = [name for name, value in (("--rate", rate), ("--rates", rates),
                                      ("--budget-cycles", budget_cycles)) if value is not None]
    if len(given) > 1:
        raise CelosiaError(f"{' and '.join(given)} contradict each other; give one of them")
    if budget_cycles is not None:
        if shape != {"order": "together", "scope": "layer", "select": "topk_abs"}:
            raise CelosiaError("--budget-cycles ranks the weights of all layers by what they cost; "
                               "leave out --order, --scope and --select")
        return {}
    if accuracy_budget is not None and rates != "search":
        raise CelosiaError("--accuracy-budget goes with --rates search")
    if rates is None:
        return {"rates": DEFAULT_RATE if rate is None else rate}
    if rates != "search":
        return {"rates": _by_layer(rates)}
    if loaded is None or accuracy_budget is None:
        raise CelosiaError("--rates search needs --data to measure accuracy on, and "
                           "--accuracy-budget, the fall that is allowed")
    count = min(SEARCH_IMAGES, -(-len(loaded.train_inputs) // 10))
    loaded.choices["search_images"] = count
    inputs, labels = loaded.train_inputs[-count:], loaded.train_labels[-count:]

    def evaluate(module: Any) -> float:
        return network.accuracy(module, inputs, labels)

    return {"rates": "search", "accuracy_budget": accuracy_budget, "evaluate": evaluate}


def _one_rate(amount: dict[str, Any]) -> float | None:
    """Return the rate that all layers were given, or None."""
    rates = amount.get("rates")
    return rates if isinstance(rates, float) else None


def _by_layer(text: str) -> dict[str, float]:
    """Return the rates of "conv1=0.4,fc1=0.9"."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise CelosiaError(f"--rates {text!r}: give LAYER=RATE with commas between, such as "
                           "conv1=0.4,fc1=0.9; or search") from None


def _result(pruned: Any, module: Any) -> dict[str, Any]:
    """Return what a run gave, apart from the program's costs, as JSON has it."""
    last = pruned.rounds[-1]
    return {
        "method": pruned.choices["method"], "density": last.density,
        "parameters": network.parameters(module), "accuracy": last.accuracy,
        "layers": {name: asdict(layer) for name, layer in last.layers.items()},
        "rounds": len(pruned.rounds),
        "records": [record.as_json() | {"density": record.density} for record in pruned.rounds],
        "choices": dict(pruned.choices),
    }


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
