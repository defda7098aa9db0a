"""What needs words of main memory is placed as if all of it were placed anew each time."""

import random
from collections.abc import Iterable, Mapping

import pytest

from celosia.bands.lives import Life
from celosia.bands.packing import Need, Packing


def meet(one: Life, other: Life) -> bool:
    """Whether both must be there at some node."""
    return one.born <= other.dies and other.born <= one.dies


def _placed(needs: Mapping[int, Need], order: Iterable[int], first: int) -> dict[int, int]:
    """First words, each as low as can be when those before it lie."""
    found: dict[int, int] = {}
    for name in order:
        need = needs[name]
        at = -(-first // need.multiple) * need.multiple
        for other in sorted((other for other in found if meet(needs[other].life, need.life)),
                            key=found.__getitem__):
            if at + need.words <= found[other]:
                break
            at = max(at, found[other] + needs[other].words)
            at = -(-at // need.multiple) * need.multiple
        found[name] = at
    return found


def _before(needs: Mapping[int, Need], first: int, end: int) -> tuple[int, dict[int, int]]:
    """The end, and first words, of the lowest of 12 orders at most."""
    order = sorted(needs, key=lambda name: (-needs[name].words, needs[name].life))
    least = first + max(sum(need.words for need in needs.values() if meet(need.life, Life(at, at)))
                        for at in range(-1, 24))
    tried = []
    for _ in range(12):
        found = _placed(needs, order, first)
        top, last = max((found[name] + needs[name].words, at) for at, name in enumerate(order))
        tried.append((top, found))
        if top <= max(end, least) or least > end or last == 0:
            break
        order.insert(0, order.pop(last))
    return min(tried, key=lambda way: way[0])


@pytest.mark.parametrize("seed", range(40))
def test_needs_whose_lives_change(seed: int) -> None:
    some = random.Random(seed)

    def life() -> Life:
        born = some.randint(-1, 20)
        return Life(born, min(20, born + some.choice([0, 0, 1, 2, 5, 30])))
    needs = {name: Need(words=some.randint(1, 8) * some.choice([1, 16]), life=life(),
                        multiple=some.choice([1, 16])) for name in range(some.randint(2, 30))}
    first = some.randint(0, 40)
    packing = Packing(needs, first)
    for _ in range(8):
        lowest = _before(needs, first, 0)[0]
        for end in (lowest + 5, lowest, lowest - 1, lowest - 20, 0):
            top, found = _before(needs, first, end)
            assert packing.before(end) == found
            assert packing.within(end) == (found if top <= end else None)
        name = some.choice(list(needs))
        needs[name] = Need(words=needs[name].words, life=life(), multiple=needs[name].multiple)
        packing.move(name, needs[name].life)
