"""What works: kinds of networks that people bring, compiled for two boards and compared with torch.

Small untrained networks, dynamic exponents, 8 bits, no calibration. The outputs of eight random
inputs are compared with torch's in float32.
"""

import argparse
import copy
import warnings

import numpy as np
import torch
from harness.command import main
from harness.kinds import Kind, kinds
from harness.result import Check, Result, Table, unplaced
from torch.utils._pytree import tree_leaves

import celosia
from celosia_spec.errors import CelosiaError

TARGETS = {"icebreaker": 60, "ulx3s-85f": 68}
"""How many kinds each must compile."""


def measure(arguments: argparse.Namespace) -> Result:
    """Compile every kind for every target."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    compiled, refused = [], []
    counts, wrong = dict.fromkeys(TARGETS, 0), []
    for kind in kinds():
        cells, said = [], ""
        for target in TARGETS:
            try:
                program = celosia.compile(copy.deepcopy(kind.model), kind.example, target=target)
            except CelosiaError as refusal:
                cells, said = [*cells, None], unplaced(refusal)
                continue
            counts[target] += 1
            cells.append(program.predicted_cycles)
        if said:
            refused.append([kind.name, said])
            continue
        ratio = _decibels(kind, program)
        if ratio is not None and ratio < arguments.least:
            wrong.append(f"{kind.name}, {ratio:.1f} dB")
        compiled.append([kind.name, *cells, ratio])
    tables = (
        Table.of("What compiles", {"kind": "", **{f"cycles, {name}": ",d" for name in TARGETS},
                                   "outputs, dB": ".1f"}, compiled),
        Table.of("What does not", {"kind": "", "the refusal": ""}, refused))
    checks = [Check.at_least(f"kinds of {len(compiled) + len(refused)} that compile for {name}",
                             counts[name], least, "d") for name, least in TARGETS.items()]
    checks.append(Check.at_most(f"kinds whose outputs have less than {arguments.least:g} dB",
                                len(wrong), 0, "d"))
    return Result(title="Kinds of networks", tables=tables, checks=tuple(checks),
                  notes=tuple(wrong))


def _decibels(kind: Kind, program: celosia.Program) -> float | None:
    """Return the ratio of a program's outputs to its model's, dB, of several the worst; None where
    they are the same, as classes are."""
    rng = np.random.default_rng(0)
    x = tuple(rng.random((8, *one.shape), np.float32) for one in program.inputs)
    model = copy.deepcopy(kind.model).eval().float()
    with torch.no_grad():
        returned = [tree_leaves(model(*(torch.from_numpy(part[at:at + 1]) for part in x)))
                    for at in range(8)]
    answers = celosia.run(program, x if program.takes else x[0]).answers.values()
    ratios = [_ratio(np.concatenate(parts), found)
              for parts, found in zip(zip(*returned, strict=True), answers, strict=True)]
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def _ratio(wanted: np.ndarray, found: np.ndarray) -> float | None:
    if np.array_equal(found, wanted):
        return None
    found = found.reshape(wanted.shape)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


if __name__ == "__main__":
    main(measure, __doc__,
         ("--least", {"type": float, "default": 20.0, "help": "dB that outputs must have "
                                                             "(%(default)s)"}))
