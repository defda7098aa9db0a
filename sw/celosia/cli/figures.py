"""A network in figures, before and after it was changed."""

import copy
from typing import Any

import numpy as np

from celosia.cli import common
from celosia.cli.tables import Table
from celosia.show import figure, rate
from celosia_boards.targets import target as find_target
from celosia_spec.errors import CelosiaError

_NONE = "–"


def parameters(module: Any) -> int:
    """Return the number of parameters that are not zero."""
    return int(sum(np.count_nonzero(part.detach().cpu().numpy()) for part in module.parameters()))


def figures(module: Any, example: np.ndarray, target: str,
            accuracy: float | None) -> dict[str, float | int | bool | None]:
    """Return a module's figures as JSON has them.

    accuracy : of the module on test images, or None.

    Multiply-accumulates and cycles are the compiler's, also where weights and tables need more
    memory than the target has (``fits``). Where it has no program for the network, cycles are None,
    and multiply-accumulates those of its convolutions and linear layers.
    """
    from celosia.compress.cost import cost_of_layers
    from celosia.compress.weights.prediction import Predictor

    found: dict[str, float | int | bool | None] = {
        "accuracy": accuracy, "parameters": parameters(module), "macs": None,
        "predicted_cycles": None, "milliseconds": None, "per_second": None, "fits": False}
    try:
        prediction = Predictor(example, target=target)(copy.deepcopy(module).cpu())
    except CelosiaError:
        try:
            cost = cost_of_layers(copy.deepcopy(module).cpu(), example)
            return found | {"macs": cost.useful_macs}
        except CelosiaError:
            return found
    return found | {"macs": prediction.macs, "predicted_cycles": prediction.cycles,
                    "fits": prediction.problem is None,
                    **rate(prediction.cycles, find_target(target).clock_mhz)._asdict()}


def table(before: dict[str, Any], after: dict[str, Any], target: str) -> Table:
    """Return both networks' figures, a figure a row."""
    rows = {"parameters": "parameters that are not 0", "macs": "multiply-accumulates",
            "predicted_cycles": f"cycles on {target}",
            "milliseconds": f"ms at {find_target(target).clock_mhz:g} MHz",
            "per_second": "inferences a second"}
    shown = common.table("the network", "figure", "before", "after", "change")
    if before["accuracy"] is not None and after["accuracy"] is not None:
        points = 100 * (after["accuracy"] - before["accuracy"])
        shown.add_row("accuracy", f"{before['accuracy']:.2%}", f"{after['accuracy']:.2%}",
                      f"{points:+.2f} points")
    for key, name in rows.items():
        one, other = before[key], after[key]
        shown.add_row(name, _number(one), _number(other),
                      f"{other / one - 1:+.1%}" if one and other is not None else _NONE)
    shown.add_row(f"fits {target}", *("yes" if found["fits"] else "no"
                                      for found in (before, after)), "")
    return shown


def _number(value: float | int | None) -> str:
    if value is None:
        return _NONE
    return f"{value:,}" if isinstance(value, int) else figure(value)
