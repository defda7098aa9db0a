"""The udev rule: its syntax, and that it lets users at every board and at nothing else."""

import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from celosia.cli import app
from celosia_boards import udev
from celosia_boards.targets import targets

TOKEN = re.compile(r'(?P<key>[A-Z]+)(?:\{(?P<attribute>[A-Za-z_]+)\})?'
                   r'(?P<does>==|!=|\+=|-=|:=|=)"(?P<value>[^"\\]*)"')
MATCHES = {"SUBSYSTEM": False, "ATTRS": True, "KERNEL": False, "ACTION": False, "DRIVERS": False}
ASSIGNS = {"MODE": False, "GROUP": False, "OWNER": False, "TAG": False, "ENV": True}
"""Keys that udev(7) knows of, which ours may use, and whether each takes an attribute."""


def parsed(text):
    """Return the rules of a file as lists of tokens; AssertionError where udev would complain."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            tokens, place = [], 0
            while place < len(line):
                token = TOKEN.match(line, place)
                assert token, line[place:]
                matches = token["does"] in ("==", "!=")
                keys = MATCHES if matches else ASSIGNS
                assert token["key"] in keys, line
                assert bool(token["attribute"]) == keys[token["key"]], line
                assert matches or token["does"] in ("=", "+="), line
                tokens.append(token.groupdict())
                place = token.end()
                if place < len(line):
                    assert line[place:place + 2] == ", ", line[place:]
                    place += 2
            found.append(tokens)
    return found


def applied(subsystem, vendor, product):
    """Return what the rules assign to a device."""
    told = {("SUBSYSTEM", None): subsystem, ("ATTRS", "idVendor"): vendor,
            ("ATTRS", "idProduct"): product}
    result = {}
    for tokens in parsed(udev.rules()):
        matches = [token for token in tokens if token["does"] == "=="]
        assert len(matches) == 3
        if all(told[token["key"], token["attribute"]] in token["value"].split("|")
               for token in matches):
            result |= {token["key"]: token["value"] for token in tokens if token not in matches}
    return result


@pytest.fixture
def groups(monkeypatch):
    """A function that says which groups the system has."""
    grp = pytest.importorskip("grp")

    def are(*names):
        monkeypatch.setattr(grp, "getgrall", lambda: [SimpleNamespace(gr_name=name)
                                                      for name in names])
    return are


def test_every_board_may_be_opened(groups):
    groups("root", "dialout", "plugdev")
    ids = {(place.usb.vendor, place.usb.product) for place in targets().values() if place.usb}
    assert ids
    for vendor, product in ids:
        for subsystem, group in (("usb", "plugdev"), ("hidraw", "plugdev"), ("tty", "dialout")):
            assert applied(subsystem, f"{vendor:04x}", f"{product:04x}") == {
                "MODE": "0660", "GROUP": group, "TAG": "uaccess", "ENV": "1"}
    assert len(parsed(udev.rules())) == 2 * len(ids)
    assert applied("usb", "1d6b", "0002") == applied("tty", "0403", "6001") == {}


def test_every_board_is_named():
    told = [line for line in udev.rules().splitlines() if line.startswith("# ")]
    for place in targets().values():
        if place.usb:
            assert any(place.name in line.removeprefix("# ").split(", ") for line in told)


def test_groups_are_those_of_the_system(groups):
    """A group that is not there makes udev complain."""
    groups("root", "uucp")
    assert applied("usb", "0403", "6010")["GROUP"] == applied("tty", "0403", "6010")[
        "GROUP"] == "uucp"
    groups("root")
    assert applied("tty", "0403", "6010") == {"MODE": "0660", "TAG": "uaccess", "ENV": "1"}


def test_its_place_is_early_enough():
    """udev acts on the tag in 73-seat-late.rules."""
    name = udev.PLACE.rpartition("/")[2]
    assert "50-udev-default.rules" < name < "73-seat-late.rules"
    assert udev.PLACE.startswith("/etc/udev/rules.d/")


def test_the_command_prints_it_and_nothing_else():
    result = CliRunner().invoke(app, ["doctor", "--udev"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, udev.rules(), "")
    assert f"# install: celosia doctor --udev | sudo tee {udev.PLACE}\n" in result.stdout
    answer = json.loads(CliRunner().invoke(app, ["doctor", "--udev", "--json"]).stdout)
    assert answer == {"place": udev.PLACE, "rules": udev.rules(), "install": list(udev.INSTALL)}


@pytest.mark.skipif(not shutil.which("udevadm"), reason="there is no udevadm")
def test_udev_itself_finds_no_fault(tmp_path):
    """udevadm learnt to verify in release 254."""
    file = tmp_path / "60-celosia.rules"
    file.write_text(udev.rules())
    done = subprocess.run(["udevadm", "verify", "--resolve-names=never", file],
                          capture_output=True, text=True, check=False)
    if "Unknown command verb" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this udevadm does not verify")
    assert done.returncode == 0, done.stdout + done.stderr
