"""Every notebook in the book keeps the rules of notebook_rules.py and is in normal form."""

from pathlib import Path

import nbformat
import notebook_rules
import pytest

import notebooks

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = notebooks.find_notebooks(ROOT / "book")


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_keeps_the_rules(path):
    notebook = nbformat.read(path, as_version=4)
    problems = notebook_rules.problems(notebook, path.parent, ROOT / "src" / "policyopt")
    assert not problems, "\n".join([f"{path.relative_to(ROOT)}:", *problems])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_in_normal_form(path):
    assert notebooks.is_normal(path), f"{path.relative_to(ROOT)} is not in normal form; run: make notebooks"
