"""A few hundred program files, damaged or hostile: refused in words, or harmless.

`make bench-bad_inputs` tries thousands, on the simulated gateware too, and archives, data sets and
command lines.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

COUNT = {"bytes changed": 60, "header and section table, mended": 40, "manifest, mended": 60,
         "other sections, mended": 60, "another network, lowered and mended": 30}


@pytest.fixture(scope="module")
def programs():
    """The benchmark's module that changes and judges program files, and the programs."""
    import bad_inputs_networks
    import bad_inputs_programs

    return bad_inputs_programs, bad_inputs_networks.bases(1)


@pytest.mark.parametrize("kind", COUNT)
def test_refused_or_harmless(programs, tmp_path: Path, kind: str) -> None:
    module, bases = programs
    found: Counter = Counter()
    for index in range(COUNT[kind]):
        base = bases[index % len(bases)]
        module.mutant(tmp_path / "net.celo", kind, base, np.random.default_rng(index))
        found[module.judge(tmp_path / "net.celo", base, verilator=False)] += 1
    assert found.keys() <= {module.REFUSED, module.EQUAL, module.CONSISTENT}, found
    assert found[module.REFUSED] > COUNT[kind] // 2


def test_the_judge_sees_what_is_wrong(programs, tmp_path: Path, monkeypatch) -> None:
    """A file that was taken without a look at its meaning would be found out."""
    from celosia import serialise

    module, bases = programs
    path, base = tmp_path / "net.celo", bases[0]
    assert module.KINDS.keys() == COUNT.keys()
    node = base.program.graph.nodes[0]
    node.matrix.data[0] += 1
    base.program.save(path)
    node.matrix.data[0] -= 1
    assert module.judge(path, base, verilator=False) == module.REFUSED
    monkeypatch.setattr(serialise, "_difference", lambda *_: "")
    load = serialise._program

    def keeps_stream(manifest: dict, arrays: dict):
        found = load(manifest, arrays)
        return replace(found, program=replace(found.program,
                                              entries=base.program.program.entries))

    monkeypatch.setattr(serialise, "_program", keeps_stream)
    assert "differs from the golden model's" in module.judge(path, base, verilator=False)
