"""Execute the book's notebooks in place and write them in one normal form.

    python tools/notebooks.py               execute and normalise every notebook in book/
    python tools/notebooks.py FILE ...      only these
    python tools/notebooks.py --check       only say which are not in normal form
    python tools/notebooks.py --fresh       take the measurements marked "≈" anew as well

A second run changes nothing: an output that differs from the committed one only in what
tests/notebooks/sanitize.cfg allows stays as committed.
"""

import argparse
import base64
import copy
import json
import os
import re
import struct
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nbformat

from kernel_memory import LIMIT, peak_memory, table

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
RULES = ROOT / "tests" / "notebooks" / "sanitize.cfg"

CELL_SECONDS = 180
IMAGE_LIMIT = 100_000  # bytes
WORKERS = 2

STATE = "application/vnd.jupyter.widget-state+json"
VIEW = "application/vnd.jupyter.widget-view+json"
NOTEBOOK_METADATA = ("mystnb", "myst", "html_meta")
CELL_METADATA = ("tags", "mystnb", "jupyter", "slideshow")
# A cell so tagged draws a measurement of this machine: its picture stays while the text and code stay.
WALL_CLOCK = "wall-clock"


def find_notebooks(folder: Path = BOOK) -> list[Path]:
    hidden = {".ipynb_checkpoints", "_build"}
    return [p for p in sorted(folder.rglob("*.ipynb")) if not hidden & set(p.parts)]


def sanitize_rules(path: Path = RULES) -> list[tuple[re.Pattern, str]]:
    """The (pattern, replacement) pairs, read as nbval reads them."""
    pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [(re.compile(pattern), replacement) for pattern, replacement in pairs]


def load(path: Path) -> nbformat.NotebookNode:
    """The notebook as it stands; nbformat.read would give cells without a name one at random."""
    text = path.read_text(encoding="utf-8")
    found = json.loads(text).get("nbformat")
    if found != 4:
        raise ValueError(f"{path} has notebook format {found}, but only 4 is read; save it from JupyterLab")
    return nbformat.v4.reads_json(text)


# -- Normal form -----------------------------------------------------------------------------------------


def normalise(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy of the notebook in normal form; normalising twice is normalising once."""
    notebook = copy.deepcopy(notebook)
    kept = {
        key: notebook.metadata[key] for key in (*NOTEBOOK_METADATA, "widgets") if key in notebook.metadata
    }
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            **kept,
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = set()
    for position, cell in enumerate(notebook.cells):
        identity = cell.get("id", "")
        while not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", identity) or identity in seen:
            identity = f"cell-{position}" if f"cell-{position}" not in seen else f"{identity}-again"
        seen.add(identity)
        cell.id = identity
        cell.metadata = nbformat.from_dict(
            {k: cell.metadata[k] for k in CELL_METADATA if cell.metadata.get(k)}
        )
        for bundle in cell.get("attachments", {}).values():
            strip_pictures(bundle)
        if cell.cell_type == "code":
            cell.outputs = [normal_output(output, cell) for output in merge_streams(cell.outputs)]
    normalise_widgets(notebook)
    return notebook


def as_text(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def merge_streams(outputs: list) -> list:
    """Neighbouring chunks of one stream joined, with what a carriage return wiped out left out."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else {}
        if output.output_type == "stream" == last.get("output_type") and output.name == last.get("name"):
            last.text += output.text
        else:
            merged.append(output)
    for output in merged:
        if output.output_type == "stream":
            output.text = re.sub(r"^.*\r(?=[^\n])", "", output.text, flags=re.MULTILINE)
    return merged


def normal_output(output, cell):
    if output.output_type == "execute_result":
        output.execution_count = cell.execution_count
    if output.output_type == "stream":
        output.text = hide_addresses(output.text)
    output.pop("transient", None)
    strip_pictures(output.get("data", {}))
    for kind, value in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(value, str):
            output.data[kind] = hide_addresses(value)
    return output


def hide_addresses(text: str) -> str:
    """Where an object lies in memory differs each time and says nothing to a reader."""
    return re.sub(r"\bat 0x[0-9a-fA-F]{4,}", "at 0x...", text)


def strip_pictures(bundle: dict) -> None:
    if isinstance(bundle.get("image/png"), str):
        picture = without_remarks(base64.b64decode(bundle["image/png"]))
        bundle["image/png"] = base64.b64encode(picture).decode("ascii") + "\n"


def without_remarks(png: bytes) -> bytes:
    """The PNG without its text and time chunks, which name the software and the date; no pixel changes."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"an image/png output starts with {png[:8]!r}, which is not a PNG")
    kept, position = [png[:8]], 8
    while position + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[position : position + 8])
        end = position + 12 + length
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"eXIf"):
            kept.append(png[position:end])
        position = end
    return b"".join(kept)


def normalise_widgets(notebook: nbformat.NotebookNode) -> None:
    """Widget state with model names counted from 0 in the order of appearance.

    An anywidget's model carries its whole JavaScript. The kernel makes it anew when the cell runs, and the
    page shows the text/html beside the view; so where there is one, view and model go.
    """
    state = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    views = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if VIEW in output.get("data", {})
    ]
    kept_views = []
    for output in views:
        model = output.data[VIEW].get("model_id")
        if "_esm" in state.get(model, {}).get("state", {}) and "text/html" in output.data:
            for name in referenced(model, state):
                state.pop(name, None)
            del output.data[VIEW]
            output.metadata.pop(VIEW, None)
        else:
            kept_views.append(output)

    order: dict[str, str] = {}
    for root in [*(output.data[VIEW].get("model_id") for output in kept_views), *state]:
        for model in referenced(root, state):
            order.setdefault(model, f"{len(order):032x}")
    for output in kept_views:
        output.data[VIEW]["model_id"] = order.get(output.data[VIEW].get("model_id"))
    if not state:
        notebook.metadata.pop("widgets", None)
        return
    pattern = re.compile("|".join(map(re.escape, order)))
    text = pattern.sub(lambda match: order[match.group()], json.dumps(state, sort_keys=True))
    notebook.metadata.widgets[STATE]["state"] = nbformat.from_dict(json.loads(text))


def referenced(model: str, state: dict) -> list[str]:
    """The model and those it is made of, depth first."""
    found, waiting = [], [model]
    while waiting:
        name = waiting.pop()
        if name in state and name not in found:
            found.append(name)
            parts = re.findall(r"IPY_MODEL_([0-9a-zA-Z-]+)", json.dumps(state[name], sort_keys=True))
            waiting.extend(reversed(parts))
    return found


# -- Execution -------------------------------------------------------------------------------------------


def keep_committed(new, old, rules, fresh: bool = False) -> None:
    """Keep a cell's committed outputs where the new ones differ only in what the rules allow."""

    def sanitized(value):
        if isinstance(value, dict):
            return {key: None if key.startswith("image/") else sanitized(part) for key, part in value.items()}
        for pattern, replacement in rules if isinstance(value, str) else ():
            value = pattern.sub(replacement, value)
        return value

    same_so_far = True
    for cell, before in zip(new.cells, old.cells, strict=True):
        same_so_far &= cell.source == before.source
        if fresh or cell.cell_type != "code" or cell.source != before.source:
            continue
        if [sanitized(o) for o in cell.outputs] != [sanitized(o) for o in before.outputs]:
            same_so_far = False
            continue
        pictures_stay = same_so_far and WALL_CLOCK in cell.metadata.get("tags", [])
        for output, earlier in zip(cell.outputs, before.outputs, strict=True):
            for kind, value in output.get("data", {}).items():
                if not kind.startswith("image/") or pictures_stay:
                    value = earlier["data"][kind]
                output.data[kind] = value
            if "text" in output:
                output.text = earlier.text


def large_pictures(notebook) -> list[str]:
    problems = []
    for position, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            for kind, value in output.get("data", {}).items():
                size = len(value) * 3 // 4 if kind.startswith("image/") and isinstance(value, str) else 0
                if size > IMAGE_LIMIT:
                    problems.append(
                        f"cell {position} makes a picture ({kind}) of {size // 1000} kB; "
                        f"at most {IMAGE_LIMIT // 1000} kB are allowed: fewer dots per inch, or fewer frames"
                    )
    return problems


def run_kernel(notebook, folder: Path) -> int:
    """Execute in place with this environment's Python; returns the kernel's peak memory in bytes."""
    from nbclient import NotebookClient
    from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

    peak = 0
    client = NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(folder)}})
    client.km = client.create_kernel_manager()
    # As under nbval: a kernel of the same name that the user installed elsewhere must not run instead.
    client.km.kernel_spec_manager = NbvalKernelspecManager()
    client.km.kernel_name = CURRENT_ENV_KERNEL_NAME

    def measure(**_) -> None:
        nonlocal peak
        peak = max(peak, peak_memory(client.km.provisioner.pid))

    client.on_cell_executed = measure
    # The kernel's own log only warns of its transport; what a cell writes reaches the notebook regardless.
    client.execute(stderr=subprocess.DEVNULL)
    return peak


