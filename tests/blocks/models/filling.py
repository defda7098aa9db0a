"""Fills by their definition, element by element, and random ones."""

import random
from collections.abc import Iterator

from celosia_spec.isa.array import Array
from celosia_spec.isa.fills import Fill, Move


def wanted(fill: Fill, array: Array) -> Iterator[tuple[int, int, int]]:
    """Yield (element or -1, bank, row) of all that a fill writes, by its definition."""
    size = array.positions(fill.log2_groups)
    for channel in range(fill.channels):
        row_y, bank_y = fill.row + channel, fill.bank
        plane_y = fill.phase_y
        for line in range(fill.lines):
            for x in range(fill.run):
                along, plane_x = divmod(x + fill.phase_x, fill.step_x)
                if fill.only and plane_x:
                    continue
                row = row_y + (plane_x - fill.phase_x) * fill.plane_x_row
                bank = bank_y + (plane_x - fill.phase_x) * fill.plane_x_bank + along
                number = (fill.word + channel * fill.plane) * 4 + fill.element
                number = -1 if fill.zero else (number + line * fill.pitch + x) % (
                    4 * array.main_words)
                yield (number, bank % size,
                       (row + bank // size * fill.rows) % array.bank_rows)
            plane_y += 1
            name = "plane_y" if plane_y < fill.step_y else "line"
            plane_y %= fill.step_y
            row_y += getattr(fill, f"{name}_row")
            bank_y += getattr(fill, f"{name}_bank")


def some_fill(rng: random.Random, array: Array) -> Fill:
    """Return a random fill that fits a band's planes into the banks as a compiler would."""
    log2_groups = rng.randrange(array.groups_max.bit_length())
    size = array.positions(log2_groups)
    channels = rng.choice([1, 2, rng.randrange(1, 9)])
    step_x, step_y = rng.choice([1, 1, 2, 2, 3, 4]), rng.choice([1, 1, 2, 3])
    width = rng.choice([1, 2, rng.randrange(1, 24)])
    height = rng.choice([1, 2, rng.randrange(1, 9)])
    crop = rng.randrange(width) if rng.random() < 0.3 else 0
    run = width - crop if rng.random() < 0.7 else rng.randrange(1, width - crop + 1)
    first = rng.randrange(height)
    lines = rng.randrange(1, height - first + 1)
    pitch = -(-width // step_x) + rng.randrange(2)
    lines_of = -(-height // step_y) + 1
    plane_x = pitch * lines_of
    if step_x == 2 and rng.random() < 0.8:
        plane_x += (array.fill // 2 + rng.randrange(2) - plane_x) % array.fill
    plane_y = plane_x * step_x

    def move(positions: int) -> Move:
        return positions // size * channels, positions % size

    at = {name: move(positions) for name, positions in (
        ("plane_x", plane_x), ("plane_y", plane_y), ("line", pitch - (step_y - 1) * plane_y))}
    phase_x = crop % step_x if rng.random() < 0.5 else 0
    row, bank = move(rng.randrange(2 * size))
    return Fill(
        residual=rng.randrange(2), signed=rng.randrange(2), zero=int(rng.random() < 0.2),
        only=int(rng.random() < 0.2), log2_groups=log2_groups, step_x=step_x, step_y=step_y,
        phase_x=phase_x, phase_y=first % step_y, word=rng.randrange(200),
        element=first * width + crop, plane=-(-width * height // 4) + rng.randrange(2),
        channels=channels, run=run, lines=lines, pitch=width,
        row=row + rng.randrange(array.bank_rows), bank=bank, rows=channels,
        **{f"{name}_row": rows for name, (rows, _) in at.items()},
        **{f"{name}_bank": banks for name, (_, banks) in at.items()})
