"""Run a quantised graph, bit for bit as ``docs/numerics.md`` defines it."""

from dataclasses import dataclass

import numpy as np

from celosia_sim.golden.clipped import Clipped
from celosia_sim.golden.epilogue import activated, block_exponent, limited, max_pool
from celosia_sim.golden.linear import Weights, exact_sums, weight_operand
from celosia_sim.golden.requantise import clip, clip_each, scale_rne
from celosia_spec.block import Format, block_exponents
from celosia_spec.epilogue import PLAIN, Activation
from celosia_spec.isa.numbers import EXPONENT_MAX, OUTPUT_BITS
from celosia_spec.qgraph import QGraph, QNode

CHUNK = 1 << 23
"""Elements of the largest operand that one batch may need."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """What a node reads of N images.

    mantissas : int32 (N, C, H, W), one tensor behind another.   exponents : int32 (N,).
    """

    mantissas: np.ndarray
    exponents: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class GoldenResult:
    """What the golden model computed for N images.

    mantissas : of every stored tensor by name, at its own exponent, int32 (N, C, H, W); of the
                output alone where the tensors were not kept.
    exponents : block exponent of every stored tensor by name, int32 (N,).
    readings  : of the nodes that read at an exponent of the reading, by name; none where tensors
                were not kept.
    saturated : bool (N,): clipping changed a value of a tensor that is read, or of the output; or
                of the input where its exponent is static.
    unread    : bool (N,): that, but none that any sum needs, or that leaves the network. A machine
                need not see it.
    """

    mantissas: dict[str, np.ndarray]
    exponents: dict[str, np.ndarray]
    readings: dict[str, Reading]
    saturated: np.ndarray
    unread: np.ndarray


def quantise_input(graph: QGraph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the input's mantissas, int32 (N, C, H, W), and exponents, int32 (N,).

    x : (N, *user_shape); taken as float32. ValueError where the shape is wrong, a value is not
    finite, (dynamic exponents) a value is 2^16 or more, or (unsigned mantissas) one is below 0.
    """
    m, exponents, _ = _input_blocks(graph, x)
    return m, exponents


def input_saturated(graph: QGraph, x: np.ndarray) -> np.ndarray:
    """Say for each image whether the input's static exponent clips a value; bool (N,)."""
    return _input_blocks(graph, x)[2]


