"""The pages say of words and memories what the tables say."""

import re
from pathlib import Path

import pytest
import word_pages

from celosia_spec.isa.controls import HEAD, RECORDS
from celosia_spec.isa.frames import (
    CRC_BYTES,
    CRC_INIT,
    CRC_POLYNOMIAL,
    LONG_REQUEST_BYTES,
    PAD,
    RESYNC,
    SHORT_REQUEST_BYTES,
    Command,
    Kind,
    Reason,
    crc16,
    paddings,
)
from celosia_spec.isa.memories import MEMORIES
from celosia_spec.isa.registers import COUNTER_BITS, Error, Register

ROOT = Path(__file__).parents[2]


def test_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert word_pages.up_to_date(write=False) == [], "run: python benchmarks/word_pages.py"


def test_a_page_that_is_behind_is_found_and_mended(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    texts = {path: (ROOT / path).read_text() for path in word_pages.PAGES}
    for path, text in texts.items():
        (tmp_path / path).write_text(re.sub(r"8\.\.15", "8..14", text))
    monkeypatch.chdir(tmp_path)
    assert word_pages.up_to_date(write=False) == list(word_pages.PAGES)
    assert word_pages.up_to_date(write=True) == list(word_pages.PAGES)
    assert {path: path.read_text() for path in word_pages.PAGES} == texts


def test_every_field_and_memory_stands_in_the_page_of_the_machine() -> None:
    text = (ROOT / "docs" / "machine.md").read_text()
    for name in (*(field.name for record in (HEAD, *RECORDS.values()) for word in record.words
                   for field in word.fields),
                 *(memory.space.name for memory in MEMORIES)):
        assert f"`{name}`" in text


def test_what_the_page_of_the_host_port_says_in_numbers() -> None:
    """Its sentences, and the tables of commands, replies and errors, which are written by hand."""
    text = " ".join((ROOT / "docs" / "host-port.md").read_text().split())
    read, write = (paddings(command) for command in (Command.READ, Command.WRITE))
    there, back = LONG_REQUEST_BYTES + write, SHORT_REQUEST_BYTES + read
    for said in (
            f"reflected polynomial 0x{CRC_POLYNOMIAL:04X}, initial value 0x{CRC_INIT:04X}",
            f'`"123456789"` gives 0x{crc16(b"123456789"):04X}',
            f"Use `{PAD:02X}` for padding", f"`RESYNC` is {len(RESYNC)} bytes `{PAD:02X}`",
            f"A write then takes {LONG_REQUEST_BYTES} + {write} byte times, a read "
            f"{SHORT_REQUEST_BYTES} + {read}: **{there} and {back} byte times",
            f"lets 1 in {1 << 8 * CRC_BYTES:,} of all others pass",
            f"the cycles of the last run, {COUNTER_BITS} bits ({Register.EVENTS})",
            f"array's hash (address {Register.ARRAY_HASH}), the state ({Register.STATUS})"):
        assert said in text, said
    codes = [f"| {code}..{code + 3} | {code.name} + n |" for code in (Command.READ, Command.WRITE)]
    codes += [f"| {code} | {code.name} |" for code in Command if code >= Command.STATUS]
    codes += [f"| {kind} | {kind.name}:" for kind in Kind]
    codes += [f"{reason} {reason.name}" for reason in Reason]
    assert [code for code in codes if code not in text] == []
    errors = text.partition("Error codes;")[2].partition("Codes 4 to 7")[0]
    assert re.findall(r"\| (\d+) \|", errors) == [str(int(code)) for code in Error]
