"""Write what the pages of docs/boards say about pins, LEDs, clocks, speeds and commands.

All of it comes from the table of targets and from the platforms' pins; Fmax from the table of
docs/results.md. A page holds it between two comments, ``facts: BOARD ...`` and ``end of facts``,
which this replaces; the rest of a page is written by hand. ``--check`` writes nothing and has exit
status 1 where a page is not up to date.
"""

import re
import shlex
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from harness.networks import lenet5
from harness.written_pages import main, replaced, table

from celosia_boards.description import LoaderCommand, Target
from celosia_boards.stages import platform_of
from celosia_boards.targets import target, targets
from celosia_hw.parts.uart import uart_divisor

__all__ = ["PAGES", "RESULTS", "fmax", "page", "up_to_date"]

PAGES = Path("docs") / "boards"
RESULTS = Path("docs") / "results.md"
_BLOCK = re.compile(r"(<!-- (facts|commands|table): ([\w -]+) -->\n).*?(<!-- end of \2 -->)",
                    re.DOTALL)
_NETWORK = "lenet5-pruned"


def page(text: str, found: dict[str, float]) -> str:
    """Return a page with its generated blocks made anew; ``found``: see `fmax`."""
    def made(match: re.Match[str]) -> str:
        names = match[3].split()
        lines = {"facts": lambda: _facts([target(name) for name in names], found),
                 "commands": lambda: _commands(target(names[0])),
                 "table": lambda: _table(found)}[match[2]]()
        return f"{match[1]}\n{lines}\n\n{match[4]}"
    return _BLOCK.sub(made, text)


def fmax(results: str) -> dict[str, float]:
    """Return the median Fmax in MHz of each target that the page of results has one of."""
    found = {}
    for block in results.split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("| ").split("|")]
                for line in block.splitlines() if line.startswith("|")]
        if rows and "Fmax, median" in rows[0]:
            at = rows[0].index("Fmax, median")
            found |= {row[0]: float(row[at]) for row in rows[2:]}
    return found


def up_to_date(write: bool) -> list[Path]:
    """Return the pages that are not up to date; with ``write`` they are made so."""
    found = fmax(RESULTS.read_text(encoding="utf-8"))
    return replaced(sorted(PAGES.glob("*.md")), lambda text: page(text, found), write)


def _facts(entries: Sequence[Target], found: dict[str, float]) -> str:
    """A table with a column for each board."""
    rows: list[tuple[str, Callable[[Target], str]]] = [
        ("`--target`, `--board`", lambda entry: f"`{entry.name}`"),
        ("FPGA", lambda entry: (entry.device.name.upper()
                                + f", grade {entry.speed}" * bool(entry.speed))),
        ("array", _array),
        ("clock in", lambda entry: f"{entry.crystal_mhz:g} MHz, pin {_pins(entry)['clock']}"),
        ("clock of the array", lambda entry: f"{entry.clock_mhz:g} MHz"),
        ("median Fmax by nextpnr", lambda entry: _mhz(found.get(entry.name))),
        ("serial port, FPGA's side", lambda entry: f"receives on {_pins(entry)['rx']}, sends on "
                                                   f"{_pins(entry)['tx']}"),
        ("bits a second", _baud),
        ("LEDs", _leds),
        ("held high", lambda entry: ", ".join(
            f"{_pins(entry)[name]} (`{name}`)" for name in entry.held)),
        ("`celosia flash` runs", lambda entry: _command(entry, entry.loaders[0], keep=False)),
        ("with `--persistent`", lambda entry: (
            "the same: it is the flash that is written" if entry.loaders[0].persistent is None
            else _command(entry, entry.loaders[0], keep=True))),
        ("or, where that is missing", lambda entry: ", ".join(
            _command(entry, other, keep=False) for other in entry.loaders[1:])),
        ("USB", _usb),
    ]
    lines = [["", *(entry.title for entry in entries)], ["---"] * (len(entries) + 1)]
    told = [[title, *(tell(entry) for entry in entries)] for title, tell in rows]
    return table([*lines, *(line for line in told if any(line[1:]))])


