"""The workflows are valid, ask for little and pin what they use."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import repository

WORKFLOWS = sorted((repository.ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent


def run(*command):
    return subprocess.run(command, cwd=repository.ROOT, capture_output=True, text=True)


def test_all_three_are_there():
    assert [path.stem for path in WORKFLOWS] == ["ci", "linkcheck", "publish"]


def test_they_fit_the_schema():
    check = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *WORKFLOWS)
    assert check.returncode == 0, check.stdout + check.stderr


def test_zizmor_finds_nothing():
    check = run(BIN / "zizmor", "--offline", "--no-progress", "--persona", "pedantic", *WORKFLOWS)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_starts_from_no_rights_and_has_limits(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 60
        assert job["permissions"]
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    for action in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", action), action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_make_targets_exist(path):
    makefile = (repository.ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", path.read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_continuous_integration_script_is_sound():
    script = repository.ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).returncode == 0
    assert "make test" in script.read_text(encoding="utf-8")
