"""A network as it lies in an array."""

from dataclasses import dataclass

from celosia.bands.regions import Region
from celosia_spec.isa.array import Array
from celosia_spec.qgraph import QGraph


@dataclass(frozen=True, kw_only=True, eq=False)
class Laid:
    """A network, and where in an array its tensors lie.

    places : region of every tensor.   slots : its exponent's.   reads : slot of the exponent at
    which each node reads.
    """

    graph: QGraph
    array: Array
    places: dict[str, Region]
    slots: dict[str, int]
    reads: dict[str, int]
