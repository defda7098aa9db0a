"""``celosia factorise``."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from celosia.cli import common, figures, network
from celosia_spec.errors import CelosiaError, refusals


def factorise(
    model: common.ModelName,
    output: Annotated[Path, typer.Option("--output", "-o", help="The smaller model, a .pt2 file.")],
    method: Annotated[str, typer.Option(
        help="svd, or tucker, which leaves linear layers alone.")] = "svd",
    scheme: Annotated[str, typer.Option(
        help="Of svd in convolutions: channel or spatial.")] = "channel",
    rule: Annotated[str | None, typer.Option(
        help="energy, speedup, evbmf or curve; evbmf if nothing else says how much.")] = None,
    value: Annotated[float | None, typer.Option(
        help="Of energy: the share to keep. Of speedup: how many times fewer weights.")] = None,
    ranks: Annotated[str | None, typer.Option(
        help="Instead of a rule: LAYER=RANK,... and for tucker LAYER=OUTxIN,...")] = None,
    parameters_removed: Annotated[float | None, typer.Option(
        help="Share of the network's parameters to remove.")] = None,
    macs_removed: Annotated[float | None, typer.Option(
        help="Share of its multiply-accumulates to remove.")] = None,
    accuracy_budget: Annotated[float | None, typer.Option(
        help="Of curve: fall of accuracy allowed in each layer's curve; 0.01 is one "
             "point.")] = None,
    skip: Annotated[str, typer.Option(help="Layers to leave alone, commas between.")] = "",
    minimum: Annotated[int | None, typer.Option(
        min=1, help="Least rank: 8 for tucker, for svd 2 in convolutions and 1 else.")] = None,
    weakening: Annotated[float, typer.Option(
        min=0, max=1, help="Of evbmf: 1 takes its ranks, 0 the full ones.")] = 1.0,
    weights: Annotated[Path | None, typer.Option(
        help="Trained weights for MODEL, a .safetensors file.")] = None,
    data: Annotated[str | None, typer.Option(
        help="fashion-mnist; a folder of IDX files, CIFAR-10's binary batches or pictures; or a "
             ".npz file. Without it nothing is retrained or measured.")] = None,
    mean: Annotated[str | None, typer.Option(
        help="Of the pixels / 255, one number a channel: 0.485,0.456,0.406.")] = None,
    deviation: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Steps in which the ranks fall.")] = 1,
    epochs: Annotated[int, typer.Option(min=0, help="Of retraining after each round.")] = 1,
    learning_rate: Annotated[float, typer.Option(help="Its peak.")] = 1e-3,
    checkpoint: Annotated[Path | None, typer.Option(
        help="A folder for finished rounds; the same command goes on after them.")] = None,
    report: Annotated[Path | None, typer.Option(
        help="A JSON file for the result with every round and choice.")] = None,
    seed: int = 0,
    target: Annotated[str, typer.Option(help="Whose cycles to predict.")] = "icebreaker",
    json: common.Json = False,
) -> None:
    """Replace a model's layers by products of thinner ones, and retrain those."""
    common.check_target(target)
    from celosia.compress import factorise as run

    network.check_outputs(output, report, checkpoint, model, weights, data)
    module, example = network.find_module(model, weights)
    loaded = network.load_data(data, mean, deviation)
    example = network.example_for(model, example, loaded)
    network.check_saves(module, example)
    settings: dict[str, Any] = {
        "ranks": _by_layer(ranks), "value": value, "scheme": scheme, "minimum": minimum,
        "parameters_removed": parameters_removed, "macs_removed": macs_removed,
        "skip": [name.strip() for name in skip.split(",") if name.strip()],
        "weakening": weakening, "accuracy_budget": accuracy_budget, "rounds": rounds,
        "seed": seed, "checkpoint": checkpoint,
    }
    amounts = (ranks, rule, parameters_removed, macs_removed)
    settings["rule"] = "evbmf" if all(amount is None for amount in amounts) else rule
    if rule == "curve":
        if loaded is None:
            raise CelosiaError("--rule curve needs --data to measure accuracy on")
        settings["evaluate"] = network.search_measure(loaded)
    train = network.trainer(loaded, epochs, learning_rate, None, seed)
    if train is not None and epochs:
        settings["finetune"] = train()
    untrained = network.warn_untrained(module)
    network.to_fastest(module)
    before = figures.figures(module, example, target, network.test_accuracy(module, loaded))
    with refusals(), network.rounds_shown("factorising") as progress:
        found = run(module, example, method, **settings, progress=progress,
                    measure=network.measurer(loaded, example, target))
    network.save(module.cpu(), example, output)
    after = figures.figures(module, example, target, found.rounds[-1].accuracy)
    result = _result(found) | {
        "network": {"before": before, "after": after, "untrained": untrained},
        "output": str(output), "target": target,
        "refused": network.cost(module, example, target)["refused"]}
    result["choices"] |= network.origin(model, weights, target, loaded)
    if report is not None:
        network.write_report(result, report)
    if json:
        common.emit(result)
    else:
        _print(result, default=all(amount is None for amount in amounts))


def _by_layer(text: str | None) -> dict[str, Any] | None:
    """Return the ranks of "conv1=3,fc1=20" or "conv2=10x5"."""
    if text is None:
        return None
    try:
        pairs = [part.split("=") for part in text.split(",")]
        found: dict[str, Any] = {}
        for name, value in pairs:
            numbers = tuple(int(number) for number in value.split("x"))
            found[name.strip()] = numbers[0] if len(numbers) == 1 else numbers
        return found
    except ValueError:
        raise CelosiaError(f"--ranks {text!r}: give LAYER=RANK with commas between, such as "
                           "conv1=3,fc1=20, or for tucker conv2=10x5") from None


def _result(found: Any) -> dict[str, Any]:
    """Return what a run gave as JSON has it."""
    last = found.rounds[-1]
    return {
        "method": found.choices["method"], "density": found.density, "accuracy": last.accuracy,
        "parameters": found.parameters, "parameters_before": found.parameters_before,
        "macs": found.macs, "macs_before": found.macs_before,
        "predicted_cycles": last.predicted_cycles, "rounds": len(found.rounds),
        "layers": {name: asdict(layer) for name, layer in found.layers.items()},
        "records": [record.as_json() for record in found.rounds],
        "choices": dict(found.choices),
    }


def _print(result: dict[str, Any], *, default: bool) -> None:
    table = common.table("layers", "layer", "left alone because", "ranks", "weights before",
                         "after", words=2)
    for name, layer in result["layers"].items():
        ranks = "–" if layer["ranks"] is None else " x ".join(map(str, layer["ranks"]))
        table.add_row(name, layer["reason"], ranks, f"{layer['weights']:,}", f"{layer['kept']:,}")
    common.show(table)
    both = result["network"]
    common.show(figures.table(both["before"], both["after"], result["target"]))
    if result["refused"] is not None:
        print(common.wrapped(f"no program for {result['target']}: {result['refused']}"))
        print("celosia check tells all that is in the way, on every target")
    if default:
        print(common.wrapped("rule evbmf chose the ranks, since nothing said how much; where it "
                             "takes too much, --parameters-removed 0.5 or --rule energy "
                             "--value 0.9 says so"))
    print(f"wrote {result['output']}")
