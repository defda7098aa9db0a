"""``celosia models``."""

from typing import Any

from celosia import zoo
from celosia.cli import common


def models(json: common.Json = False) -> None:
    """List the networks that are known by name, with their inputs, sizes and weights."""
    found = [_facts(entry) for entry in zoo.NETWORKS.values()]
    if json:
        common.emit({"models": found})
        return
    table = common.table("models", "name", "what", "input", "weights", "parameters", "MACs",
                         words=4, optional=("what",))
    for own in found:
        table.add_row(own["name"], own["what"], ",".join(map(str, own["input_shape"])),
                      "trained" if own["trained"] else "random", f"{own['parameters']:,}",
                      f"{own['macs']:,}")
    common.show(table)
    print(common.wrapped(
        "MACs: multiply-accumulates of one input, if no weight is 0; random: drawn with a fixed "
        "seed, and --weights FILE.safetensors gives trained ones"))


def _facts(entry: zoo.Entry) -> dict[str, Any]:
    parameters, macs = entry.cost()
    return {"name": entry.name, "what": entry.about, "input_shape": list(entry.shape),
            "trained": entry.trained, "parameters": parameters, "macs": macs}
