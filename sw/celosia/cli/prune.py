"""``celosia prune``."""

from typing import Any

from celosia.cli import common, figures, network, options
from celosia_spec.errors import refusals


def prune(
    model: common.ModelName,
    output: options.Output,
    method: options.Method = "magnitude",
    rate: options.Rate = None,
    rates: options.Rates = None,
    accuracy_budget: options.AccuracyBudget = None,
    budget_cycles: options.BudgetCycles = None,
    macs_removed: options.MacsRemoved = None,
    parameters_removed: options.ParametersRemoved = None,
    strength: options.Strength = None,
    order: options.Order = None,
    scope: options.Scope = None,
    select: options.Select = None,
    option: options.Setting = None,
    fuse: options.Fuse = False,
    fuse_retrained: options.FuseRetrained = None,
    weights: options.Weights = None,
    data: options.Data = None,
    mean: options.Mean = None,
    deviation: options.Deviation = None,
    rounds: options.Rounds = None,
    epochs: options.Epochs = None,
    learning_rate: options.LearningRate = None,
    optimizer: options.Optimizer = None,
    checkpoint: options.Checkpoint = None,
    report: options.Report = None,
    seed: int = 0,
    target: options.Target = "icebreaker",
    json: common.Json = False,
) -> None:
    """Remove a model's least important weights or filters, retraining between the rounds."""
    common.check_target(target)
    from celosia.cli import methods

    every = {
        "--rate": rate, "--rates": rates, "--accuracy-budget": accuracy_budget,
        "--budget-cycles": budget_cycles, "--macs-removed": macs_removed,
        "--parameters-removed": parameters_removed, "--strength": strength, "--order": order,
        "--scope": scope, "--select": select, "--rounds": rounds, "--data": data,
        "--epochs": epochs, "--learning-rate": learning_rate, "--optimizer": optimizer,
        "--fuse-retrained": fuse_retrained}
    given = {name: value for name, value in every.items() if value is not None}
    family, settings = methods.check(method, given, option or [])
    network.check_outputs(output, report, checkpoint, model, weights, data)
    module, example = network.find_module(model, weights)
    loaded = network.load_data(data, mean, deviation)
    example = network.example_for(model, example, loaded)
    network.check_saves(module, example)
    fusion = None
    with refusals(TypeError), network.rounds_shown("pruning") as progress:
        train = network.trainer(loaded, epochs, learning_rate, optimizer, seed)
        untrained = network.warn_untrained(module)
        network.to_fastest(module)
        before = figures.figures(module, example, target, network.test_accuracy(module, loaded))
        if fuse or fuse_retrained is not None:
            module, fusion = methods.fuse(module, example, fuse_retrained, train, seed=seed,
                                          checkpoint=checkpoint)
        found = family.run(methods.Run(
            method=method, target=target, module=module, example=example, data=loaded,
            train=train, given=given, settings=settings, seed=seed, checkpoint=checkpoint,
            measure=network.measurer(loaded, example, target), progress=progress))
    network.save(module.cpu(), example, output)
    result = _result(method, found, module) | network.cost(module, example, target)
    after = figures.figures(module, example, target, found.accuracy)
    result |= {"network": {"before": before, "after": after, "untrained": untrained},
               "output": str(output)}
    result["choices"] |= network.origin(model, weights, target, loaded) | {"fusion": fusion}
    if report is not None:
        network.write_report(result, report)
    if json:
        common.emit(result)
    else:
        _print(result)


def _result(method: str, found: Any, module: Any) -> dict[str, Any]:
    """Return what a run gave, apart from the program's costs, as JSON has it."""
    return {
        "method": method, "density": found.density, "parameters": figures.parameters(module),
        "accuracy": found.accuracy, "layers": dict(found.layers), "rounds": len(found.records),
        "records": list(found.records), "choices": dict(found.choices), "rate": found.rate,
        **found.more,
    }


def _print(result: dict[str, Any]) -> None:
    if "filters" in result:
        _print_filters(result)
    both = result["network"]
    common.show(figures.table(both["before"], both["after"], result["target"]))
    rounds = result["rounds"]
    print(f"{result['method']}: density {result['density']:.1%} after {rounds} "
          f"round{'s' * (rounds != 1)}")
    if result["refused"] is not None:
        print(common.wrapped(f"no program for {result['target']}: {result['refused']}"))
        print("celosia check tells all that is in the way, on every target")
    print(f"wrote {result['output']}")


def _print_filters(result: dict[str, Any]) -> None:
    table = common.table("convolutions", "layer", "left alone because", "filters", "before",
                         words=2)
    for name, layer in result["filters"].items():
        table.add_row(name, "", str(len(layer["kept"])), str(layer["filters"]))
    for name, reason in result["skipped"].items():
        table.add_row(name, reason, "", "")
    common.show(table)
    for kind, what in (("macs", "multiply-accumulates"), ("parameters", "parameters")):
        now, before = result["after"][kind], result["before"][kind]
        print(f"{now:,} {what} of {before:,} without the filters, {1 - now / before:.1%} fewer")
