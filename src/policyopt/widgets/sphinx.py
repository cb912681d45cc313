"""Sphinx extension: makes the interactive figures of a page work with no kernel and no network.

Add ``policyopt.widgets.sphinx`` to the extensions. To each page that shows a figure's placeholder (the
``text/html`` of its output) it appends one inline module a kind of figure: the figure's source and the host
that mounts it. With MyST-NB, let HTML builds prefer the placeholder to the widget view:
``nb_mime_priority_overrides = [["html", "text/html", 0]]``.
"""

import hashlib
import re

from sphinx.errors import ExtensionError

from policyopt.widgets.base import FOLDER, figure_module

PLACEHOLDER = re.compile(r'<div class="policyopt-widget" data-widget="(\w+)"')


def page_script(kind: str) -> str:
    """The inline module that mounts every placeholder of one kind."""
    source = figure_module(kind)
    host = (FOLDER / "host.js").read_text(encoding="utf-8")
    code = f'{source}\n{host}\nmountAll("{kind}", render);'
    if "</script" in code.lower() or "<!--" in code:
        raise ExtensionError(f"{kind}.js cannot stand inline in a page: it contains '</script' or '<!--'.")
    return f'<script type="module" data-policyopt-figure="{kind}">\n{code}\n</script>\n'


def add_figure_scripts(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body") or ""
    for kind in sorted(set(PLACEHOLDER.findall(body))):
        try:
            context["body"] += page_script(kind)
        except ValueError as error:
            raise ExtensionError(f"Page {pagename}: {error}") from error


def setup(app) -> dict:
    # A changed script must rewrite the pages that inline it, so its digest is part of the configuration.
    sources = b"".join(path.read_bytes() for path in sorted(FOLDER.glob("*.js")))
    app.add_config_value("policyopt_figures", hashlib.sha256(sources).hexdigest(), "html", [str])
    app.connect("html-page-context", add_figure_scripts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
