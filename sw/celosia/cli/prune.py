"""``celosia prune``."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celosia import compress
from celosia.cli import change, common, options
from celosia.compress.catalogue import pruning

if TYPE_CHECKING:
    import numpy as np

METHODS = pruning()


@options.of_methods(METHODS)
def prune(*, fuse: options.Fuse = False, fuse_retrained: options.FuseRetrained = None,
          **given: Any) -> None:
    """Remove a model's least important weights or filters, retraining between the rounds."""
    change.refuse_without_data(given["data"], {"--fuse-retrained": fuse_retrained})

    def fused(module: Any, example: "np.ndarray", train: Any) -> tuple[Any, dict[str, Any]]:
        if not fuse and fuse_retrained is None:
            return module, {"fusion": None}
        made, fusion = fuse_first(module, example, fuse_retrained, train, seed=given["seed"],
                                  checkpoint=given["checkpoint"])
        return made, {"fusion": fusion}

    change.change(METHODS, given, "pruning", _show, fused)


def fuse_first(
    module: Any, example: "np.ndarray", retrained: str | None, train: Any, *, seed: int,
    checkpoint: Path | None,
) -> tuple[Any, dict[str, Any]]:
    """Return the fused network and what was fused, as JSON has it.

    retrained : layers to retrain, as the option has them; None folds exactly only.
    train     : makes a trainer, or None without data.
    """
    arguments: dict[str, Any] = {}
    if retrained is not None and train is not None:
        arguments = {"layers": options.read_layers(retrained), "finetune": train(), "seed": seed,
                     "checkpoint": None if checkpoint is None else checkpoint / "fusion"}
    found = compress.fuse(module, example, **arguments)
    return found.model, {"batch_norms": list(found.batch_norms),
                         "average_pools": list(found.average_pools), "left": dict(found.left),
                         "merged": [asdict(layer) for layer in found.merged],
                         **(found.choices if arguments else {})}


def _show(result: dict[str, Any]) -> None:
    if "filters" in result:
        _show_filters(result)
    elif result["skipped"]:
        table = common.table("layers", "layer", "left alone because", words=2)
        for name, reason in result["skipped"].items():
            table.add_row(name, reason)
        common.show(table)
    change.show_network(result)
    rounds = result["rounds"]
    print(f"{result['method']}: density {result['density']:.1%} after {rounds} "
          f"round{'s' * (rounds != 1)}")


def _show_filters(result: dict[str, Any]) -> None:
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
