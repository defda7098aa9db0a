"""What commands that take rounds tell on stderr off a terminal."""

import re

_ROUND = re.compile(r"\w+, round \d+ of \d+: density [\d.]+%(, .+)?\n")


def beside_rounds(told: str) -> str:
    """Return what is told beside a line for each round, of which there is one at least."""
    rest, rounds = _ROUND.subn("", told)
    assert rounds
    return rest
