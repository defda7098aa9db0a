"""Every memory image of 12 networks on 4 arrays in both exponent modes, bit for bit.

A change that should not touch the machine must leave these alone. One that does rewrites them, in
a commit of its own: ``python -m pytest tests/fingerprints -n0
--update``.
"""

import functools
import hashlib
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

from celosia.graph import Graph
from celosia.lower import lower
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_spec.errors import CompileError
from celosia_spec.isa import ArrayConfig

pytest.importorskip("torch")
from celosia.frontend import import_model
from fingerprints.networks import NETS, network, samples
from first_machine import THIRTY_TWO, UP5K

STORED = Path(__file__).with_name("images.json")
LARGE = {"weight_rows": 16384, "bank_rows": 1024, "table_rows": 1024, "taps": 1024,
         "writes": 2048, "program_words": 1024, "store_beats": 2048, "residual_beats": 1024}
ARRAYS = {
    "8 lanes": ArrayConfig(lanes=8, quad=2, beat=2, wide_elements=2, weight_bits=6,
                           activation_bits=6, **LARGE),
    "icebreaker": UP5K,
    "ulx3s-85f": THIRTY_TWO,
    "deep": ArrayConfig(lanes=16, quad=4, beat=4, wide_elements=4, deep=True, **LARGE),
}


@functools.cache
def _graph(name: str) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch.export's own code
        return optimise(import_model(network(name), np.zeros((1, *NETS[name].shape), np.float32)))


def _fingerprint(name: str, array: ArrayConfig, exponents: str) -> str:
    """SHA-256 over everything that the machine is given, or the layer that is refused."""
    graph = _graph(name)
    try:
        quantised = quantise(
            graph, exponents=exponents, weight_bits=array.weight_bits,
            calibration=samples(name) if exponents == "static" else None,
            activation_bits=array.activation_bits, acc_bits=array.acc_bits)
        program = lower(quantised, array, target="test", exponents=exponents)
    except CompileError as refusal:
        return f"refused: {refusal.node}"
    digest = hashlib.sha256(f"{program.predicted_cycles} {program.slots}".encode())
    for space in sorted(program.images):
        digest.update(f"{space.name} {program.images[space].size}".encode())
        digest.update(program.images[space].astype("<u4").tobytes())
    for tensor, place in program.places.items():
        digest.update(f"{tensor} {place.space.name} {place.written}".encode())
        digest.update(place.addresses.astype("<i8").tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", NETS)
def test_images(name: str, update: bool) -> None:
    found = {f"{array}, {mode}": _fingerprint(name, ARRAYS[array], mode)
             for array in ARRAYS for mode in ("dynamic", "static")}
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if update:
        STORED.write_text(json.dumps(stored | {name: found}, indent=1, sort_keys=True) + "\n")
    assert update or stored.get(name) == found
