"""What an array can run at all: its arithmetic, and so many tensors."""

from celosia.schedule.memory_use import memory_need
from celosia_spec.errors import CompileError, FitError
from celosia_spec.isa import ArrayConfig, Space, memory_of
from celosia_spec.qgraph import QGraph


def check_graph(graph: QGraph, array: ArrayConfig) -> None:
    """CompileError where the arithmetic of the graph is not the array's."""
    residual = next((node for node in graph.nodes if node.epilogue.add), None)
    if graph.acc_bits > array.acc_bits:
        raise CompileError("network", "accumulator",
                           f"needs {graph.acc_bits}-bit accumulators, the array has "
                           f"{array.acc_bits}", f"give the array acc_bits={graph.acc_bits}")
    if residual and graph.acc_bits < array.acc_bits:
        raise CompileError(residual.name, "add", "its residual operand saturates with the "
                           f"accumulator, quantised for {graph.acc_bits} bits, the array has "
                           f"{array.acc_bits}", f"quantise with acc_bits={array.acc_bits}")
    if graph.weight_bits > array.weight_bits:
        raise CompileError("network", "weights", f"{graph.weight_bits}-bit mantissas, the array "
                           f"multiplies {array.weight_bits} bits",
                           f"compile with weight_bits={array.weight_bits} or less")
    if graph.activation_bits != array.activation_bits:
        raise CompileError("network", "activations", f"{graph.activation_bits}-bit mantissas, the "
                           f"array rounds to {array.activation_bits} bits",
                           f"compile with activation_bits={array.activation_bits}, or give the "
                           f"array activation_bits={graph.activation_bits}")
    unsigned = next((tensor for tensor in graph.tensors.values() if not tensor.signed), None)
    if unsigned:
        raise CompileError(unsigned.name, "tensor", "its mantissas have no sign, and this array "
                           "multiplies signed ones only", "quantise with unsigned=False and "
                           "unsigned_input=False")
    joining = next((node for node in graph.nodes if node.joins), None)
    if joining:
        raise CompileError(joining.name, joining.kind, f"it reads {len(joining.inputs)} tensors, "
                           "one behind another, and a layer of this array one", "split its weights "
                           "into a layer for each of them, and add the results")
    clamped = next((node for node in graph.nodes if node.epilogue.activation.clamps), None)
    if clamped and not array.clamp:
        low, high = clamped.epilogue.activation.bounds
        raise FitError(clamped.name, "clamp", f"a clamp to {low:g} ... {high:g} follows it, and "
                       "this array has ReLU only", "use ReLU there")
    for node in graph.nodes:
        if graph.output in (node.input, node.epilogue.add):
            raise CompileError(node.name, node.kind, "it reads the network's output, which leaves "
                               "with 16-bit mantissas", "end the network behind its last layer")


def check_size(graph: QGraph, array: ArrayConfig) -> None:
    """FitError where a graph, its copies included, has more tensors than the machine exponents."""
    memory, count = memory_of(Space.EXPONENTS), len(graph.tensors)
    if count > memory.depth(array):
        raise FitError(
            "network", "tensors", f"{count} stored tensors, copies included, the machine holds "
            f"{memory.depth(array)} exponents", memory.way_out,
            need=memory_need(memory.space, count, array))
