"""The pages say of words and memories what the tables say."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from celosia_spec.isa.controls import HEAD, RECORDS
from celosia_spec.isa.memories import MEMORIES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that writes them."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    import word_pages
    return word_pages


def test_pages_are_up_to_date(pages: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert pages.up_to_date(write=False) == [], "run: python benchmarks/word_pages.py"


def test_a_page_that_is_behind_is_found_and_mended(
        pages: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    texts = {path: (ROOT / path).read_text() for path in pages.PAGES}
    for path, text in texts.items():
        (tmp_path / path).write_text(re.sub(r"8\.\.15", "8..14", text))
    monkeypatch.chdir(tmp_path)
    assert pages.up_to_date(write=False) == list(pages.PAGES)
    assert pages.up_to_date(write=True) == list(pages.PAGES)
    assert {path: path.read_text() for path in pages.PAGES} == texts


def test_every_field_and_memory_stands_in_the_page_of_the_machine() -> None:
    text = (ROOT / "docs" / "machine.md").read_text()
    for name in (*(field.name for record in (HEAD, *RECORDS.values()) for word in record.words
                   for field in word.fields),
                 *(memory.space.name for memory in MEMORIES)):
        assert f"`{name}`" in text
