"""Stand-ins for the synthesis tools, so that what happens around them can be tested; a host that
waits for no endless run."""

import tempfile
from pathlib import Path

import pytest

from celosia_boards.host import machine

DATA = Path(__file__).parent / "data"

_NEXTPNR = """\
while [ $# -gt 1 ]; do
  case $1 in
    --seed) seed=$2;; --freq) freq=$2;; --report) report=$2;; --log) log=$2;;
    --asc|--textcfg) placed=$2;;
  esac
  shift
done
echo "$seed $freq" >> {calls}
fmax=$(sed -n "s/^$seed $freq //p" {table})
cp {log} "$log"
[ -n "$fmax" ] || {{ echo "ERROR: no routes" >> "$log"; exit 1; }}
echo "{{\\"fmax\\": {{\\"clk\\": {{\\"achieved\\": $fmax, \\"constraint\\": $freq}}}}, \
\\"utilization\\": {{}}}}" > "$report"
echo "seed $seed, $freq MHz" > "$placed"
"""


@pytest.fixture
def fake_tool(tmp_path, monkeypatch):
    """A function that makes a shell script stand for a tool; the cache is empty then."""
    def make(variable, words):
        monkeypatch.setenv("CELOSIA_CACHE", tempfile.mkdtemp(prefix="cache-", dir=tmp_path))
        tool = tmp_path / "tools" / variable.lower()
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{words}\n")
        tool.chmod(0o755)
        monkeypatch.setenv(variable, str(tool))
        return tool
    return make


@pytest.fixture
def placer(tmp_path, fake_tool):
    """A function of {(seed, clock): Fmax in MHz}: the iCE40 tools place accordingly, and fail for
    what is not in it. The bitstream names seed and clock. Returns a function that lists the calls
    of nextpnr so far."""
    calls, table = tmp_path / "calls", tmp_path / "table"

    def make(speeds):
        table.write_text("".join(f"{seed} {clock} {fmax}\n"
                                 for (seed, clock), fmax in speeds.items()))
        calls.write_text("")
        fake_tool("YOSYS", "[ ! -f celosia.ys ] || touch celosia.yosys.log celosia.json")
        fake_tool("NEXTPNR_ICE40", _NEXTPNR.format(calls=calls, table=table,
                                                   log=DATA / "icebreaker.nextpnr.log"))
        fake_tool("ICEPACK", 'cp "$1" "$2"')
        return lambda: calls.read_text().splitlines()
    return make


@pytest.fixture
def impatient(monkeypatch):
    """A host that soon gives a run up: what a machine runs that was reset, or got a damaged stream,
    may never end, and two seconds of that are simulated in a minute."""
    monkeypatch.setattr(machine, "_PATIENCE_S", 0.004)
    monkeypatch.setattr(machine, "_PATIENCE", 4)
