"""Equations and the code that computes them, linked both ways.

A docstring that says ``Book: eq-gae.`` gets a link to that equation, and below the equation stands a link to
the function. Which function computes which equation is written down in the docstrings alone.
"""

import ast
import re
from functools import cache
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

import policyopt

PACKAGE = Path(policyopt.__file__).parent
NAMED = re.compile(r"\bBook: (eq-[\w-]+(?:, eq-[\w-]+)*)")


@cache
def implementations(package: Path = PACKAGE) -> dict[str, tuple[str, ...]]:
    """The full names of the functions and classes by the label of the equation that their docstring names."""
    found: dict[str, list[str]] = {}

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef) and not child.name.startswith("_"):
                full = f"{name}.{child.name}"
                for match in NAMED.finditer(ast.get_docstring(child) or ""):
                    for label in match[1].split(", "):
                        found.setdefault(label, []).append(full)
                visit(child, full)

    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        visit(ast.parse(path.read_text(encoding="utf-8")), ".".join(p for p in parts if p != "__init__"))
    return {label: tuple(names) for label, names in found.items()}


def computed_by(label: str | None) -> list[str]:
    """Of those the ones that compute it; a checker only names what an exercise is about."""
    return [name for name in implementations().get(label, ()) if ".exercises." not in name]


def labels(text: str) -> list[str]:
    """The equations that the source of a page, Markdown or a notebook, gives a label to."""
    return re.findall(r"(?:\$\$ *\(|:label: )(eq-[\w-]+)", text)


def pages_of_labels(app) -> dict[str, str]:
    """The page of each labelled equation."""
    if not hasattr(app, "equation_pages"):
        sources = {page: Path(app.env.doc2path(page)) for page in app.env.found_docs}
        app.equation_pages = {
            label: page
            for page, path in sorted(sources.items())
            if path.suffix in (".md", ".ipynb")
            for label in labels(path.read_text(encoding="utf-8"))
        }
    return app.equation_pages


def link_docstring(app, what, name, obj, options, lines) -> None:
    """To the equations it names, where they stand in the book already."""
    where = pages_of_labels(app)

    def link(match: re.Match) -> str:
        named = match[1].split(", ")
        if not set(named) <= set(where):
            return match[0]
        return "Book: " + ", ".join(f"equation :eq:`{one}` of :doc:`/{where[one]}`" for one in named)

    lines[:] = NAMED.sub(link, "\n".join(lines)).split("\n")


def link_equations(app, doctree) -> None:
    """Below each equation to the code that names it."""
    for block in list(doctree.findall(nodes.math_block)):
        names = computed_by(block.get("label"))
        if not names:
            continue
        line = nodes.paragraph("", "In code: ", classes=["in-code"])
        for number, name in enumerate(names):
            shown = nodes.literal("", name.removeprefix("policyopt."))
            link = addnodes.pending_xref(
                "",
                shown,
                refdomain="py",
                reftype="obj",
                reftarget=name,
                refdoc=app.env.docname,
                refexplicit=True,
            )
            line += [nodes.Text(", ")] * bool(number) + [link]
        block.parent.insert(block.parent.index(block) + 1, line)


def setup(app):
    # Between napoleon, at 500, and the escaping of bars, at 600.
    app.connect("autodoc-process-docstring", link_docstring, priority=550)
    app.connect("doctree-read", link_equations)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
