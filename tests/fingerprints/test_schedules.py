"""How some networks run, as `str` of their schedules tells it: a change that is meant shows in
words what it did. ``python -m pytest tests/fingerprints -n0 --update`` writes them anew."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from celosia.bands.schedule import stream_schedule
from celosia.quantise import quantise
from fingerprints.networks import HOW
from fingerprints.test_images import ARRAYS, imported

FOLDER = Path(__file__).with_name("schedules")
BOARD = ARRAYS["icebreaker"]
SCHEDULES = {
    "lenet5": ("lenet5", BOARD), "residual": ("residual", BOARD), "depthwise": ("depthwise", BOARD),
    "several clusters": ("lenet5", ARRAYS["ulx3s-85f"]),
    "copied from flash": ("lenet5", replace(BOARD, main_words=1536)),
    "in parts": ("lenet5", replace(BOARD, main_words=1024))}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name: str, update: bool) -> None:
    network, array = SCHEDULES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = quantise(imported(network), exponents="dynamic", weight_bits=array.weight_bits,
                         activation_bits=array.activation_bits, acc_bits=array.acc_bits)
    found, stored = f"{stream_schedule(graph, array)}\n", FOLDER / f"{name}.txt"
    if update:
        FOLDER.mkdir(exist_ok=True)
        stored.write_text(found, encoding="utf-8")
    assert stored.exists(), HOW
    assert found == stored.read_text(encoding="utf-8"), HOW
