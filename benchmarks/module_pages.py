"""Write what the docs say about each module: the first paragraph of its docstring.

A page holds it between two comments, ``modules: NAME`` and ``end of modules``, which this replaces:
the modules of a package, or of a room of one, that no other block names more closely. ``--check``
writes nothing and has exit status 1 where a page is not up to date.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.written_pages import main, replaced, table

__all__ = ["PAGES", "page", "up_to_date"]

_FOLDERS = ("hw", "boards", "sim", "sw")
_ROOMS = {"built.md": ("celosia_spec", "celosia.cli", "celosia.live", "celosia.datasets",
                       "celosia.models"),
          "compiler.md": ("celosia", "celosia.frontend", "celosia.passes", "celosia.bands"),
          "machine.md": ("celosia_hw",), "simulation.md": ("celosia_sim",),
          "inside-boards.md": ("celosia_boards",), "inside-compression.md": ("celosia.compress",)}
PAGES = tuple(Path("docs") / name for name in _ROOMS)
_BLOCK = re.compile(r"(<!-- modules: ([\w.]+) -->\n).*?(<!-- end of modules -->)", re.DOTALL)


def page(text: str) -> str:
    """Return a page with its generated blocks made anew."""
    return _BLOCK.sub(lambda match: f"{match[1]}\n{table(_modules(match[2]))}\n\n{match[3]}", text)


def up_to_date(write: bool) -> list[Path]:
    """Return the pages that are not up to date; with ``write`` they are made so."""
    return replaced(PAGES, page, write)


def _modules(room: str) -> Iterator[Sequence[str]]:
    yield f"`{room}`", "what it holds"
    yield "---", "---"
    for folder in _FOLDERS:
        for path in sorted(Path(folder).rglob("*.py")):
            name = ".".join(path.relative_to(folder).with_suffix("").parts)
            if path.name != "__init__.py" and _room(name) == room:
                about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                first = " ".join(about.split("\n\n")[0].split())
                yield f"`{name.removeprefix(f'{room}.').replace('.', '/')}.py`", first


def _room(module: str) -> str:
    """Return the name, of all that are shown, that tells most closely where a module is."""
    return max((name for names in _ROOMS.values() for name in names
                if module.startswith(f"{name}.")), key=len)


if __name__ == "__main__":
    main(up_to_date, __doc__)
