"""Every module of the packages is named on a page, in the words of its own docstring."""

import re
from pathlib import Path

import module_pages
import pytest

from celosia.passes import PASSES
from celosia_spec.errors import Scarce

ROOT = Path(__file__).parents[1]


def named() -> list[str]:
    """Modules in the tables of all pages, by their names in the packages."""
    found: list[str] = []
    for page in module_pages.PAGES:
        room = ""
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if begun := re.match(r"<!-- modules: ([\w.]+) -->", line):
                room = begun[1]
            elif line == "<!-- end of modules -->":
                room = ""
            elif room and (row := re.match(r"\| `([\w/]+)\.py` \| \S.* \|$", line)):
                found.append(f"{room}.{row[1].replace('/', '.')}")
    return found


def test_every_module_is_named_on_one_page() -> None:
    there = [".".join(path.relative_to(ROOT / folder).with_suffix("").parts)
             for folder in ("hw", "boards", "sim", "sw")
             for path in (ROOT / folder).rglob("*.py") if path.name != "__init__.py"]
    assert sorted(named()) == sorted(there), "run: python benchmarks/module_pages.py"


def test_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert module_pages.up_to_date(write=False) == [], "run: python benchmarks/module_pages.py"


def test_a_module_that_says_something_else_is_found_and_mended(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    for path in module_pages.PAGES:
        (tmp_path / path).write_text("<!-- modules: celosia_hw -->\n<!-- end of modules -->\n")
    (tmp_path / "hw" / "celosia_hw" / "parts").mkdir(parents=True)
    module = tmp_path / "hw" / "celosia_hw" / "parts" / "delay.py"
    monkeypatch.chdir(tmp_path)
    for says in ("Values some\ncycles later.", "Values later."):
        module.write_text(f'"""{says}\n\nMore of it.\n"""\n')
        assert module_pages.up_to_date(write=True) == list(module_pages.PAGES)
        assert f"| `parts/delay.py` | {' '.join(says.split())} |" in (
            tmp_path / module_pages.PAGES[0]).read_text()
        assert module_pages.up_to_date(write=False) == []


def test_passes_are_told_in_their_order() -> None:
    page = (ROOT / "docs/compiler.md").read_text(encoding="utf-8")
    names = [step.__name__ for step in PASSES]
    rows = re.findall(r"^\| `(\w+)` \| ", page, re.M)
    assert [row for row in rows if row in names] == names


def test_all_that_can_be_scarce_is_explained() -> None:
    page = (ROOT / "docs/machine.md").read_text(encoding="utf-8")
    table = page.split("## What `check` tells")[1].split("\n\n")[1]
    assert {row.split(" | ")[0].strip("| ") for row in table.splitlines()[2:]} == set(Scarce)
