"""What the package promises about itself: imports that go one way, a light import, names that exist."""

import ast
import importlib
import pkgutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import policyopt

SOURCE = Path(policyopt.__file__).parent
UPPER = {"algorithms", "language", "experiments", "widgets", "exercises"}
TOP = {"cli", "tuned", "__init__", "agents", "book"}  # these may know the algorithms
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(SOURCE)], "policyopt."))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    parts = path.relative_to(SOURCE).with_suffix("").parts
    inside = [name.split(".")[1:] for name in imports_of(path) if name.startswith("policyopt.")]
    if parts[0] in UPPER:
        for name in inside:
            same_package = name[0] == parts[0] and parts[0] != "algorithms"
            assert name[0] not in UPPER or same_package or parts[0] in ("experiments", "exercises"), (
                f"{path} imports policyopt.{'.'.join(name)}: one algorithm must not lean on another"
            )
    elif parts[0] not in TOP:
        for name in inside:
            assert name[0] not in UPPER | TOP, f"{path} is a shared module and imports policyopt.{name[0]}"


def test_an_algorithm_is_short():
    for path in (SOURCE / "algorithms").glob("[!_]*.py"):
        code = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(code) <= 200, f"{path.name} has {len(code)} lines"


@pytest.mark.parametrize("name", MODULES)
def test_public_names_exist_and_are_documented(name):
    if name == "policyopt.widgets.sphinx":
        pytest.importorskip("sphinx")
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", ()):
        item = getattr(module, public)
        if callable(item) and getattr(item, "__module__", "").startswith("policyopt"):
            assert item.__doc__, f"{name}.{public} has no docstring"


def test_import_is_light():
    """What must not be imported is checked by name; the time is only compared within one process."""
    heavy = ("pandas", "matplotlib", "tyro", "anywidget", "PIL", "stable_baselines3")
    code = (
        "import torch, gymnasium, sys, time; start = time.perf_counter(); import policyopt;"
        "print(time.perf_counter() - start);"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    seconds = []
    for _ in range(3):
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        lines = result.stdout.splitlines()
        assert lines[1] == "[]"
        seconds.append(float(lines[0]))
    assert statistics.median(seconds) < 1.0  # about 0.05 s on a quiet machine; the promise is 0.3 s
