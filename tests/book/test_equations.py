"""Equations and docstrings name each other: what the library computes stands in the book, and the reverse."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from policyopt.book import show_source

ROOT = Path(__file__).parents[2]

# Their chapters are still to be written: the comparisons, and how experiments are judged.
AWAITED = {
    "eq-ddpg-actor", "eq-ddpg-critic", "eq-double-dqn", "eq-dqn-loss", "eq-polyak", "eq-sac-actor",
    "eq-sac-critic", "eq-sac-temperature", "eq-squashed-gaussian", "eq-td-target", "eq-td3-critic",
    "eq-td3-smoothing",
    "eq-bootstrap-interval", "eq-conjugate-gradient", "eq-fisher-vector-product",
    "eq-iqm", "eq-kaplan-meier",
    "eq-line-search", "eq-performance-profile", "eq-probability-of-improvement", "eq-restricted-mean",
    "eq-shared-rmsprop", "eq-trpo",
}  # fmt: skip


@pytest.fixture
def equations(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book" / "_ext"))
    import equations

    return equations


def sources(pages):
    """The text of each page; of a notebook its Markdown."""
    for page in pages:
        notebook = ROOT / f"{page}.ipynb"
        if notebook.exists():
            cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
            yield page, "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        else:
            yield page, (ROOT / f"{page}.md").read_text(encoding="utf-8")


@pytest.fixture
def texts(toc):
    return dict(sources(toc))


@pytest.fixture
def labelled(equations, texts):
    """The page of each label; none is given twice."""
    pairs = [(label, page) for page, text in texts.items() for label in equations.labels(text)]
    assert [label for label, count in Counter(label for label, _ in pairs).items() if count > 1] == []
    return dict(pairs)


def test_what_a_docstring_names_stands_in_the_book(equations, labelled):
    named = set(equations.implementations())
    assert len(named) > 30
    assert named - set(labelled) == AWAITED & named
    assert AWAITED - named == set(), "no docstring names these any more"


def test_an_equation_is_computed_or_referred_to(equations, labelled, texts):
    referred = {label for text in texts.values() for label in re.findall(r"\{eq\}`(eq-[\w-]+)`", text)}
    assert sorted(set(labelled) - referred - set(equations.implementations())) == []
    assert sorted(referred - set(labelled)) == []


def test_a_chapter_shows_the_code_of_its_equations(equations, labelled):
    """Of each equation that the library computes, its chapter shows a function that names it."""
    for label, page in labelled.items():
        names = equations.computed_by(label)
        if not names:
            continue
        shown = shown_sources(page)
        assert any(re.search(rf"\b(?:def|class) {name.rpartition('.')[2]}\b", shown) for name in names), (
            f"{page} has {label} but shows none of {', '.join(names)}"
        )


def shown_sources(page):
    """What the outputs of ``show_source`` in a chapter say."""
    cells = json.loads((ROOT / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    return "\n".join(
        "".join(output["data"]["text/plain"])
        for cell in cells
        if cell["cell_type"] == "code" and show_source.__name__ in "".join(cell["source"])
        for output in cell["outputs"]
        if "data" in output
    )


def reference_of(name):
    """The page that describes a function."""
    return "appendix/" + ("api_language" if name.startswith("policyopt.language.") else "api") + ".html"


def test_links_lead_from_the_equation_to_the_code_and_back(book, equations, labelled):
    pages = {reference_of(name) for names in equations.implementations().values() for name in names}
    targets = {
        page: {link["href"] for link in book.soup(f"book/{page}").find_all("a", href=True)} for page in pages
    }
    for label, page in labelled.items():
        links = {link["href"] for link in book.soup(f"{page}.html").select("p.in-code a")}
        for name in equations.computed_by(label):
            where = reference_of(name)
            assert any(link.endswith(f"{where}#{name}") for link in links), f"{label} in {page}: {name}"
            assert f"../{page.removeprefix('book/')}.html#equation-{label}" in targets[where], name
