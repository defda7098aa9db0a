"""When the fills of a band are told that is filled beside the batches of the one before it."""

from celosia.bands.counting import RECORD
from celosia_spec.isa.array import Array
from celosia_spec.isa.controls import HEAD
from celosia_spec.isa.fills import QUEUED, accesses, cycles


def ahead(waiting: list[dict[str, int]], passes: list[int], groups: int, array: Array) -> int:
    """Return how many fills stand before a band's first batch, so that they and its batches are
    done first: they begin sooner then, and the batches later."""
    if not passes:
        return 0
    takes = [cycles(record, array) for record in waiting]

    def ends(before: int) -> int:
        now = filled = 0
        for number, own in enumerate(takes):
            if number == before:
                now += groups * len(HEAD.words)
            now += RECORD
            filled = max(filled, now) + own
        return max(filled, before * RECORD + groups * len(HEAD.words) + sum(passes))
    return min(range(min(len(waiting), QUEUED) + 1), key=ends)


def turns(waiting: list[dict[str, int]], passes: list[int], array: Array) -> dict[int, int]:
    """Return how many fills stand behind which batches, whose passes take so many cycles: as early
    as can be, but so that no batch waits behind one for which there is no room yet."""
    found: dict[int, int] = {}
    done: list[int] = []
    now = 0
    for batch, own in enumerate(passes):
        count = 0
        while len(done) < len(waiting) and (batch == len(passes) - 1 or (
                (count + 1) * RECORD <= own
                and (len(done) < QUEUED or done[-QUEUED] <= now))):
            record = waiting[len(done)]
            # Half of a port that others have, too, is theirs, about.
            done.append(max([now, *done[-1:]]) + cycles(record, array)
                        + accesses(record, array) * (not array.two_ports))
            count += 1
        if count:
            found[batch] = count
        now += own
    return found
