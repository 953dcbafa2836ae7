"""The notebooks run, their claims hold (each has its asserts), and lie here as they ran."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))
LARGEST = 1_500_000  # bytes, pictures included


def named(file):
    return file.stem


def read(file):
    return nbformat.read(file, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_seven():
    assert [file.stem[:2] for file in NOTEBOOKS] == [f"{i:02d}" for i in range(1, 8)]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=named)
def test_a_notebook_runs_and_its_claims_hold(file, tmp_path):
    """In an empty folder, which it leaves empty: what is imported is installed."""
    notebook = read(file)
    where = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("file", NOTEBOOKS, ids=named)
def test_a_notebook_is_committed_as_it_ran(file):
    cells = code(read(file))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3 and file.stat().st_size < LARGEST
    assert sum("assert" in cell.source or "close(" in cell.source for cell in cells) >= 5


def test_all_begin_by_installing_what_is_missing():
    first = {code(read(file))[0].source for file in NOTEBOOKS}
    assert len(first) == 1 and "find_spec" in first.pop()
