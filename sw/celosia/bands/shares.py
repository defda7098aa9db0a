"""The parts of a layer: which channels lie in the banks together."""

from dataclasses import dataclass

from celosia.bands.layouts import Lines, joined
from celosia.bands.spreads import Spread
from celosia_spec.qgraph import QGraph, QNode


@dataclass(frozen=True, kw_only=True)
class Share:
    """What the stretches of a part hold: channels of the input, and of a residual operand.

    rows : of the weights; None for all.
    """

    channel: int
    channels: int
    added: int
    addends: int
    rows: range | None


def shares_of(graph: QGraph, node: QNode, layout: Lines | Spread) -> tuple[Share, ...]:
    """Return the shares of a layer's parts: of a depthwise layer some channels each, of another one
    all of them, and some of its residual operand's."""
    count, outputs = joined(graph, node).shape[0], node.sw.size
    inputs, addends = layout.channels, layout.addends
    if inputs < count:
        return tuple(
            Share(channel=first, channels=own, added=first, addends=own if addends else 0,
                  rows=range(first, first + own))
            for first in range(0, count, inputs) for own in [min(inputs, count - first)])
    if 0 < addends < outputs:
        return tuple(
            Share(channel=0, channels=count, added=first, addends=own,
                  rows=range(first, first + own))
            for first in range(0, outputs, addends) for own in [min(addends, outputs - first)])
    return Share(channel=0, channels=count, added=0, addends=addends, rows=None),
