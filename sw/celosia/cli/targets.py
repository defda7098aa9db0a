"""``celosia targets``."""

from dataclasses import asdict

from celosia.cli import common


def targets(json: common.Json = False) -> None:
    """List boards and bare devices with their lanes, memories and clocks."""
    from celosia_boards.targets import targets as all_targets

    entries = all_targets().values()
    if json:
        common.emit({"targets": [asdict(entry) | {"lanes": entry.array.lanes}
                                 for entry in entries]})
        return
    table = common.table("targets", "name", "what", "lanes", "clock, MHz", "weight words",
                         "mantissas a bank", "LUTs", "block RAMs", "SPRAMs", "multipliers",
                         "bitstream", words=2)
    for entry in entries:
        array, has = entry.array, entry.resources
        table.add_row(entry.name, entry.title, str(array.lanes), f"{entry.clock_mhz:g}",
                      f"{array.weight_rows * array.groups_max:,}", f"{array.bank_rows:,}",
                      f"{has.luts:,}", str(has.brams), str(has.sprams), str(has.dsps),
                      "yes" if entry.board else "no pins")
    common.show(table)
