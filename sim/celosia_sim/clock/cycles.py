"""The exact cycles of a stream."""

from collections.abc import Collection, Sequence

from celosia_sim.clock.cluster import Cluster
from celosia_sim.clock.events import events
from celosia_sim.clock.machine_clock import Cycles
from celosia_sim.clock.one_cluster import OneCluster
from celosia_sim.clock.several_clusters import SeveralClusters
from celosia_spec.isa.array import Array
from celosia_spec.isa.image import Section


def cycles(array: Array, entries: Sequence[int], chunks: Sequence[tuple[int, int]],
           copied: Collection[int] = (), image: Sequence[Section] = (),
           beside: Sequence[tuple[Sequence[tuple[int, int]], Collection[int]]] = ()) -> Cycles:
    """Return the cycles that a stream takes, those of the gateware exactly.

    entries, chunks : as `celosia_sim.stream_machine.run` takes them.   copied : numbers of the
    chunks that wait for a section of flash.   image : all sections.   beside : chunks, and those
    that wait, of each cluster but the first. SimulationError where the stream does not end.
    """
    clusters = [Cluster(array, *events(array, entries, own, waiting, image), len(own), waiting)
                for own, waiting in ((chunks, copied), *beside)]
    return (SeveralClusters if beside else OneCluster)(array, clusters).run()
