"""``celosia targets``."""

from celosia.cli import common


def targets(json: common.Json = False) -> None:
    """List boards and bare devices with their lanes, memories and clocks."""
    from celosia_boards.targets import targets as all_targets

    entries = all_targets().values()
    if json:
        common.emit({"targets": [entry.facts() for entry in entries]})
        return
    table = common.table("targets", "name", "board", "lanes", "MHz", "KiB of weights",
                         "KiB of maps", "sums", "chip", "multipliers", "LUTs", words=2,
                         optional=("LUTs", "multipliers", "chip"))
    for entry in entries:
        has = entry.resources
        sums = "" if entry.sums is None else f"{entry.sums:,}"
        table.add_row(entry.name, entry.title, str(entry.array.lanes), f"{entry.clock_mhz:g}",
                      f"{entry.weight_kib:g}", f"{entry.map_kib:g}", sums,
                      entry.device.name.upper(), str(has.dsps), f"{has.luts:,}")
    common.show(table)
    shared = ("; where no sums are told, one memory has weights and maps, 2 bytes for each weight "
              "or element" * any(entry.sums is None for entry in entries))
    print(common.wrapped(
        "weights: of 8 bits, those that are not zero; maps: mantissas of 8 bits, copies for the "
        f"lanes included; sums: outputs of one layer that wait to be rounded{shared}; what is no "
        "board has no pins, and so no bitstream"))
