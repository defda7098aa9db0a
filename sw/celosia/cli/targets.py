"""``celosia targets``."""

from celosia.cli import common


def targets(json: common.Json = False) -> None:
    """List boards and bare devices with their lanes, memories and clocks."""
    from celosia_boards.targets import targets as all_targets

    entries = all_targets().values()
    if json:
        common.emit({"targets": [entry.facts() for entry in entries]})
        return
    table = common.table("targets", "name", "board", "lanes", "MHz", "KiB of memory",
                         "flash", "chip", "multipliers", "LUTs", words=2,
                         optional=("LUTs", "multipliers", "chip"))
    for entry in entries:
        has = entry.resources
        table.add_row(entry.name, entry.title, str(entry.array.lanes_all), f"{entry.clock_mhz:g}",
                      f"{entry.main_kib:g}", "yes" if entry.array.flash else "",
                      entry.device.name.upper(), str(has.dsps), f"{has.luts:,}")
    common.show(table)
    print(common.wrapped(
        "memory: of weights that are not zero, 1 or 2 bytes each, and of maps, 2 bytes an element; "
        "flash: weights beyond that come from it; what is no board has no pins, and so no "
        "bitstream"))
