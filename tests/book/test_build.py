"""The build of the book and what it leaves in its files."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import policyopt

ROOT = Path(__file__).parents[2]
EXTENSIONS = ROOT / "book" / "_ext"


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(str(EXTENSIONS))


def test_the_book_builds_without_a_warning(book):
    assert book.status == 0, book.log
    assert "WARNING" not in book.log


def test_page_of_the_table_of_contents_exists(book, toc_page):
    assert (book.folder / toc_page).is_file()


def test_the_root_leads_to_the_first_page(book):
    refresh = book.soup("index.html").find("meta", attrs={"http-equiv": "Refresh"})
    target = refresh["content"].partition("url=")[2]
    assert target == "book/intro.html"
    assert (book.folder / target).is_file()


def test_no_page_names_a_folder_of_this_machine(book):
    folders = {str(ROOT), str(book.folder), sys.prefix, str(Path.home())} - {"/"}
    named = [
        (file.name, folder)
        for file in book.html_files()
        for folder in folders
        if f"{folder}/" in file.read_text(encoding="utf-8")
    ]
    assert named == []


def test_every_link_inside_the_book_leads_somewhere(book):
    broken = []
    for file in book.html_files():
        here = file.relative_to(book.folder)
        for link in book.soup(here).find_all(href=True):
            address = urlsplit(link["href"])
            if address.scheme or address.netloc:
                continue
            target = (file.parent / unquote(address.path)).resolve() if address.path else file
            if not target.is_file():
                broken.append((str(here), link["href"]))
            elif address.fragment and target.suffix == ".html":
                page = target.relative_to(book.folder.resolve()) if address.path else here
                if unquote(address.fragment) not in book.anchors(page):
                    broken.append((str(here), link["href"]))
    assert broken == []


def test_no_page_loads_anything_from_outside(book):
    outside = [
        (file.name, element.name, address)
        for file in book.html_files()
        for element in book.soup(file.relative_to(book.folder)).find_all(
            ["script", "link", "img", "iframe", "source"]
        )
        for address in [element.get("src") or element.get("srcset") or element.get("href") or ""]
        if urlsplit(address).netloc and element.get("rel") != ["canonical"]
    ]
    assert outside == []


def test_chapter_offers_binder_download_and_edit(book, config, chapter):
    repository = config["repository"]["url"]
    branch = config["repository"]["branch"]
    owner_and_name = urlsplit(repository).path.strip("/")
    links = {link["href"] for link in book.soup(f"{chapter}.html").find_all("a", href=True)}
    assert f"https://mybinder.org/v2/gh/{owner_and_name}/{branch}?urlpath=lab/tree/{chapter}.ipynb" in links
    assert f"{repository}/edit/{branch}/{chapter}.ipynb" in links
    assert repository in links
    assert any(link.endswith(f"_sources/{chapter}.ipynb") for link in links)


def test_page_has_a_card_under_the_published_address(book, config, toc_page, extensions):
    from site_address import pages_url

    address = pages_url(config["repository"]["url"])
    card = {
        meta["property"]: meta["content"]
        for meta in book.soup(toc_page).find_all("meta", property=True, content=True)
    }
    assert card["og:url"] == address + toc_page
    assert card["og:title"]
    assert len(card["og:description"]) > 40
    assert card["og:image"].startswith(address)
    assert (book.folder / card["og:image"].removeprefix(address)).is_file()


def test_the_reference_lists_every_public_function_and_class(book):
    public = [getattr(policyopt, name) for name in policyopt.__all__]
    names = {f"{one.__module__}.{one.__qualname__}" for one in public if callable(one)}
    assert names
    assert names - book.anchors("book/appendix/api.html") == set()


def test_pages_url(extensions):
    from site_address import pages_url

    assert pages_url("https://github.com/Some-One/a-course") == "https://some-one.github.io/a-course/"
    assert pages_url("https://github.com/some/course.git/") == "https://some.github.io/course/"


@pytest.mark.parametrize(
    "address", ["", "https://example.org/a/b", "https://github.com/a", "git@github.com:a/b"]
)
def test_pages_url_names_an_address_it_cannot_use(address, extensions):
    from site_address import pages_url

    with pytest.raises(ValueError, match=r"_config\.yml.*OWNER/REPOSITORY") as error:
        pages_url(address)
    assert repr(address) in str(error.value)


def test_broken_mathematics_and_an_animation_without_words_fail_the_build(tmp_path):
    (tmp_path / "conf.py").write_text(
        'extensions = ["myst_parser", "prerendered_math", "animation"]\n'
        'html_math_renderer = "prerendered"\nhtml_theme = "basic"\nmyst_enable_extensions = ["dollarmath"]\n',
        encoding="utf-8",
    )
    (tmp_path / "index.md").write_text(
        "# Page\n\nGood $x^2$, bad $\\frac{1$ and $\\nosuchmacro$.\n\n"
        "```{animation} a.gif\n:still: a.png\n```\n",
        encoding="utf-8",
    )
    build = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-b", "html", tmp_path, tmp_path / "html"],
        env={**os.environ, "PYTHONPATH": str(EXTENSIONS), "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )
    assert "mathematics: Missing close brace in '\\\\frac{1'" in build.stderr
    assert "mathematics: Undefined control sequence \\nosuchmacro" in build.stderr
    assert "animation 'a.gif' needs the option :alt:" in build.stderr
    assert build.stderr.count("mathematics:") == 2
