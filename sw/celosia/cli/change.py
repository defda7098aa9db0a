"""What ``prune`` and ``factorise`` do: one method, on one network, with its figures around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from celosia.cli import common, options
from celosia.compress.method import Method, Network, Training
from celosia.compress.spans import POSITIVE
from celosia.compress.words import OPTIMIZERS
from celosia_spec.errors import CelosiaError, refusals

if TYPE_CHECKING:
    import numpy as np

Prepare: TypeAlias = "Callable[[Any, np.ndarray, Any], tuple[Any, dict[str, Any]]]"


def change(
    methods: Mapping[str, Method], given: Mapping[str, Any], doing: str,
    show: Callable[[dict[str, Any]], None], prepare: Prepare | None = None,
) -> None:
    """Change the network by the method, write it, and print the result.

    given   : what `options.of_methods` added to the command.
    doing   : a word for the bar, such as "pruning".
    show    : prints the result, as JSON has it, where that is not asked for.
    prepare : of module, example and what makes a trainer (or None): the module to change instead,
              and choices to record. Or None.
    """
    asked, own = options.split(given)
    common.check_target(asked.target)
    training = ("epochs", "learning_rate", "optimizer")
    refuse_without_data(asked.data, {f"--{name.replace('_', '-')}": getattr(asked, name)
                                     for name in training})
    rule = asked.rule
    if asked.data is None and rule != (None, None):
        raise CelosiaError("--mean and --deviation say how --data becomes inputs; give that too, "
                           "or leave them out")
    if asked.learning_rate is not None:
        POSITIVE.check("--learning-rate", asked.learning_rate)
    if asked.optimizer not in (None, *OPTIMIZERS):
        raise CelosiaError(f"--optimizer must be one of {', '.join(OPTIMIZERS)}, "
                           f"not {asked.optimizer!r}")
    method, amount, settings = options.check(methods, own, data=asked.data is not None)

    from celosia.cli import figures, network

    network.check_outputs(asked.output, asked.report, asked.checkpoint, asked.model, asked.weights,
                          asked.data)
    loaded = network.load_data(asked.data, rule)
    module, example = network.find_module(asked.model, asked.weights, loaded, asked.input_shape)
    network.check_saves(module, example)
    chosen: dict[str, Any] = {}
    with refusals(TypeError), network.rounds_shown(doing) as progress:
        train = network.trainer(loaded, asked.epochs, asked.learning_rate, asked.optimizer,
                                asked.seed)
        untrained = network.warn_untrained(module)
        network.to_fastest(module)
        before = figures.figures(module, example, asked.target,
                                 network.test_accuracy(module, loaded))
        if prepare is not None:
            module, chosen = prepare(module, example, train)
        found = method.run(
            Network(module=module, example=example, target=asked.target), amount,
            Training(inputs=None if loaded is None else loaded.calibration, train=train,
                     curves=None if loaded is None else partial(network.search_measure, loaded),
                     seed=asked.seed, checkpoint=asked.checkpoint, progress=progress,
                     measure=network.measurer(loaded, example, asked.target)), *settings)
    network.save(module.cpu(), example, asked.output)
    after = figures.figures(module, example, asked.target, found.accuracy)
    result = {"method": method.name, "parameters": figures.parameters(module), **found.as_json(),
              **network.cost(module, example, asked.target), **found.more,
              "network": {"before": before, "after": after, "untrained": untrained},
              "output": str(asked.output)}
    result["choices"] |= network.origin(asked.model, asked.weights, asked.target, loaded) | chosen
    if asked.report is not None:
        network.write_report(result, asked.report)
    if asked.json:
        common.emit(result)
        return
    show(result)
    if found.hint:
        print(common.wrapped(found.hint))
    print(f"wrote {asked.output}")


def refuse_without_data(data: str | None, given: Mapping[str, Any]) -> None:
    """CelosiaError for options that say how to retrain where there is no data to do it on."""
    useless = [flag for flag, value in given.items() if value is not None]
    if useless and data is None:
        raise CelosiaError(f"{' and '.join(useless)} say how to retrain on --data; give that too, "
                           "or leave them out")


def show_network(result: Mapping[str, Any]) -> None:
    """Print the network before and after, and why there is no program for it."""
    from celosia.cli import figures

    both = result["network"]
    common.show(figures.table(both["before"], both["after"], result["target"]))
    if result["refused"] is not None:
        print(common.wrapped(f"no program for {result['target']}: {result['refused']}"))
        print("celosia check tells all that is in the way, on every target")
