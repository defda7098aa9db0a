"""What passes for accuracy and a wide input gain on trained networks.

MLPerf Tiny's person detector on enlarged pictures of CIFAR-10, its wakeword network on recorded
windows, and its keyword spotter on made inputs, at 8 bits with dynamic exponents
(CELOSIA_EXPERIMENTS and CELOSIA_CIFAR10, see benchmarks/harness/pictures.py). The passes see
calibration inputs; the table is of the others. What is required is required of all given inputs.
"""

import argparse

import numpy as np
from harness.command import main
from harness.result import Check, Result, Table
from harness.tiny import keyword_spotter, person_detector, wakeword

from celosia.accuracy import more_accurate, output_ratio
from celosia.compiler import Compiler
from celosia.float_values import outputs
from celosia_sim.golden import run
from celosia_spec.qgraph import QGraph

NETWORKS = {"person detector": (person_detector, 132, 32, None, 30.0),
            "keyword spotter": (keyword_spotter, 232, 32, None, 20.0),
            "keyword spotter, input of 15 bits": (keyword_spotter, 232, 32, 15, 25.0),
            "wakeword": (wakeword, 45, 20, None, 37.0)}
"""How each is made, of how many inputs, how many are for calibration, bits of the input's mantissas
where these are not 8, and dB that are wanted."""


LABELLED = ("wakeword",)
"""Of which no class may be another one."""


def measure(arguments: argparse.Namespace) -> Result:
    """Measure every network before and after the passes."""
    rows, checks = [], []
    for name, (make, count, calibration, bits, least) in NETWORKS.items():
        network, inputs = make(count)
        x = inputs.numpy()
        compiler = Compiler(target="ulx3s-85f", input_bits=bits,
                            unsigned_input=bool((x >= 0).all()))
        plain = compiler.graph(network, x[:1])
        improved = more_accurate(plain, compiler, x[:calibration])
        wanted, graphs = outputs(plain, x), [compiler.quantised(graph, None)
                                             for graph in (plain, improved.graph)]
        ratios = [output_ratio(graph, x[calibration:], wanted[calibration:]) for graph in graphs]
        reached = output_ratio(graphs[1], x, wanted)
        agreeing = _agreement(graphs[1], x, wanted)
        helping = ", ".join(improved.applied) or "none"
        rows.append([name, calibration, len(x) - calibration, helping, *ratios,
                     reached, agreeing, compiler.schedule(graphs[1]).predicted_cycles])
        checks.append(Check.at_least(f"dB, {name}", round(reached, 2), least, ".2f"))
        if name in LABELLED:
            checks.append(Check.equal(f"classes that differ from float, {name}, of {len(x)}",
                                      round((1 - agreeing) * len(x)), 0))
    table = Table.of(
        "Signal-to-noise ratio of the outputs, dB, 8 bits, dynamic exponents",
        {"network": "", "calibration inputs": "d", "measured on": "d", "passes that help": "",
         "without": ".2f", "with": ".2f", "with, all inputs": ".2f",
         "class as in float": ".1%", "cycles": ",d"}, rows)
    notes = ("A pass is kept where it helps on either half of the calibration inputs, made of the "
             "other: differences of a decibel or two on few inputs are scatter.",)
    return Result(title="Passes for accuracy", tables=(table,), checks=tuple(checks), notes=notes)


def _agreement(graph: QGraph, x: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of inputs whose largest output is the float network's."""
    made = run(graph, x, keep_tensors=False).mantissas[graph.output].reshape(len(x), -1)
    return float((made.argmax(axis=1) == wanted.reshape(len(x), -1).argmax(axis=1)).mean())


if __name__ == "__main__":
    main(measure, __doc__)