def refresh(path: Path, fresh: bool) -> tuple[int, float, list[str]]:
    """Execute one notebook and write it; returns peak memory, seconds and what is wrong with it."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    old = load(path)
    new = copy.deepcopy(old)
    new.metadata.pop("widgets", None)
    started = time.perf_counter()
    try:
        peak = run_kernel(new, path.parent)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        return 0, time.perf_counter() - started, [str(error)]
    seconds = time.perf_counter() - started

    new = normalise(new)
    keep_committed(new, normalise(old), sanitize_rules(), fresh)
    problems = large_pictures(new)
    if peak >= LIMIT:
        problems.append(f"the kernel needs {peak / 1e6:.0f} MB; less than {LIMIT / 1e6:.0f} MB are allowed")
    if not problems:
        write(path, as_text(new))
    return peak, seconds, problems


def write(path: Path, text: str) -> None:
    if path.read_text(encoding="utf-8") != text:
        unfinished = path.with_suffix(".ipynb.tmp")
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)


def is_normal(path: Path) -> bool:
    return as_text(normalise(load(path))) == path.read_text(encoding="utf-8")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Execute the book's notebooks and write them in normal form."
    )
    parser.add_argument("files", nargs="*", type=Path, help="notebooks; all of book/ when none is named")
    parser.add_argument("--check", action="store_true", help="execute nothing; name those not in normal form")
    parser.add_argument("--fresh", action="store_true", help="also replace measurements marked ≈")
    arguments = parser.parse_args(argv)
    files = [path.resolve() for path in arguments.files] or find_notebooks()
    for path in files:
        if path.suffix != ".ipynb" or not path.is_file():
            parser.error(f"{path} is not a notebook; name files that end in .ipynb")

    if arguments.check:
        bad = [path for path in files if not is_normal(path)]
        for path in bad:
            print(f"{shown(path)} is not in normal form; run: make notebooks")
        return 1 if bad else 0

    failed, rows = False, {}
    with ProcessPoolExecutor(min(WORKERS, max(1, len(files)))) as pool:
        for path, (peak, seconds, problems) in zip(
            files, pool.map(refresh, files, [arguments.fresh] * len(files)), strict=True
        ):
            rows[shown(path)] = (peak, seconds)
            for problem in problems:
                failed = True
                print(f"{shown(path)}: {problem}\nThe file was left as it was.", file=sys.stderr)
    print("\n".join(table(rows)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
