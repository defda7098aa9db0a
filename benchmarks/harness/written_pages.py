"""Pages of docs/ of which parts are written by a script: their tables, and the script's command."""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

__all__ = ["main", "replaced", "table"]


def table(lines: Iterable[Sequence[str]]) -> str:
    """Return lines of cells as Markdown has a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replaced(paths: Iterable[Path], made: Callable[[str], str], write: bool) -> list[Path]:
    """Return the pages that ``made`` changes; with ``write`` they are changed."""
    stale = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if (new := made(text)) != text:
            stale.append(path)
            if write:
                path.write_text(new, encoding="utf-8")
    return stale


def main(up_to_date: Callable[[bool], list[Path]], about: str | None) -> None:
    """Write the pages; with ``--check`` only tell which are not up to date, exit status 1."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    stale = up_to_date(not arguments.check)
    for path in stale:
        print(f"{'not up to date' if arguments.check else 'wrote'}: {path}")
    sys.exit(bool(stale) and arguments.check)
