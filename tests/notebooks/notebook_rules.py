"""What a committed notebook must be. Each rule yields one sentence for each thing that is wrong."""

import ast
import base64
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat

IMAGE_LIMIT = 100_000  # bytes
COPY_LENGTH = 200  # characters of syntax tree; shorter bodies are alike by chance

ABSOLUTE_PATH = re.compile(
    r"(?:(?<![\w.:/~-])/(?:home|root|Users|work|tmp|opt|usr|mnt|var|private|srv|content)/\w"
    r"|(?<![A-Za-z])[A-Za-z]:\\+\w|file:///)"
)
DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,([A-Za-z0-9+/=\s]+)")
MARKDOWN_IMAGE = re.compile(r"!\[(?P<alt>[^\]]*)\]\(\s*<?(?P<target>[^)\s>]+)")
DIRECTIVE = re.compile(
    r"^(?P<fence>[`:]{3,})\{(?:figure|image)\}\s*(?P<target>\S+)[^\n]*\n(?P<body>.*?)^(?P=fence)",
    re.MULTILINE | re.DOTALL,
)


# -- What the package defines -----------------------------------------------------------------------------


def body_of(function: ast.FunctionDef | ast.ClassDef) -> str:
    """The syntax tree of a body without its docstring: equal for copies under another name."""
    statements = function.body
    first = statements[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        statements = statements[1:]
    return "".join(ast.dump(statement) for statement in statements)


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    return (node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))


@cache
def package_definitions(package: Path) -> tuple[dict[str, str], dict[str, str]]:
    """(public name -> module that defines it, body -> name) over the source files, which are not imported."""
    names, bodies = {}, {}
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            body = body_of(node)
            if len(body) >= COPY_LENGTH:
                bodies[body] = f"{module}.{node.name}"
            if not node.name.startswith("_") and not any(part.startswith("_") for part in module.split(".")):
                names.setdefault(node.name, module)
    return names, bodies


def python_of(source: str) -> ast.Module | None:
    """The cell's Python, with IPython's magics and shell lines left out; None where a cell is all magic."""
    if source.lstrip().startswith("%%"):
        return None
    return ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.MULTILINE))


def assigned_names(tree: ast.Module) -> Iterator[str]:
    for statement in tree.body:
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = []
        for target in targets:
            yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))


# -- The rules --------------------------------------------------------------------------------------------


