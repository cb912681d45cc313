"""Binder builds from binder/, and each notebook's launch button opens a file that exists."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from sphinx_book_theme.header_buttons.launch import add_launch_buttons

import repository

ROOT = repository.ROOT
NOTEBOOKS = [path for path in repository.files() if path.suffix == ".ipynb" and "book" in path.parts]


def versions(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def package_name(requirement: str) -> str:
    return re.split(r"[\[=<>!~ ]", requirement)[0].lower()


def test_versions_are_those_of_the_book():
    binder, book = versions("binder/requirements.txt"), versions("requirements.txt")
    assert binder.pop("torch") == book["torch"] + "+cpu"
    assert {name: book.get(name) for name in binder} == binder


def imported_by(notebook: Path) -> set[str]:
    """Top-level names that a notebook's code imports."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n".join(line for c in cells if c["cell_type"] == "code" for line in c["source"])
    return set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.MULTILINE))


def test_everything_the_package_its_studies_and_the_notebooks_need_is_there():
    """Extras that no notebook imports, such as pretrained models, would only make the image larger."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["experiments"]]
    names = {name for notebook in NOTEBOOKS for name in imported_by(notebook)}
    packages = packages_distributions()
    assert "stable_baselines3" in names
    needed += [packages[name][0] for name in names - set(sys.stdlib_module_names) - {"policyopt", "IPython"}]
    there = {package_name(name) for name in versions("binder/requirements.txt")}
    assert {package_name(requirement).replace("_", "-") for requirement in needed} <= there


def test_torch_comes_first():
    assert next(iter(versions("binder/requirements.txt"))) == "torch"


def test_repo2docker_reads_the_folder(tmp_path):
    shutil.copytree(ROOT / "binder", tmp_path / "binder")
    tool = Path(sys.executable).parent / "jupyter-repo2docker"
    command = [tool, "--no-build", "--debug", "--user-id", "1000", "--user-name", "jovyan", "."]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    recipe = made.stdout + made.stderr
    assert made.returncode == 0, recipe[-2000:]
    assert "python=3.11" in recipe
    torch = recipe.index('install --no-cache-dir -r "binder/requirements.txt"')
    sources = recipe.index("COPY --chown=1000:1000 src/ ")
    package = recipe.index("RUN ./binder/postBuild")
    assert torch < sources < package


def test_post_build_installs_the_package_alone():
    script = ROOT / "binder" / "postBuild"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert re.search(r"^pip install .*--no-deps .*--editable \.$", script.read_text(), re.MULTILINE)


def launch_links(docname: str) -> list[str]:
    """The links that the theme's own code makes for a page, from what _config.yml says."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    options = {
        "launch_buttons": config["launch_buttons"],
        "repository_branch": config["repository"]["branch"],
        "path_to_docs": config["repository"]["path_to_book"],
    }
    host, owner, name = config["repository"]["url"].rsplit("/", 2)
    source = SimpleNamespace(
        doc2path=lambda name: str(ROOT / f"{name}.ipynb"), metadata={docname: {"kernelspec": {}}}
    )
    app = SimpleNamespace(env=source, config={"html_theme_options": options})
    context = {
        "pagename": docname,
        "header_buttons": [],
        "sourcename": f"{docname}.ipynb",
        "page_source_suffix": ".ipynb",
        "github_url": host,
        "github_user": owner,
        "github_repo": name,
    }
    add_launch_buttons(app, docname, "page.html", context, None)
    return [button["url"] for group in context["header_buttons"] for button in group["buttons"]]


def test_there_are_notebooks_to_launch():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_launch_link_opens_the_notebook(path):
    links = launch_links(path.relative_to(ROOT).with_suffix("").as_posix())
    assert len(links) == 1
    opened = parse_qs(urlsplit(links[0]).query)["urlpath"][0]
    assert opened.startswith("lab/tree/")
    assert ROOT / opened.removeprefix("lab/tree/") == path
