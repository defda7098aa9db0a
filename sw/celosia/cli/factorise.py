"""``celosia factorise``."""

from typing import Any

from celosia.cli import change, common, options
from celosia.compress.catalogue import factorising

METHODS = factorising()


@options.of_methods(METHODS)
def factorise(**given: Any) -> None:
    """Replace a model's layers by products of thinner ones, and retrain those."""
    change.change(METHODS, given, "factorising", _show)


def _show(result: dict[str, Any]) -> None:
    table = common.table("layers", "layer", "left alone because", "ranks", "weights before",
                         "after", words=2)
    for name, layer in result["layers"].items():
        ranks = "–" if layer["ranks"] is None else " x ".join(map(str, layer["ranks"]))
        table.add_row(name, layer["reason"], ranks, f"{layer['weights']:,}", f"{layer['kept']:,}")
    common.show(table)
    change.show_network(result)
