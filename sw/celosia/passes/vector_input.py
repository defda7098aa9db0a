"""A layer that reads the whole input at once reads it as a vector."""

from dataclasses import replace

from celosia.graph import Conv, Graph


def vector_input(graph: Graph) -> Graph:
    """Make the input map a vector where one linear layer alone reads it, with a kernel of its size.

    So of a network that flattens its picture first: a vector fills the banks whatever its length,
    while each position of a map takes a place of its own for its few channels. Columns keep the
    order (c * H + y) * W + x, and users still give inputs of the network's own shape.
    """
    channels, height, width = graph.input_map
    reader = next((node for node in graph.nodes if graph.input in node.inputs), None)
    if (height * width == 1 or graph.uses[graph.input] != 1 or not isinstance(reader, Conv)
            or reader.input != graph.input or reader.groups != 1
            or any(reader.padding + reader.border) or reader.kernel != (height, width)):
        return graph
    flat = len(reader.weight), -1, 1, 1
    vector = replace(reader, weight=reader.weight.reshape(flat), stride=(1, 1), dilation=(1, 1),
                     live=None if reader.live is None else reader.live.reshape(flat))
    return replace(graph, input_map=(channels * height * width, 1, 1), nodes=tuple(
        vector if node is reader else node for node in graph.nodes))
