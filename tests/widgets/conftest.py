"""A small Sphinx project with two figures on one page and none on another, and a browser to open it."""

from functools import partial
from textwrap import indent

import pytest
from sphinx.cmd.build import build_main

from policyopt.widgets import BalanceYourself

CONF = """
project = "figures"
extensions = ["policyopt.widgets.sphinx"]
html_theme = "basic"
html_theme_options = {"body_min_width": 0, "nosidebar": True}
"""
PLAIN = """
Plain
=====

The text ``<div class="policyopt-widget" data-widget="balance">`` is no figure.
"""


def figure_page(*placeholders):
    raw = [f".. raw:: html\n\n{indent(placeholder, '   ')}\n" for placeholder in placeholders]
    return "\n".join(["Figures\n=======\n", *raw])


@pytest.fixture(scope="session")
def build_pages():
    """build_pages(folder, placeholders) builds the site there: Sphinx's exit code and the HTML by page."""

    def build(folder, placeholders):
        source = folder / "source"
        if not source.exists():
            source.mkdir()
            (source / "conf.py").write_text(CONF, encoding="utf-8")
            index = figure_page(*placeholders) + "\n.. toctree::\n\n   plain\n"
            (source / "index.rst").write_text(index, encoding="utf-8")
            (source / "plain.rst").write_text(PLAIN, encoding="utf-8")
        code = build_main(["-q", "-W", "-b", "html", str(source), str(folder / "html")])
        return code, {page.stem: page.read_text(encoding="utf-8") for page in folder.glob("html/*.html")}

    return build


@pytest.fixture(scope="session")
def site_of(tmp_path_factory, build_pages):
    """site_of(figure, …) builds a site with these figures on one page: its folder, and the HTML by page."""

    def build(*figures):
        folder = tmp_path_factory.mktemp("figures")
        code, pages = build_pages(folder, [figure.page_html() for figure in figures])
        assert code == 0
        return folder / "html", pages

    return build


@pytest.fixture(scope="session")
def figure_site(site_of):
    """A site with two figures."""
    return site_of(BalanceYourself(), BalanceYourself(seed=20))


@pytest.fixture
def open_site(open_folder, figure_site):
    """open_site(**context options) opens the site; a module has its own where it defines ``figure_site``."""
    return partial(open_folder, figure_site[0])


@pytest.fixture
def open_folder(chromium):
    """open_folder(folder, **context options) opens a site from disk, offline; any error or request fails."""
    complaints, contexts = [], []

    def open_page(folder, stopped_clock=False, **options):
        context = chromium.new_context(offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        if stopped_clock:
            page.clock.install(time=0)
        page.goto((folder / "index.html").as_uri())
        if stopped_clock:
            page.clock.pause_at(60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
