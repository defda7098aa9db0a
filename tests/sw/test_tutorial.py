"""The tutorial: its page and its notebook are the same, and every cell of it runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 1200
"""Most that a cell may take, a placement on a busy machine included."""


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(DOCS / "tutorial.ipynb", nbformat.NO_CONVERT)


def test_the_notebook_says_what_the_page_says(notebook):
    page = jupytext.read(DOCS / "tutorial.md")
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in page.cells], (
        "make the notebook anew: jupytext --to ipynb --set-kernel python3 docs/tutorial.md")


def test_the_notebook_is_kept_without_outputs(notebook):
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    copied = shutil.copy(DOCS / "tutorial.ipynb", tmp_path)
    execute = Path(sys.executable).with_name("jupyter-execute")
    done = subprocess.run([execute, f"--timeout={SECONDS}", "--inplace", copied],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "tutorial.celo").is_file()
    assert list((tmp_path / "build" / "tutorial").glob("*.bin"))
    text = "".join(output.get("text", "") for cell in nbformat.read(copied, 4).cells
                   for output in cell.get("outputs", ()))
    assert " 0 mismatches" in text
