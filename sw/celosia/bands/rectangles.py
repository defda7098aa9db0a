"""What a band fills: rectangles of a map, and zeros around it."""

from dataclasses import dataclass

from celosia.bands.layouts import (
    Lines,
    Stretch,
)


@dataclass(frozen=True, kw_only=True)
class Rectangle:
    """A `celosia_spec.isa.fills.Fill` of one plane of lines, with positions in place of rows and
    banks; position 0 is where a stretch begins."""

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
    height, width = axis.size, across.size
    single = len(across.planes) == 1 and across.step > 1
    phase = -across.planes[0] % across.step if single else 0
    whole = axis.step == across.step == 1 and grid.pitch == width
    first = stretch.line + axis.shifts[0]
    zeros, found = [], []
    for index, plane in enumerate(axis.planes):
        # The map's lines on this plane are grid lines `top` to before `bottom` of the stretch.
        top = min(max(-first, begin), end)
        bottom = min(max(-(-(height - plane) // axis.step) - first, top), end)
        at = grid.before + index * grid.plane_y(span)
        for start, stop in ((begin, top), (bottom, end)):
            if start < stop:
                zeros += [_zeros(layout, stretch, at + place * grid.plane_x(span, plane)
                                 + start * grid.pitch, across.length(column), stop - start)
                          for place, column in enumerate(across.planes) if across.length(column)]
        if top < bottom:
            lines = bottom - top
            found.append(Rectangle(
                zero=False, only=single, step=across.step, phase=phase,
                element=((first + top) * axis.step + plane) * width, channels=stretch.channels,
                run=lines * width if whole else width, lines=1 if whole else lines,
                pitch=axis.step * width, position=at + top * grid.pitch - (phase > 0),
                plane_x=0 if single else grid.plane_x(span, plane), line=grid.pitch))
    if grid.filled:
        zeros += _gaps(layout, stretch, begin, end)
    return zeros + found


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
