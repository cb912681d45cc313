"""The built book, and Chromium with the network cut off to open it.

``book``       the book, built once a session from the working tree, with the build's log and exit status
``open_page``  opens a page of it and fails the test on a console error or a request to the outside

The build takes the longest of all. Under pytest-xdist one worker builds and the others wait for it.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from filelock import FileLock

ROOT = Path(__file__).parents[2]


@cache
def read_config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@cache
def toc_pages():
    """The pages of _toc.yml, as paths without a suffix."""

    def files(entry):
        if isinstance(entry, dict):
            own = [value for key, value in entry.items() if key in ("root", "file")]
            return own + [page for value in entry.values() for page in files(value)]
        return [page for item in entry for page in files(item)] if isinstance(entry, list) else []

    return files(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Book:
    folder: Path  # of the HTML
    log: str
    status: int

    def html_files(self):
        return [page for page in sorted(self.folder.rglob("*.html")) if "_static" not in page.parts]

    @cache  # noqa: B019  (one book a session)
    def soup(self, path):
        return BeautifulSoup((self.folder / path).read_text(encoding="utf-8"), "html.parser")

    @cache  # noqa: B019
    def anchors(self, path):
        soup = self.soup(path)
        return {element["id"] for element in soup.find_all(id=True)} | {
            element["name"] for element in soup.find_all("a", attrs={"name": True})
        }


def pytest_generate_tests(metafunc):
    if "chapter" in metafunc.fixturenames:
        notebooks = [page for page in toc_pages() if (ROOT / f"{page}.ipynb").exists()]
        metafunc.parametrize("chapter", notebooks)
    if "toc_page" in metafunc.fixturenames:
        metafunc.parametrize("toc_page", [f"{page}.html" for page in toc_pages()])
    if "path" in metafunc.fixturenames:
        metafunc.parametrize(
            "path", [f"{page}.html" for page in toc_pages()] + ["search.html", "genindex.html"]
        )


@pytest.fixture(scope="session")
def config():
    return read_config()


@pytest.fixture(scope="session")
def toc():
    return toc_pages()


def build_book(folder):
    log, status = folder / "build.log", folder / "status"
    if not status.exists():
        command = Path(sys.executable).with_name("jupyter-book")
        with log.open("w", encoding="utf-8") as output:
            build = subprocess.run(
                [command, "build", "-W", "-n", "--keep-going", "--all", "--path-output", folder, ROOT],
                cwd=ROOT,
                env={**os.environ, "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=500,
            )
        status.write_text(str(build.returncode), encoding="utf-8")
    return Book(
        folder / "_build" / "html", log.read_text(encoding="utf-8"), int(status.read_text(encoding="utf-8"))
    )


@pytest.fixture(scope="session")
def book(tmp_path_factory):
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "book"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        return build_book(folder)


@pytest.fixture
def open_page(chromium, book):
    """open_page("book/intro.html", server=None, **context options) gives a Playwright page.

    The page comes from disk, or from the address given as ``server``; anything else it asks for is
    refused, and at the end of the test such a request, a console error or an exception fails it.
    """
    complaints, contexts = [], []

    def open_one(path, server=None, **options):
        allowed = ("data:", "blob:", server or book.folder.as_uri())

        def decide(route):
            if route.request.url.startswith(allowed):
                route.continue_()
            else:
                complaints.append(f"asked for {route.request.url}")
                route.abort()

        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        context.route("**/*", decide)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{server or book.folder.as_uri()}/{path}", wait_until="load")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []
