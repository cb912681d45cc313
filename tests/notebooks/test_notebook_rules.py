"""Each rule for notebooks lets a good one pass and stops a bad one."""

import base64

import notebook_rules as rules
import pytest
from nbformat import v4

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(100)).decode()
BIG = base64.b64encode(bytes(rules.IMAGE_LIMIT + 1)).decode()

SOURCE = '''
def discounted(rewards, gamma):
    """Sum the rewards backwards."""
    total = 0.0
    returns = []
    for reward in reversed(rewards):
        total = reward + gamma * total
        returns.append(total)
    return returns[::-1]


class Agent:
    pass


def _private():
    pass
'''


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "returns.py").write_text(SOURCE)
    return folder


def code(source="x = 1", outputs=(), count=1, **metadata):
    return v4.new_code_cell(source, outputs=list(outputs), execution_count=count, metadata=metadata)


def shown(**data):
    return v4.new_output(
        "display_data", data={kind.replace("__", "/"): value for kind, value in data.items()}
    )


def problems_of(package, *cells):
    return rules.problems(v4.new_notebook(cells=list(cells)), package.parent, package)


ALT = {"mystnb": {"image": {"alt": "Return against steps, rising to 500."}}}

GOOD = {
    "plain": code(),
    "magic": code("%matplotlib inline\n!ls\nx = 2"),
    "cell magic": code("%%html\n<b>not Python</b>"),
    "import": code("from pack.returns import discounted, Agent"),
    "own function": code("def mine(x):\n    return x + 1"),
    "private name": code("_private = 3"),
    "method of the same name": code("class Mine:\n    def discounted(self):\n        return 1"),
    "described figure": code(outputs=[shown(image__png=PNG)], **ALT),
    "described tag": code(outputs=[shown(text__html='<img src="x.png" alt="A cart and pole">')]),
    "hidden drawing": code(outputs=[shown(text__html='<svg aria-hidden="true"></svg>')]),
    "tag in a script": code(outputs=[shown(text__html='<script>let s = "<img src=x>"</script>')]),
    "described markdown": v4.new_markdown_cell("![A cart and its pole](cart.png)"),
    "described directive": v4.new_markdown_cell(
        "```{figure} cart.png\n:alt: A cart and its pole\n\nCart\n```"
    ),
    "spoken of": v4.new_markdown_cell("Write `![](cart.png)`, or\n\n```\n![](cart.png)\n```"),
    "web address": v4.new_markdown_cell("See https://example.org/home/page and a/tmp/b."),
}

BAD = {
    "never run": (code(count=None), "was never run"),
    "wrong count": (code(count=7), "execution count 7; 1 was expected"),
    "error": (code(outputs=[v4.new_output("error", ename="ValueError", evalue="x")]), "ends in ValueError"),
    "function redefined": (code("def discounted(r):\n    return r"), "redefines discounted"),
    "class redefined": (code("class Agent:\n    x = 1"), "redefines Agent"),
    "name assigned": (code("a, discounted = 1, 2"), "redefines discounted"),
    "copy": (code(SOURCE.replace("def discounted", "def mine").split("\n\n\n")[0]), "repeats the body of"),
    "path in source": (code("open('/home/me/x')"), "absolute path '/home/me/x' in its source"),
    "path in text": (v4.new_markdown_cell("Look in `/tmp/run`."), "absolute path '/tmp/run' in its source"),
    "path in a stream": (
        code(outputs=[v4.new_output("stream", name="stderr", text="x\n/usr/lib/y.py:3: warning")]),
        "in its stderr output",
    ),
    "path in HTML": (code(outputs=[shown(text__html="<td>C:\\Users\\me</td>")]), "in its text/html output"),
    "figure without words": (code(outputs=[shown(image__png=PNG)]), "no alternative text for image/png"),
    "figure of one word": (
        code(outputs=[shown(image__png=PNG)], mystnb={"image": {"alt": "figure"}}),
        "but 'figure'",
    ),
    "tag without words": (code(outputs=[shown(text__html='<img src="x">')]), "no alternative text for <img>"),
    "drawing without words": (
        code(outputs=[shown(text__html="<svg></svg>")]),
        "no alternative text for <svg>",
    ),
    "markdown without words": (v4.new_markdown_cell("![](cart.png)"), "no alternative text for !["),
    "markdown tag": (v4.new_markdown_cell('<img src="cart.png" alt="">'), "no alternative text for <img>"),
    "directive without words": (v4.new_markdown_cell(":::{image} cart.png\n:::"), "the image cart.png"),
    "large figure": (code(outputs=[shown(image__png=BIG)], **ALT), f"of {rules.IMAGE_LIMIT + 1} bytes"),
    "large data URI": (
        code(outputs=[shown(text__html=f'<img alt="A cart" src="data:image/gif;base64,{BIG}">')]),
        "image (data URI)",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_cells_pass(package, name):
    assert problems_of(package, GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_bad_cells_are_named(package, name):
    cell, expected = BAD[name]
    found = problems_of(package, cell)
    assert len(found) == 1
    assert found[0].startswith("cell 0 ")
    assert expected in found[0]


def test_large_files_and_attachments_are_named(package):
    (package.parent / "large.png").write_bytes(bytes(rules.IMAGE_LIMIT + 1))
    linked = v4.new_markdown_cell("![A large picture](large.png)")
    attached = v4.new_markdown_cell("text", attachments={"a.png": {"image/png": BIG}})
    assert ["large.png" in p or "attachment" in p for p in problems_of(package, linked, attached)] == [
        True
    ] * 2


def test_second_cell_out_of_order_is_named(package):
    assert problems_of(package, code(count=1), code(count=3)) == [
        "cell 1 has execution count 3; 2 was expected"
    ]


def test_widget_javascript_in_the_metadata_is_named(package):
    notebook = v4.new_notebook(cells=[code()])
    notebook.metadata["widgets"] = {"state+json": {"state": {"0": {"state": {"_esm": "export default 1"}}}}}
    assert "JavaScript" in rules.problems(notebook, package.parent, package)[0]