def _input_blocks(graph: QGraph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    tensor = graph.tensors[graph.input]
    with np.errstate(over="ignore"):
        x = np.asarray(x).astype(np.float32)
    if x.shape[1:] != tensor.user_shape or x.ndim == 0:
        wanted = ", ".join(["N", *map(str, tensor.user_shape)])
        raise ValueError(f"{tensor.name}: the input must have the shape ({wanted}), not {x.shape}")
    x = np.ldexp(x.reshape(len(x), *tensor.numbers).astype(np.float64), tensor.larger)
    bad = ~np.isfinite(x).all(axis=(1, 2, 3))
    if bad.any():
        raise ValueError(f"{tensor.name}: image {int(bad.argmax())} of the input holds values "
                         "that are not finite in float32")
    below = (x < 0).any(axis=(1, 2, 3))
    if below.any() and not tensor.signed:
        image = int(below.argmax())
        raise ValueError(f"{tensor.name}: image {image} of the input reaches down to "
                         f"{x[image].min():g}, and the network was compiled for inputs of 0 and "
                         "more; compile it with calibration inputs like these, and without scale")
    if (fixed := tensor.exponent.fixed) is not None:
        exponents = np.full(len(x), fixed, dtype=np.int64)
        m, clipped = tensor.whole.mantissas(x, exponents)
        return tensor.parts(m), exponents.astype(np.int32), clipped
    exponents = block_exponents(x, tensor.exponent.least)
    if exponents.max(initial=0) > EXPONENT_MAX:
        image = int(exponents.argmax())
        raise ValueError(f"{tensor.name}: image {image} of the input needs the block exponent "
                         f"{exponents[image]}, above {EXPONENT_MAX}; scale the input down")
    m, _ = tensor.whole.mantissas(x, exponents)
    return tensor.parts(m), exponents.astype(np.int32), np.zeros(len(x), dtype=bool)


def run(graph: QGraph, x: np.ndarray, *, keep_tensors: bool = True) -> GoldenResult:
    """Return every stored tensor of the network for inputs ``x`` (N, *user_shape).

    keep_tensors : False keeps the output's mantissas only; exponents of all tensors are kept.
    Errors: those of :func:`quantise_input`.
    """
    m, exponents, saturated = _input_blocks(graph, x)
    weights = [weight_operand(node, graph.tensors[node.input].format) for node in graph.nodes]
    step = max(1, CHUNK // max(_operand_elements(graph)))
    chunks = [_run_chunk(graph, weights, m[at:at + step], exponents[at:at + step], keep_tensors)
              for at in range(0, len(m), step)]
    chunks = chunks or [_run_chunk(graph, weights, m, exponents, keep_tensors)]
    return GoldenResult(
        mantissas={k: np.concatenate([c.mantissas[k] for c in chunks])
                   for k in chunks[0].mantissas},
        exponents={k: np.concatenate([c.exponents[k] for c in chunks])
                   for k in chunks[0].exponents},
        readings={k: Reading(
            mantissas=np.concatenate([c.readings[k].mantissas for c in chunks]),
            exponents=np.concatenate([c.readings[k].exponents for c in chunks]))
                  for k in chunks[0].readings},
        saturated=saturated | np.concatenate([c.saturated for c in chunks]),
        unread=~saturated & np.concatenate([c.unread for c in chunks]))


def _operand_elements(graph: QGraph) -> list[int]:
    """Return, by node, elements of the operand of its product for one image."""
    counts = [1]
    for node in graph.nodes:
        _, height, width = graph.tensors[node.input].shape
        stride = node.geometry.stride
        counts.append(max(node.matrix.shape) * -(-height // stride[0]) * -(-width // stride[1])
                      if node.geometry.kernel != (height, width) else max(node.matrix.shape))
    return counts


def _run_chunk(graph: QGraph, weights: list[Weights], m: np.ndarray, exponents: np.ndarray,
               keep_tensors: bool) -> GoldenResult:
    stored, blocks = {graph.input: m}, {graph.input: exponents}
    clipped = Clipped(graph, len(m))
    last = {name: at for at, node in enumerate(graph.nodes)
            for name in (*node.inputs, node.epilogue.add) if name is not None}
    rounded = {name for node in graph.nodes if node.rounds for name in node.inputs}
    exact: dict[str, Sums] = {}
    if graph.input in rounded:
        exact[graph.input] = given(graph, m, exponents)
    readings: dict[str, Reading] = {}
    for at, (node, operand) in enumerate(zip(graph.nodes, weights, strict=True)):
        if node.rounds:
            read, changed = reading(graph, node, exact, blocks)
            readings[node.name] = read
            clipped.rounds(node, changed)
        else:
            read = Reading(mantissas=stored[node.input], exponents=blocks[node.input])
            clipped.reads(node)
        name = node.output
        sums = node_sums(graph, node, operand, read, stored, blocks)
        blocks[name] = sums.exponents
        stored[name], changed = sums.rounded(sums.exponents, graph.tensors[name].format,
                                             graph.acc_bits)
        clipped.stores(name, changed)
        if name in rounded:
            exact[name] = sums
        if not keep_tensors:
            stored = {k: v for k, v in stored.items() if last.get(k, 0) > at or k == name}
            exact = {k: v for k, v in exact.items() if last.get(k, 0) > at}
            readings = {}
    if not keep_tensors:
        stored = {graph.output: stored[graph.output]}
    return GoldenResult(mantissas=stored, exponents=blocks, readings=readings,
                        saturated=clipped.any, unread=clipped.any & ~clipped.needed)


def given(graph: QGraph, m: np.ndarray, exponents: np.ndarray) -> "Sums":
    """Return the network's input, mantissas int32 (N, C, H, W), as if these were its sums."""
    lsb = graph.tensors[graph.input].format.lsb(exponents)
    return Sums(values=m.astype(np.int64), scale=lsb[:, None, None, None],
                activation=PLAIN.activation, exponents=exponents)


def reading(graph: QGraph, node: QNode, exact: dict[str, "Sums"],
            blocks: dict[str, np.ndarray]) -> tuple[Reading, np.ndarray]:
    """Return what a node reads at an exponent of the reading, each tensor rounded from its sums,
    and which values of these were clipped.

    exact, blocks : sums and exponents of the tensors so far, by name.
    """
    together = [blocks[name] for name in node.inputs]
    if node.room is not None:
        assert node.epilogue.add is not None
        together.append(blocks[node.epilogue.add] - node.room)
    exponents = np.max(together, axis=0).clip(node.least, EXPONENT_MAX)
    parts = [exact[name].rounded(exponents, graph.tensors[name].format, graph.acc_bits)
             for name in node.inputs]
    mantissas, clipped = zip(*parts, strict=True)
    return (Reading(mantissas=np.concatenate(mantissas, axis=1), exponents=exponents),
            np.concatenate(clipped, axis=1))


@dataclass(frozen=True, eq=False, kw_only=True)
class Sums:
    """A', a node's sums behind activation and pooling, before their one rounding.

    values : int64 (N, rows, H, W).   scale : S_k, (N, rows, 1, 1), exponent of their unit.
    activation : what they are behind.   exponents : int32 (N,), the tensor's own.
    """

    values: np.ndarray
    scale: np.ndarray
    activation: Activation
    exponents: np.ndarray

    def rounded(self, exponents: np.ndarray, format: Format,
                width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mantissas at exponents (N,), int32 (N, C, H, W), and which of them were clipped.

        width : of the accumulators.
        """
        s_o = format.lsb(exponents)[:, None, None, None]
        m = limited(scale_rne(self.values, self.scale - s_o, width), self.activation, s_o)
        m, clipped = clip_each(m, format.largest)
        return m.astype(np.int32), clipped


def node_sums(graph: QGraph, node: QNode, weights: Weights, read: Reading,
              stored: dict[str, np.ndarray], blocks: dict[str, np.ndarray]) -> Sums:
    """Return the sums of a node.

    stored, blocks : mantissas and exponents of the tensors so far, by name.
    """
    source, target = graph.tensors[node.input], graph.tensors[node.output]
    width = graph.acc_bits
    s_x = source.format.lsb(read.exponents)
    scale = (node.sw[None, :] + s_x[:, None])[:, :, None, None]            # S_k: (N, rows, 1, 1)
    sums = exact_sums(read.mantissas, weights, node.geometry)
    sums += scale_rne(node.bias[:, None, None], node.sb[:, None, None] - scale, OUTPUT_BITS)
    if (add := node.epilogue.add) is not None:
        operand = graph.tensors[add]
        s_r = operand.format.lsb(blocks[add])[:, None, None, None]
        shifted = scale_rne(stored[add], s_r - scale, operand.bits)
        sums += clip(shifted, (1 << width - 3) - 1)[0]
    activation = node.epilogue.activation
    sums = max_pool(activated(sums, activation), node.epilogue.pool)
    exponents = block_exponent(target.exponent, activation, sums, scale[:, :, 0, 0], blocks)
    if node.sw.size != target.shape[0]:     # rows are elements of a map
        sums, scale = (part.reshape(len(part), *target.shape) for part in (sums, scale))
    return Sums(values=sums, scale=scale, activation=activation,
                exponents=exponents.astype(np.int32))
