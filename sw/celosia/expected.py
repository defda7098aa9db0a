"""How large every tensor of a network is likely to be, from its weights alone.

No inputs are needed. Means and variances of channels are carried through the float graph as if all
numbers were independent and normal (as data-free quantisation does: Nagel et al., ICCV 2019, arXiv
1906.04721, appendix C, for the ReLU). Biases bring every layer back to the network's own scale. On
trained networks (MLPerf Tiny's three, ResNet-20) the exponents found lie within 4 of those that
occur, mostly within 1, but for keyword spotting's inputs, which are taken to be 2^7 times smaller.
"""

import math

import numpy as np

from celosia.graph import Conv, Graph
from celosia.weight_matrix import row_parts
from celosia_spec.isa.numbers import EXPONENT_MIN

USUAL_DEVIATION = 0.5
"""Of inputs that were normalised, or are pictures in [0, 1]: mostly it is that or more."""

SPREAD = 3.0
"""Standard deviations above the mean at which a channel's largest number is taken to lie."""

_HUGE = 2.0**100


def expected_exponents(graph: Graph, least_deviation: float = 0.0,
                       least: int = EXPONENT_MIN) -> dict[str, int]:
    """Return the exponent that each tensor of an optimised graph is likely to have, by its name.

    least_deviation : of the inputs; a network whose biases are small does not tell it.
    least           : the smallest exponent.
    """
    channels, shapes = graph.input_map[0], graph.shapes
    deviation = max(least_deviation, _input_deviation(graph))
    means = {graph.input: np.zeros(channels)}
    variances = {graph.input: np.full(channels, deviation**2)}
    exponents = {graph.input: _exponent(means[graph.input], variances[graph.input], least)}
    for node in graph.nodes:
        assert isinstance(node, Conv), f"{node.name}: only optimised graphs have an expectation"
        mean, variance = _sums(node, means, variances, shapes[node.input][1:])
        low, high = node.epilogue.activation.bounds
        exponents[node.name] = _exponent(mean if low == 0 else np.abs(mean), variance, least, high)
        if (low, high) != (-math.inf, math.inf):
            mean, variance = _within(max(low, -_HUGE), min(high, _HUGE), mean, variance)
        if node.map is not None:        # of a channel, all of its elements together
            means_of = mean.reshape(node.map[0], -1)
            mean = means_of.mean(axis=1)
            variance = variance.reshape(node.map[0], -1).mean(axis=1) + means_of.var(axis=1)
        means[node.name], variances[node.name] = mean, variance
    return exponents


def _input_deviation(graph: Graph) -> float:
    """Return the deviation of the inputs with which they count as much as the biases.

    It is the median over the rows that read them, without those of small weights; 1 where there
    are no biases.
    """
    ratios: list[float] = []
    for node in graph.nodes:
        if isinstance(node, Conv) and node.input == graph.input and node.bias is not None:
            energy = np.square(node.weight).sum(axis=(1, 2, 3))
            full = (energy > energy.mean() / 64) & (node.bias != 0)
            ratios += (np.abs(node.bias[full]) / np.sqrt(energy[full])).tolist()
    return float(np.median(ratios)) if ratios else 1.0


def _sums(node: Conv, means: dict[str, np.ndarray], variances: dict[str, np.ndarray],
          size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of a node's rows, bias and residual operand included.

    size : of the map that it reads; of a larger kernel so many elements lie in it at a time.
    """
    mean, variance = np.empty((2, len(node.weight)))
    share = math.prod(min(1.0, own / wide) for own, wide in zip(size, node.kernel, strict=True))
    group = np.arange(len(mean)) // (len(mean) // node.groups)
    read_mean, read_variance = (np.concatenate([of[name] for name in node.read])
                                for of in (means, variances))
    for part in row_parts(len(mean), node.weight[0].size):
        weight, own = node.weight[part], group[part]
        mean[part] = share * _product(weight.sum(axis=(2, 3)), read_mean, own, node.groups)
        variance[part] = share * _product(np.square(weight).sum(axis=(2, 3)), read_variance, own,
                                          node.groups)
    if node.bias is not None:
        mean = mean + node.bias
    if (add := node.epilogue.add) is not None:
        mean, variance = mean + means[add], variance + variances[add]
    return mean, variance


def _product(weights: np.ndarray, values: np.ndarray, group: np.ndarray,
             groups: int) -> np.ndarray:
    """Return each row of weights (rows, channels) times its group's values, (rows,)."""
    products: np.ndarray = np.einsum("rc,rc->r", weights, values.reshape(groups, -1)[group])
    return products


def _within(low: float, high: float, mean: np.ndarray, variance: np.ndarray,
            ) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and variance of min(max(x, low), high), x normal."""
    deviation = np.sqrt(variance) + 2.0**-126       # a constant is normal, too
    shares, densities = [], []
    for end in (low, high):
        z = (mean - end) / deviation
        shares.append(_standard_normal(z))          # of the numbers above the end
        densities.append(deviation * np.exp(-np.square(z) / 2) / math.sqrt(2 * math.pi))
    inside, below, above = shares[0] - shares[1], 1 - shares[0], shares[1]
    first = low * below + high * above + mean * inside + densities[0] - densities[1]
    second = (low**2 * below + high**2 * above + (np.square(mean) + variance) * inside
              + (mean + low) * densities[0] - (mean + high) * densities[1])
    return first, np.maximum(second - np.square(first), 0)


def _standard_normal(z: np.ndarray) -> np.ndarray:
    """Return how likely numbers below z are. (SciPy's would take longer to load than all else.)"""
    return np.array([math.erfc(-x / math.sqrt(2)) / 2 for x in z.tolist()])


def _exponent(mean: np.ndarray, variance: np.ndarray, least: int, high: float = math.inf) -> int:
    """Return floor(log2) of the largest number that is likely, ``least`` at least.

    high : larger ones do not occur.
    """
    largest = min(float((mean + SPREAD * np.sqrt(variance)).max(initial=0.0)), high)
    return math.frexp(max(largest, 2.0**least))[1] - 1