def _commands(entry: Target) -> str:
    """What to type, from the network to the answer."""
    image = " --program lenet5.celo" if _comes_from_flash(entry.name) else ""
    lines = [f"celosia compile {_NETWORK} --target {entry.name} -o lenet5.celo",
             "celosia build lenet5.celo", f"celosia flash build/{entry.name}{image}",
             "celosia doctor",
             "celosia run lenet5.celo --input fashion-mnist --limit 100 --port PORT"]
    return "\n".join(f"    {line}" for line in lines)


@cache
def _comes_from_flash(name: str) -> bool:
    """Whether layers of the network are copied from a board's flash in each inference."""
    return bool(lenet5(name).main_memory["flash_bytes"])


def _array(entry: Target) -> str:
    flash = ", and the board's flash" * bool(entry.array.flash)
    return f"{entry.array.lanes_all} lanes; {entry.main_kib:g} KiB of weights and maps{flash}"


def _table(found: dict[str, float]) -> str:
    """The table of all boards."""
    lines = [["board", "FPGA", "lanes", "clock, MHz", "median Fmax, MHz", "serial port, rx / tx",
              "bits a second", "loader"], ["---", "---", *["---:"] * 3, "---", "---:", "---"]]
    for entry in targets().values():
        if entry.platform:
            pins = _pins(entry)
            lines.append([f"[{entry.title}]({_page_of(entry)}): `{entry.name}`",
                          entry.device.name.upper(), str(entry.array.lanes_all),
                          f"{entry.clock_mhz:g}",
                          _mhz(found.get(entry.name)).removesuffix(" MHz"),
                          f"{pins['rx']} / {pins['tx']}", f"{entry.baud:,}",
                          entry.loaders[0].program])
    return table(lines)


def _page_of(entry: Target) -> str:
    """The page that has its facts, alone or beside those of other boards."""
    for path in sorted(PAGES.glob("*.md")):
        for block in _BLOCK.finditer(path.read_text(encoding="utf-8")):
            if block[2] == "facts" and entry.name in block[3].split():
                return path.name
    return f"{entry.name}.md"


def _pins(entry: Target) -> dict[str, str]:
    """The pins of the clock, the serial port, the LEDs ("led 0") and what is held."""
    platform = platform_of(entry)
    uart = {one.name: one.ios[0].names[0] for one in platform.lookup("uart", 0).ios
            if hasattr(one, "ios")}
    pins = {"rx": uart["rx"], "tx": uart["tx"],
            "clock": platform.lookup(platform.default_clk).ios[0].names[0]}
    pins |= {f"led {led}": platform.lookup("led", led).ios[0].names[0] for _, led in entry.leds}
    return pins | {name: platform.lookup(name, 0).ios[0].names[0] for name in entry.held}


def _mhz(figure: float | None) -> str:
    return "not measured yet" if figure is None else f"{figure:.1f} MHz"


def _baud(entry: Target) -> str:
    divisor = uart_divisor(entry.clock_mhz * 1e6, entry.baud)
    error = entry.clock_mhz * 1e6 / divisor / entry.baud - 1
    return f"{entry.baud:,}, {f'off by {error:+.2%}' if abs(error) > 1e-6 else 'exact'}"


def _leds(entry: Target) -> str:
    pins: dict[int, list[str]] = {}
    for indicator, led in entry.leds:
        pins.setdefault(led, []).append(indicator)
    return "; ".join(f"{' or '.join(shown)}: pin {_pins(entry)[f'led {led}']}"
                     for led, shown in pins.items())


def _command(entry: Target, command: LoaderCommand, *, keep: bool) -> str:
    file = f"build/{entry.name}/celosia.{entry.family.bitstream}"
    more = command.persistent if keep and command.persistent else ()
    return f"`{shlex.join([command.program, *command.options, *more, file])}`"


def _usb(entry: Target) -> str:
    assert entry.usb is not None
    interface = ("" if entry.usb.interface is None
                 else f", serial port on interface {entry.usb.interface}")
    return (f"{entry.usb.vendor:04x}:{entry.usb.product:04x}, `{entry.usb.name}` in its name"
            f"{interface}")


if __name__ == "__main__":
    main(up_to_date, __doc__)
