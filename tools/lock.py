"""Rewrite requirements.txt from the versions installed in the running environment.

The part above "# Brought along" is written by hand: names, groups and why. It keeps its order; only versions
change. To take a newer release: pip install --upgrade NAME in .venv, `make lock`, `make test`.
"""

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
DIVIDER = "# Brought along"
OLDEST_PYTHON = "3.11.0"


def installed_version(name: str) -> str:
    """The version without a local part: 2.13.0 names the CPU build and the others alike."""
    version = metadata.version(name).partition("+")[0]
    pythons = metadata.metadata(name)["Requires-Python"] or ""
    if not SpecifierSet(pythons).contains(OLDEST_PYTHON):
        raise SystemExit(
            f"{name} {version} needs Python {pythons}, but the course runs on {OLDEST_PYTHON} and later; "
            f"install an older {name} in .venv and run make lock again"
        )
    return version


def dependencies(direct: list[Requirement]) -> set[str]:
    """Canonical names of everything the direct requirements need here, themselves included."""
    found: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(r.name), {"", *r.extras}) for r in direct]
    while waiting:
        name, extras = waiting.pop()
        new = extras - found.setdefault(name, set())
        found[name] |= new
        for text in metadata.requires(name) or [] if new else []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": e}) for e in new):
                waiting.append((canonicalize_name(needed.name), {"", *needed.extras}))
    return set(found)


def locked(text: str) -> str:
    """The requirements file with every version as installed and the indirect part made anew."""
    head = text.partition(DIVIDER)[0]
    direct, lines = [], []
    for line in head.splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            direct.append(requirement)
            line = re.split("[=<>!~ ]", line)[0] + "==" + installed_version(requirement.name)
        lines.append(line)
    rest = dependencies(direct) - {canonicalize_name(r.name) for r in direct}
    return "\n".join([*lines, DIVIDER, *(f"{name}=={installed_version(name)}" for name in sorted(rest)), ""])


if __name__ == "__main__":
    before = REQUIREMENTS.read_text(encoding="utf-8")
    after = locked(before)
    REQUIREMENTS.write_text(after, encoding="utf-8")
    changed = sorted(set(after.splitlines()) - set(before.splitlines()))
    print("\n".join(changed) if changed else "requirements.txt already says what is installed.")
