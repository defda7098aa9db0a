"""Every word of 12 networks on 5 arrays in both exponent modes, bit for bit.

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

from celosia.bands.schedule import stream_schedule
from celosia.graph import Graph
from celosia.passes import optimise
from celosia.quantise import quantise
from celosia_boards.targets import target
from celosia_spec.errors import CompileError
from celosia_spec.isa.array import Array
from celosia_spec.isa.image import pack

pytest.importorskip("torch")
from celosia.frontend import import_model
from fingerprints.networks import HOW, NETS, network, samples

STORED = Path(__file__).with_name("images.json")
NARROW = "8 lanes, 6 bits"
BOARDS = tuple(map(target, ("icebreaker", "hx8k-b-evn", "ulx3s-25f", "ulx3s-85f")))
ARRAYS = {
    NARROW: Array(lanes=8, weight_bits=6, activation_bits=6, acc_bits=32, clamp=True),
    **{board.name: board.array for board in BOARDS}}


@functools.cache
def imported(name: str) -> Graph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")     # of torch.export's own code
        return optimise(import_model(network(name), np.zeros((1, *NETS[name].shape), np.float32)))


def _fingerprint(name: str, array: Array, exponents: str) -> str:
    """SHA-256 over everything that the machine is given, or the layer that is refused."""
    graph = imported(name)
    try:
        quantised = quantise(
            graph, exponents=exponents, weight_bits=array.weight_bits,
            calibration=samples(name) if exponents == "static" else None,
            activation_bits=array.activation_bits, acc_bits=array.acc_bits)
        found = stream_schedule(quantised, array)
    except CompileError as refusal:
        return f"refused: {refusal.node}"
    program = found.stream
    digest = hashlib.sha256(
        f"{found.predicted_cycles} {program.list_at} {program.slots} {program.reads}".encode())
    digest.update(program.entries.astype("<u8").tobytes())
    if array.flash:
        digest.update(pack(array, program.sections))
    for tensor, place in program.places.items():
        digest.update(f"{tensor} {place}".encode())
    return digest.hexdigest()


@pytest.mark.parametrize("name", NETS)
def test_images(name: str, update: bool) -> None:
    found = {f"{array}, {mode}": _fingerprint(name, ARRAYS[array], mode)
             for array in ARRAYS for mode in ("dynamic", "static")}
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    if update:
        STORED.write_text(json.dumps(stored | {name: found}, indent=1, sort_keys=True) + "\n")
    assert update or stored.get(name) == found, HOW
