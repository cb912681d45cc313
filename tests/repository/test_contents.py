"""What the repository may hold, and what must stand in one place only."""

import re

import pytest
import yaml

import repository

MEGABYTE = 1_000_000
FILE_LIMIT = MEGABYTE
TOTAL_LIMIT = 40 * MEGABYTE

# Written in halves, or this file would break its own rules.
HOME_PATHS = re.compile(r"(?<![\w.:/~$}])/(?:ho" + r"me/\w|ro" + r"ot\b/?|wo" + r"rk/\w|Us" + r"ers/\w)")
REGISTRIES = re.compile(
    r"(?:pypi\.(?:or" + r"g|python\.or" + r"g)|pythonhosted\.or" + r"g|registry\.npm" + r"js|"
    r"(?:unpkg|jsdelivr)\.(?:co" + r"m|ne" + r"t)|cdnjs\.|download\.pytorch\.or" + r"g|conda\.anaconda)"
)
MAY_NAME_A_REGISTRY = {"binder/requirements.txt"}  # Binder builds from there, with no settings of ours
SPEAKS_OF_PATHS = {"tests/notebooks/test_notebook_rules.py"}  # paths are what its bad examples are made of


def found(pattern: re.Pattern, text: str) -> list[str]:
    return [line.strip()[:120] for line in text.splitlines() if pattern.search(line)]


def test_the_public_address_stands_in_one_place():
    address = yaml.safe_load((repository.ROOT / "_config.yml").read_text())["repository"]["url"]
    owner, name = address.rstrip("/").split("/")[-2:]
    pattern = re.compile(rf"{re.escape(owner)}/{re.escape(name)}|{re.escape(owner)}\.github\.io")
    holders = [path for path, text in repository.text_files().items() if pattern.search(text)]
    assert holders == ["_config.yml"]


@pytest.mark.parametrize(
    ("pattern", "exempt"),
    [(HOME_PATHS, SPEAKS_OF_PATHS), (REGISTRIES, MAY_NAME_A_REGISTRY)],
    ids=["path of a machine", "package registry"],
)
def test_no_file_names_a(pattern, exempt):
    texts = repository.text_files()
    hits = {path: found(pattern, text) for path, text in texts.items() if path not in exempt}
    assert {path: lines for path, lines in hits.items() if lines} == {}


def test_those_patterns_can_find_something():
    assert found(HOME_PATHS, "open('/ho" + "me/me/x')")
    assert found(HOME_PATHS, "cd /wo" + "rk/main")
    assert not found(HOME_PATHS, "see https://example.org/ho" + "me/page")
    assert found(REGISTRIES, "https://pypi.or" + "g/simple")


GENERATED = re.compile(
    r"(^|/)(_build|build|dist|node_modules|\.venv|__pycache__|\.ipynb_checkpoints|\.(pytest|ruff)_cache|"
    r"[^/]*\.egg-info)/|\.(html?|pyc|doctree|gguf|safetensors|whl|so)$|(^|/)\.DS_Store$"
)


def test_nothing_generated_is_kept():
    names = [path.relative_to(repository.ROOT).as_posix() for path in repository.files()]
    assert [name for name in names if GENERATED.search(name)] == []
    assert GENERATED.search("_build/html/index.html")
    assert GENERATED.search("src/policyopt.egg-info/PKG-INFO")


def test_files_are_small():
    sizes = {path.relative_to(repository.ROOT).as_posix(): path.stat().st_size for path in repository.files()}
    assert {name: size for name, size in sizes.items() if size > FILE_LIMIT} == {}
    assert sum(sizes.values()) <= TOTAL_LIMIT


def test_text_files_end_in_one_newline():
    texts = repository.text_files()
    assert [
        name for name, text in texts.items() if text and (not text.endswith("\n") or "\r\n" in text)
    ] == []
