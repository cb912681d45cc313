"""The files of a study: one for each cell, whole or absent.

``STUDY/LABEL__ENVIRONMENT__SEED.npz`` holds a cell's result, and ``….error.json`` in its place why
there is none. ``.running.tmp`` stays empty: cells that are being run are locked in it.
"""

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policyopt.files import check_writable, write_whole

try:
    import fcntl
except ImportError:  # Windows: two runs may do the same cell, and write the same file
    fcntl = None

__all__ = ["Result", "Store", "canonical_json", "pack_result"]


@dataclass(frozen=True)
class Result:
    """What a cell gave.

    Attributes:
        history: for each column of the training's history its values, ``[rows]``.
        returns: of fresh episodes, greedy, ``[eval_episodes]``.
        seconds: from the start of the training to each row of the history, ``[rows]``.
        about: ``run`` and its ``hash``, which say what the cell is, and ``provenance``, which differs from
            one execution to the next, as ``seconds`` does.
    """

    history: dict[str, np.ndarray]
    returns: np.ndarray
    seconds: np.ndarray
    about: dict[str, Any]


def canonical_json(value: Any) -> str:
    """One text for equal values: keys sorted, no spaces.

    Raises:
        TypeError: it holds something other than plain values.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(run: dict[str, Any]) -> str:
    """The SHA-256 of a run's canonical JSON."""
    return hashlib.sha256(canonical_json(run).encode()).hexdigest()


def pack_result(result: Result) -> bytes:
    """A result as the content of a file; all but whole numbers in single precision.

    Raises:
        ValueError: a column does not consist of numbers.
    """
    for name, values in result.history.items():
        if values.dtype.hasobject:
            raise ValueError(f"the history's column {name!r} does not consist of numbers")
    buffer = io.BytesIO()
    arrays = {f"history.{name}": values for name, values in result.history.items()}
    arrays |= {"returns": result.returns, "seconds": result.seconds}
    arrays = {
        name: values.astype("f4") if values.dtype == "f8" else values for name, values in arrays.items()
    }
    np.savez_compressed(buffer, about=np.frombuffer(canonical_json(result.about).encode(), "u1"), **arrays)
    return buffer.getvalue()


class Store:
    """The folder of one study. Of a cell it needs ``name``, its file's without ending, and ``run``, what its
    numbers depend on.

    A lock on a cell is on one byte of an empty file, chosen by the cell's name. The operating system lifts it
    when the process ends, however it ends, so none can be left behind.

    Args:
        folder: it need not exist before ``open_for_writing``.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self._lock_file: int | None = None

    def path(self, cell: Any) -> Path:
        """The file of a cell's result."""
        return self.folder / f"{cell.name}.npz"

    def error_path(self, cell: Any) -> Path:
        """The file of a cell's error."""
        return self.folder / f"{cell.name}.error.json"

    # --- reading ---

    def read(self, cell: Any, version: str | None = None) -> Result | None:
        """A cell's result; None when there is none.

        Args:
            cell: which.
            version: of policyopt, which must have made it.

        Raises:
            ValueError: the file is damaged, of another configuration or another version; the message names
                the file, what differs, and how to go on.
        """
        path = self.path(cell)
        way_on = f"to run the cell again, delete the file; to keep it, move it or the folder {self.folder}"
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(arrays.pop("about").tobytes())
            run, made_by = about["run"], about["provenance"]["policyopt"]
            returns, seconds = arrays.pop("returns"), arrays.pop("seconds")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} is not a cell of a study, or it is damaged; {way_on}") from error
        if hash_of(run) != hash_of(cell.run):
            names = dict.fromkeys([*cell.run, *run])
            name = next(name for name in names if run.get(name) != cell.run.get(name))
            raise ValueError(
                f"{path} belongs to another configuration: its {name} is {run.get(name)!r}, "
                f"this study's is {cell.run.get(name)!r}; {way_on}"
            )
        if version is not None and made_by != version:
            raise ValueError(f"{path} was made by policyopt {made_by}, not by {version}; {way_on}")
        history = {name.removeprefix("history."): values for name, values in arrays.items()}
        return Result(history, returns, seconds, about)

    def is_done(self, cell: Any) -> bool:
        """Whether there is a file of its result."""
        return self.path(cell).is_file()

    def error(self, cell: Any) -> dict[str, Any] | None:
        """Why a cell failed: type, message, end of the traceback; None when it did not, or when it was of
        another configuration or its file cannot be read.
        """
        try:
            about = json.loads(self.error_path(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(about, dict) and about.get("hash") == hash_of(cell.run)
        return about["error"] if same and not self.is_done(cell) else None

    # --- writing ---

    def open_for_writing(self) -> None:
        """Make the folder and see that files can be written to it.

        Raises:
            OSError: they cannot; the message names the folder and says why.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            place = check_writable(self.folder / ".running.tmp")
            self._lock_file = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            reason = error.strerror or error
            raise type(error)(f"cannot write results to {self.folder}: {reason}") from error

    def close(self) -> None:
        """Let go of all claimed cells."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def claim(self, cell: Any) -> bool:
        """Lock a cell against other processes that run the study; False when one of them has it."""
        if not self._lock(cell):
            return False
        for path in (self.path(cell), self.error_path(cell)):
            for leftover in self.folder.glob(f".{path.name}.*.tmp"):  # of a process killed while it wrote
                leftover.unlink(missing_ok=True)
        return True

    def claimed(self, cells: Iterable[Any]) -> set[str]:
        """The names of those cells that another process runs."""
        if not (self.folder / ".running.tmp").is_file():
            return set()
        probe = Store(self.folder)
        try:
            probe.open_for_writing()
            return {cell.name for cell in cells if not probe._lock(cell)}
        except OSError:  # a folder only to be read: nobody runs anything there
            return set()
        finally:
            probe.close()

    def release(self, cell: Any) -> None:
        """Unlock a cell."""
        if fcntl is not None:
            fcntl.lockf(self._lock_file, fcntl.LOCK_UN, 1, _lock_byte(cell))

    def _lock(self, cell: Any) -> bool:
        if fcntl is None:
            return True
        try:
            fcntl.lockf(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _lock_byte(cell))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def write(self, cell: Any, content: bytes) -> None:
        """Store a packed result, and forget an error."""
        write_whole(self.path(cell), content)
        self.error_path(cell).unlink(missing_ok=True)

    def write_error(self, cell: Any, error: dict[str, Any], provenance: dict[str, Any]) -> None:
        """Store why a cell failed."""
        about = {"run": cell.run, "hash": hash_of(cell.run), "error": error, "provenance": provenance}
        text = json.dumps(about, indent=1, ensure_ascii=False)
        write_whole(self.error_path(cell), text.encode())


def _lock_byte(cell: Any) -> int:
    return int(hashlib.sha256(cell.name.encode()).hexdigest()[:15], 16)
