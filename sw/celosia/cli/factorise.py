"""``celosia factorise``."""

from typing import Any

from celosia.cli import change, common, options
from celosia.compress.catalogue import factorising

METHODS = factorising()


@options.of_methods(METHODS)
def factorise(
    model: common.ModelName,
    output: options.Output,
    *,
    weights: options.Weights = None,
    data: options.Data = None,
    mean: options.Mean = None,
    deviation: options.Deviation = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    optimizer: options.Optimizer = None,
    checkpoint: options.Checkpoint = None,
    report: options.Report = None,
    seed: int = 0,
    target: options.Target = "icebreaker",
    json: common.Json = False,
    **given: Any,
) -> None:
    """Replace a model's layers by products of thinner ones, and retrain those."""
    result, hint = change.change(
        change.Request(model=model, output=output, weights=weights, data=data, mean=mean,
                       deviation=deviation, epochs=epochs, learning_rate=learning_rate,
                       optimizer=optimizer, checkpoint=checkpoint, report=report, seed=seed,
                       target=target), METHODS, given, "factorising")
    if json:
        common.emit(result)
    else:
        _print(result)
        change.show_end(result, hint)


def _print(result: dict[str, Any]) -> None:
    table = common.table("layers", "layer", "left alone because", "ranks", "weights before",
                         "after", words=2)
    for name, layer in result["layers"].items():
        ranks = "–" if layer["ranks"] is None else " x ".join(map(str, layer["ranks"]))
        table.add_row(name, layer["reason"], ranks, f"{layer['weights']:,}", f"{layer['kept']:,}")
    common.show(table)
    change.show_network(result)
