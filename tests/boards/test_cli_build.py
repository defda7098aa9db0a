"""``celosia build``: exit status, what is refused before work begins, and what the table says."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia import demo
from celosia.api import check_buildable
from celosia.cli import app
from celosia.datasets import shipped_test_images
from celosia_boards.cache import cache_directory
from celosia_boards.clock import highest_clock
from celosia_boards.targets import target
from compiled import core_entries, link

CLOCK = target("icebreaker").clock_mhz
X = np.zeros((1, 16), np.float32)


def small(**options):
    torch.manual_seed(4)
    return celosia.compile(torch.nn.Linear(16, 3).eval(), X, **options)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("build") / "small.celo"
    small(weight_bits=6, activation_bits=5).save(path)
    return path


def invoke(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return result


def test_missed_clock(placer, program, tmp_path):
    """Status 1, one line below the stages, no bitstream; at a clock that it meets, status 0."""
    slow = CLOCK - 3.0
    lower = highest_clock(target("icebreaker"), slow)
    placer({(0, CLOCK): slow, (0, lower): slow})
    out = tmp_path / "out"
    refused = invoke("build", program, "-o", out, status=1)
    assert refused.stdout == ""
    *shown, line = refused.stderr.splitlines()
    assert line.startswith(f"celosia: icebreaker: seed 0 reaches {slow:.1f} MHz and "
                           f"misses the clock of {CLOCK:g} MHz; ")
    assert f"--clock {lower:g}" in line
    assert [stage.partition(":")[0] for stage in shown] == [
        "elaboration", "synthesis", "placement and routing", "seed 0"]
    assert not (out / "celosia.bin").exists()
    done = json.loads(invoke("build", program, "-o", out, "--clock", lower, "--json").stdout)
    assert (done["clock_mhz"], done["fmax_mhz"], done["timing_met"]) == (lower, slow, True)
    assert (out / "celosia.bin").exists()


@pytest.mark.slow
def test_demo_builds_what_it_has_simulated(placer, tmp_path, monkeypatch):
    """The whole of ``celosia demo`` on one image, placed by a stand-in."""
    images, labels = shipped_test_images()
    monkeypatch.setattr(demo, "load_fashion_mnist", lambda split: (images[:40], labels[:40]))
    monkeypatch.setattr(demo, "IMAGES", 1)
    simulator = core_entries(target("icebreaker").array)
    placer({(0, CLOCK): CLOCK + 1.0})
    link(simulator, cache_directory())
    folder = tmp_path / "of mine"
    shown = invoke("demo", "-o", folder)
    assert shown.stdout.endswith(
        f"wrote {folder / 'lenet5.celo'}\nwrote {folder / 'celosia.bin'}; load the board with: "
        f"celosia flash '{folder}'\n")
    assert f"{CLOCK + 1:.1f}" in shown.stdout
    assert [stage.partition(":")[0] for stage in shown.stderr.splitlines()][-6:] == [
        "golden model", "elaboration", "synthesis", "placement and routing", "seed 0", "bitstream"]
    placer({(0, CLOCK): CLOCK - 1.0})
    link(simulator, cache_directory())
    (folder / "celosia.report.json").unlink()
    refused = invoke("demo", "-o", folder, status=1)
    assert "misses the clock" in refused.stderr and not (folder / "celosia.bin").exists()


def test_build_names_the_next_command(placer, program, tmp_path):
    placer({(0, CLOCK): CLOCK + 1.0})
    folder = tmp_path / "of mine"
    shown = invoke("build", program, "-o", folder).stdout
    assert shown.endswith(f"wrote {folder / 'celosia.bin'}; load the board with: celosia flash "
                          f"'{folder}'\n")


def test_table_names_every_seed(placer, program, tmp_path):
    placer({(2, CLOCK): CLOCK - 3, (3, CLOCK): CLOCK - 2})
    shown = invoke("build", program, "-o", tmp_path, "--seed", 2, "--seeds", 2,
                   "--allow-timing-failure").stdout
    assert f"seed 2, {CLOCK:g} missed" in shown
    assert f"seed 3, {CLOCK:g} missed" in shown


def test_array_is_checked_before_the_model_is_read():
    """The model is nonsense, but the target cannot hold nine bits anyway."""
    with pytest.raises(celosia.CelosiaError, match=r"^icebreaker: activation_bits can be at most"):
        celosia.compile("no model", X, activation_bits=9)
    for bits in (3, 9):
        with pytest.raises(celosia.CelosiaError,
                           match=rf"^weight_bits must be 4 to 8, not {bits}$"):
            celosia.compile("no model", X, weight_bits=bits)
    with pytest.raises(celosia.CelosiaError, match=r"^unknown target 'icebraker'; did you mean"):
        celosia.compile("no model", X, target="icebraker")


def test_program_for_another_target():
    """Allowed where the board can hold the array; else the way out is to compile it anew."""
    for_85f = small(target="ecp5-85f")
    check_buildable(for_85f, target("orangecrab-85f"))
    with pytest.raises(celosia.CelosiaError) as caught:
        celosia.build(for_85f, "ecp5-25f")
    assert str(caught.value) == (
        "ecp5-25f: 64 lanes need 64 of its 28 multiplier blocks, which the "
        "program for ecp5-85f asks for; compile it for ecp5-25f (--target ecp5-25f)")
    check_buildable(small(target="ecp5-25f"), target("ecp5-25f"))