def code_cells(notebook) -> Iterator[tuple[int, nbformat.NotebookNode]]:
    return ((i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code")


def executed_in_order(notebook) -> Iterator[str]:
    for expected, (position, cell) in enumerate(code_cells(notebook), start=1):
        if cell.execution_count is None:
            yield f"cell {position} was never run, so nothing compares its output"
        elif cell.execution_count != expected:
            yield f"cell {position} has execution count {cell.execution_count}; {expected} was expected"


def no_errors(notebook) -> Iterator[str]:
    for position, cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error":
                yield f"cell {position} ends in {output.ename}; catch it and print what it says"


def nothing_redefined(notebook, package: Path) -> Iterator[str]:
    names, bodies = package_definitions(package)
    for position, cell in code_cells(notebook):
        tree = python_of(cell.source)
        if tree is None:
            continue
        defined = [node.name for node in definitions(tree)]
        for name in dict.fromkeys([*defined, *assigned_names(tree)]):
            if name in names:
                yield f"cell {position} redefines {name}, which {names[name]} defines; import it, or rename"
        for node in definitions(tree):
            original = bodies.get(body_of(node))
            if original:
                yield f"cell {position} repeats the body of {original} as {node.name}; use show_source"


def texts(cell) -> Iterator[tuple[str, str]]:
    """(where, text) of a cell's source and its outputs' texts, without encoded pictures."""
    yield "source", cell.source
    for output in cell.get("outputs", []):
        if "text" in output:
            yield f"{output.name} output", output.text
        for kind, value in output.get("data", {}).items():
            if not kind.startswith("image/") and isinstance(value, str):
                yield f"{kind} output", DATA_URI.sub("data:", value)
        yield from (("traceback", line) for line in output.get("traceback", []))


def no_absolute_paths(notebook) -> Iterator[str]:
    for position, cell in enumerate(notebook.cells):
        for where, text in texts(cell):
            found = ABSOLUTE_PATH.search(text)
            if found:
                excerpt = re.match(r"[^\s'\"<>)`]{1,60}", text[found.start() :])[0]
                yield f"cell {position} has the absolute path {excerpt!r} in its {where}"


class ImageTags(HTMLParser):
    """Collects the alternative text of each <img>, and of each <svg> that is not hidden from readers."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []  # (tag, alternative text)
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "img":
            self.found.append(("img", given.get("alt") or ""))
        elif tag == "svg" and given.get("aria-hidden") != "true":
            self.found.append(("svg", given.get("aria-label") or given.get("aria-labelledby") or ""))


def says_something(alt: str) -> bool:
    """At least two words: a file's name or "figure" tells a listener nothing."""
    return len(alt.split()) >= 2


def images_described(notebook) -> Iterator[str]:
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            prose = without_code(cell.source)
            alternatives = [("![...](...)", match["alt"]) for match in MARKDOWN_IMAGE.finditer(prose)]
            for match in DIRECTIVE.finditer(cell.source):
                alt = re.search(r"^\s*:?alt:\s*(.+)$", match["body"], re.MULTILINE)
                alternatives.append((f"the image {match['target']}", alt[1] if alt else ""))
            alternatives += [(f"<{tag}>", alt) for tag, alt in ImageTags(prose).found]
        else:
            described = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            alternatives = []
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                alternatives += [(kind, described) for kind in data if kind.startswith("image/")]
                alternatives += [
                    (f"<{tag}> in HTML", alt) for tag, alt in ImageTags(data.get("text/html", "")).found
                ]
        for what, alt in alternatives:
            if not says_something(alt):
                yield f"cell {position} has no alternative text for {what}, but {alt!r}"


def without_code(markdown: str) -> str:
    """Markdown without its code blocks and spans, in which an image is only spoken of."""
    markdown = re.sub(r"^(`{3,}|~{3,})(?!\{).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)[^`].*?\1", "", markdown)


def images_small(notebook, folder: Path) -> Iterator[str]:
    for position, cell in enumerate(notebook.cells):
        sizes = []
        for output in cell.get("outputs", []):
            for kind, value in output.get("data", {}).items():
                if kind.startswith("image/"):
                    svg = kind == "image/svg+xml"
                    sizes.append((kind, len(value.encode()) if svg else len(base64.b64decode(value))))
        for _, text in [("source", cell.source), *html_outputs(cell)]:
            sizes += [("data URI", len(base64.b64decode(match[1]))) for match in DATA_URI.finditer(text)]
        for bundle in cell.get("attachments", {}).values():
            sizes += [("attachment", len(base64.b64decode(value))) for value in bundle.values()]
        if cell.cell_type == "markdown":
            targets = [m["target"] for r in (MARKDOWN_IMAGE, DIRECTIVE) for m in r.finditer(cell.source)]
            files = [folder / target for target in targets if "://" not in target]
            sizes += [(file.name, file.stat().st_size) for file in files if file.is_file()]
        for what, size in sizes:
            if size > IMAGE_LIMIT:
                yield f"cell {position} has an image ({what}) of {size} bytes; {IMAGE_LIMIT} are allowed"


def html_outputs(cell) -> list[tuple[str, str]]:
    return [
        (where, o.data["text/html"])
        for where, o in enumerate(cell.get("outputs", []))
        if "text/html" in o.get("data", {})
    ]


def widgets_light(notebook) -> Iterator[str]:
    for kind, bundle in notebook.metadata.get("widgets", {}).items():
        for model in bundle.get("state", {}).values():
            if "_esm" in model.get("state", {}):
                yield (
                    f"the {kind} holds a widget's JavaScript: give the widget a text/html form, "
                    "then `make notebooks`"
                )


def problems(notebook, folder: Path, package: Path) -> list[str]:
    return [
        *executed_in_order(notebook),
        *no_errors(notebook),
        *nothing_redefined(notebook, package),
        *no_absolute_paths(notebook),
        *images_described(notebook),
        *images_small(notebook, folder),
        *widgets_light(notebook),
    ]
