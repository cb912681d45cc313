"""README, CONTRIBUTING, CITATION.cff, the licences and the changelog."""

import re
import tomllib

import pytest
import yaml

import repository

ROOT = repository.ROOT
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE-TEXT"]
LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def project():
    return tomllib.loads(read("pyproject.toml"))["project"]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_point_at_files(name):
    prose = re.sub(r"`[^`\n]+`", "", read(name))
    targets = [match["target"].partition("#")[0] for match in LINK.finditer(prose)]
    missing = [t for t in targets if t and "://" not in t and not (ROOT / t).exists()]
    assert missing == []


def test_the_readme_shows_one_described_picture_and_the_two_commands():
    readme = read("README.md")
    pictures = [match["text"] for match in LINK.finditer(readme) if match.group().startswith("!")]
    assert len(pictures) == 1
    assert len(pictures[0].split()) >= 5
    assert "make book" in readme
    assert "make test" in readme


def test_commands_named_in_the_documents_exist():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    named = {
        t for name in DOCUMENTS for t in re.findall(r"`?\bmake ([a-z]+)(?=`|$)", read(name), re.MULTILINE)
    }
    assert {"book", "test", "notebooks"} <= named <= targets


def test_how_to_add_takes_ten_lines_each():
    sections = re.findall(r"^## Add an? (\w+)\n\n((?:.+\n)+)", read("CONTRIBUTING.md"), re.MULTILINE)
    assert [name for name, _ in sections] == ["chapter", "algorithm"]
    for _, text in sections:
        assert len(text.splitlines()) <= 10


def test_citation():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert {"cff-version", "message", "title", "authors", "version"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project()["version"]
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def test_changelog_names_the_version():
    headings = re.findall(r"^## \[([^\]]+)\]", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert project()["version"] in headings


def test_licences():
    assert "MIT License" in read("LICENSE")
    assert "creativecommons.org/licenses/by/4.0/legalcode" in read("LICENSE-TEXT")
    assert project()["license"] == "MIT"
