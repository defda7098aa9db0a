"""What a band fills: rectangles of a map, and zeros around it."""

from dataclasses import dataclass, replace

from celosia.bands.layouts import (
    Lines,
    Stretch,
)
from celosia_spec.qgraph import Edge


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A `celosia_spec.isa.fills.Fill` of one plane of lines, with positions in place of rows and
    banks; position 0 is where a stretch begins.

    moved : which channel is filled in the place of each one; empty: its own.
    """

    zero: bool
    only: bool
    step: int
    phase: int
    element: int
    channels: int
    run: int
    lines: int
    pitch: int
    position: int
    plane_x: int
    line: int
    moved: tuple[int, ...] = ()


def addend(layout: Lines, stretch: Stretch, begin: int, end: int) -> Rectangle | None:
    """Return the fill of a residual operand beside grid lines of a stretch: those lines of it that
    are added to outputs for which the grid lines are filled."""
    grid = layout.grid
    reach = grid.span(0)
    first, last = max(begin - reach, 0), end - reach
    if not layout.addends or first >= last:
        return None
    width, lines = grid.columns.count, last - first
    whole = grid.pitch == width
    return Rectangle(
        zero=False, only=False, step=1, phase=0, element=(stretch.line + first) * width,
        channels=stretch.addends, run=lines * width if whole else width,
        lines=1 if whole else lines, pitch=width, position=first * grid.pitch, plane_x=0,
        line=grid.pitch)


def rectangles(layout: Lines, stretch: Stretch, begin: int, end: int) -> list[Rectangle]:
    """Return the fills of grid lines of a stretch: zeros around the map, and then its lines."""
    if begin == end:
        return []
    grid, span = layout.grid, layout.span
    axis, across = grid.lines, grid.columns
    first = stretch.line + axis.shifts[0]
    zeros, found = [], []
    for index, plane in enumerate(axis.planes):
        # The map's lines on this plane are grid lines `top` to before `bottom` of the stretch.
        top = min(max(-first, begin), end)
        bottom = min(max(-(-(axis.size - plane) // axis.step) - first, top), end)
        at = grid.before + index * grid.plane_y(span)
        for start, stop in ((begin, top), (bottom, end)):
            if start < stop:
                zeros += [_zeros(layout, stretch, at + place * grid.plane_x(span, plane)
                                 + start * grid.pitch, across.length(column), stop - start)
                          for place, column in enumerate(across.planes) if across.length(column)]
        begins, ends = ((first + line) * axis.step + plane for line in (top, bottom))
        found += [replace(part, position=part.position + at + (top + down) * grid.pitch)
                  for down, lines, line in axis.runs(range(begins, ends, axis.step))
                  for left, run, column in across.runs(range(across.size))
                  for part in _lines(layout, stretch, plane, line, lines, left, run, column)]
    if grid.filled:
        zeros += _gaps(layout, stretch, begin, end)
    return zeros + found


def _lines(layout: Lines, stretch: Stretch, plane: int, line: Edge, lines: int, left: int, run: int,
           column: Edge) -> list[Rectangle]:
    """Return the fill of so many lines of a plane from a line of the map on, and of a run of
    columns, which have so many others to their left; none where no tap reads them. Its position is
    relative to where these lines begin."""
    grid = layout.grid
    axis, across, step = grid.lines, grid.columns, grid.columns.step
    single, width = len(across.planes) == 1, across.stored
    behind = left - across.planes[0] if single else left
    phase, apart = behind % step, 0 if single else grid.plane_x(layout.span, plane)
    position = (behind - phase) // step + phase * apart
    if run == 1 < step:
        if single and phase:
            return []
        step, phase = 1, 0
    whole = axis.step == step == 1 and grid.pitch == run == across.size
    return [Rectangle(
        zero=False, only=single and step > 1, step=step, phase=phase,
        element=line.at * width + column.at, channels=stretch.channels,
        run=lines * width if whole else run, lines=1 if whole else lines, pitch=axis.step * width,
        position=position, plane_x=apart, line=grid.pitch, moved=_moved(line, column))]


def _moved(line: Edge, column: Edge) -> tuple[int, ...]:
    """Return which channel stands in the place of each one in a column of a line."""
    if line.channels and column.channels:
        return tuple(line.channels[channel] for channel in column.channels)
    return line.channels or column.channels


def _zeros(layout: Lines, stretch: Stretch, position: int, run: int, lines: int) -> Rectangle:
    return Rectangle(zero=True, only=False, step=1, phase=0, element=0, channels=stretch.channels,
                     run=run, lines=lines, pitch=0, position=position, plane_x=0,
                     line=layout.grid.pitch)


def _gaps(layout: Lines, stretch: Stretch, begin: int, end: int) -> list[Rectangle]:
    """Return the fills with zeros before, between and behind grid lines of a stretch."""
    grid, span = layout.grid, layout.span
    found = []
    for index_y, plane_y in enumerate(grid.lines.planes):
        for index_x, plane in enumerate(grid.columns.planes):
            at = index_y * grid.plane_y(span) + index_x * grid.plane_x(span, plane_y)
            length = grid.columns.length(plane)
            if grid.before and begin == 0:
                found.append(_zeros(layout, stretch, at, grid.before, 1))
            if grid.pitch > length:
                found.append(_zeros(layout, stretch, at + grid.before + begin * grid.pitch + length,
                                    grid.pitch - length, end - begin))
    return found
