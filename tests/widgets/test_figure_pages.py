"""The Sphinx extension on a small project."""

import re
import shutil

import pytest
from sphinx.errors import ExtensionError

from policyopt.widgets import base, sphinx
from policyopt.widgets.base import figure_module

PLACEHOLDER = '<div class="policyopt-widget" data-widget="balance"></div>'


@pytest.fixture
def own_scripts(tmp_path, monkeypatch):
    """A copy of the figures' scripts that a test may change, in the place of the package's."""
    folder = tmp_path / "scripts"
    folder.mkdir()
    for path in base.FOLDER.glob("*.js"):
        shutil.copy(path, folder)
    monkeypatch.setattr(base, "FOLDER", folder)
    monkeypatch.setattr(sphinx, "FOLDER", folder)
    return folder


def test_one_script_for_two_figures(figure_site):
    _, pages = figure_site
    assert pages["index"].count('class="policyopt-widget"') == 2
    scripts = re.findall(r'<script type="module"[^>]*>(.*?)</script>', pages["index"], re.DOTALL)
    assert len(scripts) == 1
    assert figure_module("balance") in scripts[0]
    assert scripts[0].rstrip().endswith('mountAll("balance", render);')


def test_no_script_on_other_pages(figure_site):
    _, pages = figure_site
    assert {"index", "plain", "search", "genindex"} <= set(pages)
    for name in pages.keys() - {"index"}:
        assert 'type="module"' not in pages[name], name


def test_search_finds_the_words_of_a_figure_and_not_its_data(figure_site):
    folder, _ = figure_site
    index = (folder / "searchindex.js").read_text(encoding="utf-8")
    assert '"tip"' in index
    assert '"activ"' not in index


def test_unknown_figure_stops_the_build(tmp_path, build_pages, capsys):
    code, _ = build_pages(tmp_path, [PLACEHOLDER.replace("balance", "chess")])
    assert code != 0
    assert "Page index: There is no interactive figure 'chess'; there are: " in capsys.readouterr().err


def test_a_script_that_would_end_its_element_is_refused(own_scripts):
    with (own_scripts / "balance.js").open("a", encoding="utf-8") as file:
        file.write('\nconst bad = "</script>";\n')
    with pytest.raises(ExtensionError, match=r"balance\.js cannot stand inline"):
        sphinx.page_script("balance")


def test_a_changed_script_rewrites_its_pages(tmp_path, own_scripts, build_pages):
    _, before = build_pages(tmp_path, [PLACEHOLDER])
    with (own_scripts / "balance.js").open("a", encoding="utf-8") as file:
        file.write("\n// changed\n")
    _, after = build_pages(tmp_path, [PLACEHOLDER])
    assert "// changed" not in before["index"]
    assert "// changed" in after["index"]
