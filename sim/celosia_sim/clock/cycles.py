"""The exact cycles of a stream."""

from collections.abc import Sequence

from celosia_sim.clock.cluster import Cluster
from celosia_sim.clock.events import events, listed
from celosia_sim.clock.machine_clock import Cycles
from celosia_sim.clock.one_cluster import OneCluster
from celosia_sim.clock.several_clusters import SeveralClusters
from celosia_spec.isa.array import Array
from celosia_spec.isa.image import Section


def cycles(array: Array, words: Sequence[int], list_at: int,
           image: Sequence[Section] = ()) -> Cycles:
    """Return the cycles that a stream takes, those of the gateware exactly.

    words : of main memory from the first one on, its entries and its list of chunks with them.
    list_at : where that begins.   image : all sections of flash. SimulationError where the stream
    does not end.
    """
    clusters = []
    for number in range(array.clusters):
        chunks = listed(array, words, list_at + number)
        clusters.append(Cluster(array, *events(array, words, chunks, image), chunks))
    return (SeveralClusters if array.clusters > 1 else OneCluster)(array, clusters).run()
