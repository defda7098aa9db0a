"""The pages of docs/boards say what the table of targets says."""

import re
import shlex
from pathlib import Path

import board_pages
import pytest

from celosia.cli import find
from celosia_boards.targets import target, targets

ROOT = Path(__file__).parents[2]
BOARDS = [name for name, entry in targets().items() if entry.platform]


def texts():
    return {path.name: path.read_text() for path in (ROOT / "docs" / "boards").glob("*.md")}


def test_pages_are_up_to_date(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert board_pages.up_to_date(write=False) == [], "run: python benchmarks/board_pages.py"


def test_a_page_that_is_behind_is_found_and_mended(tmp_path, monkeypatch):
    (tmp_path / "docs" / "boards").mkdir(parents=True)
    page = tmp_path / "docs" / "boards" / "icebreaker.md"
    good = texts()["icebreaker.md"]
    page.write_text(good.replace("receives on 6", "receives on 9"))
    (tmp_path / "docs" / "results.md").write_text((ROOT / "docs" / "results.md").read_text())
    monkeypatch.chdir(tmp_path)
    assert [path.name for path in board_pages.up_to_date(write=False)] == ["icebreaker.md"]
    assert page.read_text() != good
    board_pages.up_to_date(write=True)
    assert page.read_text() == good and board_pages.up_to_date(write=False) == []


def test_every_board_has_its_facts_and_is_in_the_index_and_the_navigation():
    found = texts()
    facts = [name for text in found.values()
             for names in re.findall(r"<!-- facts: (.*) -->", text) for name in names.split()]
    assert sorted(facts) == sorted(BOARDS)
    navigation = (ROOT / "mkdocs.yml").read_text()
    for name in found:
        assert f": boards/{name}\n" in navigation
    for name in BOARDS:
        [link] = re.findall(rf"^\| \[.*?\]\((.*?)\): `{name}` \|", found["index.md"], re.MULTILINE)
        assert f"`{name}`" in found[link]


def test_what_is_typed_names_the_board_s_targets_and_folders():
    """Also in commands that are written by hand."""
    for name, text in texts().items():
        allowed = set(re.findall(r"<!-- facts: (.*) -->", text)) or set(BOARDS)
        allowed = {one for names in allowed for one in names.split()}
        for line in re.findall(r"^    (celosia .*)$", text, re.MULTILINE):
            words = shlex.split(line, comments=True)
            if "--target" in words:
                assert words[words.index("--target") + 1] in allowed, (name, line)
            for word in words:
                if word.startswith("build/"):
                    assert word.removeprefix("build/") in allowed, (name, line)


def test_what_is_typed_is_understood():
    """Every command and option on the pages is one of the command line's."""
    seen = 0
    for name, text in texts().items():
        for line in re.findall(r"^    (celosia .*)$", text, re.MULTILINE):
            _, command, *words = shlex.split(line.partition("|")[0], comments=True)
            known = {option for one in find(command).params for option in one.opts}
            assert {word for word in words if re.match("--?[a-z]", word)} <= known, (name, line)
            seen += 1
    assert seen > 5 * len(BOARDS) / 2


@pytest.mark.parametrize("name", BOARDS)
def test_colours_are_those_of_the_leds(name):
    """What the pages say of LEDs of three colours is how their platforms number them."""
    text = next(text for text in texts().values() if re.search(rf"facts:.*\b{name}\b", text))
    colours = target(name).leds == (("error", 0), ("busy", 1), ("saturated", 2))
    assert colours == ("red error, green busy, blue saturated" in text)
