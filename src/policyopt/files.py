"""Files that are whole or absent, and runs that go on from one as if they had never stopped."""

import dataclasses
import functools
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import gymnasium as gym
import torch
from gymnasium.spaces import Box, Discrete

from policyopt.rollout import EnvSpec

__all__ = [
    "Checkpoint",
    "Number",
    "check_writable",
    "describe_run",
    "load_file",
    "save_file",
    "space_from_dict",
    "space_to_dict",
    "write_whole",
]

FORMAT = "policyopt"

FORMAT_VERSION = 1

FREE = {"config.micro_batch_size"}  # how a step is computed, not which: a run may go on with another


def check_writable(path: str | os.PathLike) -> Path:
    """The path, if a file can be written there; asked before long work, not after it.

    Raises:
        OSError: it is a folder, its folder is missing, or nothing may be written there.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: the folder {path.parent} may not be written to")
    return path


def write_whole(path: str | os.PathLike, data: bytes | Callable[[BinaryIO], None]) -> Path:
    """Write a file, which afterwards is either complete or as it was before.

    Args:
        path: the file.
        data: what it is to hold, or a function that writes it into the open file it is given.

    Raises:
        OSError: the folder is missing, is no folder, is full or cannot be written to.
    """
    path = check_writable(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            os.umask(umask := os.umask(0))
            os.chmod(temporary, 0o666 & ~umask)  # mkstemp's are private; this is to be a file like any other
            data(file) if callable(data) else file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise type(error)(f"cannot write {path}: {error.strerror or error}") from error
        raise
    return path


def save_file(path: str | os.PathLike, content: dict) -> Path:
    """Write tensors and plain values to a file, which afterwards is either complete or as it was before.

    Raises:
        OSError: the folder is missing, is no folder, is full or cannot be written to.
    """
    content = {"format": FORMAT, "format_version": FORMAT_VERSION, **content}

    def write(file: BinaryIO) -> None:  # straight into the file: a checkpoint can be half of the memory
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's own, about its file, hides why it could not be written
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise

    return write_whole(path, write)


def load_file(path: str | os.PathLike, kind: str) -> dict:
    """Read what ``save_file`` wrote; only tensors and plain values are accepted, so a file cannot run code.

    Args:
        path: the file.
        kind: what it must hold, e.g. ``"agent"`` or ``"checkpoint"``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, written by something else, or holds another kind of content.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd pickles before refusing them
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        raise ValueError(f"{path} is not a file of policyopt, or it is damaged") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} was not written by policyopt")
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {content['format_version']}; "
            f"this policyopt reads version {FORMAT_VERSION}"
        )
    if content.get("kind") != kind:
        raise ValueError(f"{path} is of kind {content.get('kind')!r}; needed is one of kind {kind!r}")
    return content


def space_to_dict(space: gym.Space) -> dict[str, Any]:
    """A Box or Discrete space as plain values and tensors, for a file."""
    if isinstance(space, Discrete):
        return {"type": "Discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, Box):
        low, high = torch.from_numpy(space.low.copy()), torch.from_numpy(space.high.copy())
        return {"type": "Box", "low": low, "high": high}
    raise ValueError(f"space {space} cannot be saved; it must be Box or Discrete")


def space_from_dict(description: dict[str, Any]) -> gym.Space:
    """The space that ``space_to_dict`` described."""
    if description["type"] == "Discrete":
        return Discrete(description["n"], start=description["start"])
    low, high = description["low"].numpy(), description["high"].numpy()
    return Box(low, high, dtype=low.dtype.type)


class Checkpoint:
    """A file from which a run goes on as if it had never stopped.

    Args:
        path: the file. If it exists, the run it holds is resumed. With None nothing is read or written.
        every: how many updates lie between two writes.
        run: what the run is (algorithm, environment, configuration, seed), plain values. A file of another
            run is refused; only ``micro_batch_size`` may differ, so that a run can go on with less memory.
        parts: everything with ``state_dict`` and ``load_state_dict`` that changes during the run.

    Raises:
        ValueError: the file is damaged or holds another run; the message names the first difference.
        OSError: no file can be written there.
    """

    def __init__(
        self, path: str | os.PathLike | None, every: int, run: dict[str, Any], parts: dict[str, Any]
    ):
        if every < 1:
            raise ValueError(f"checkpoint_every is {every}; it must be at least 1")
        self.path = None if path is None else check_writable(path)
        self.every, self.run, self.parts = every, run, parts

    def restore(self) -> int:
        """Load the file, if there is one; the number of updates it has behind it."""
        if self.path is None or not self.path.exists():
            return 0
        content = load_file(self.path, "checkpoint")
        for key, wanted in self.run.items():
            if key not in FREE and content["run"].get(key) != wanted:
                raise ValueError(
                    f"{self.path} belongs to another run: its {key} is {content['run'].get(key)!r}, "
                    f"this run's is {wanted!r}; choose another file or delete it"
                )
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        return content["updates"]

    def after(self, updates: int, last: bool) -> None:
        """Write the file if it is time to, or if this update was the last."""
        if last or updates % self.every == 0:
            self.save(updates)

    def save(self, updates: int) -> None:
        """Write the file."""
        if self.path is None:
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save_file(self.path, {"kind": "checkpoint", "run": self.run, "updates": updates, "parts": parts})


@dataclasses.dataclass
class Number:
    """A number that changes during a run and belongs in its checkpoint."""

    value: float

    def state_dict(self) -> dict:
        """The number."""
        return {"value": self.value}

    def load_state_dict(self, state: dict) -> None:
        """Take a saved number."""
        self.value = state["value"]


def describe_run(algorithm: str, env_id: EnvSpec, config: Any, seed: int) -> dict[str, Any]:
    """What tells one run from another, as plain values."""
    settings = {f"config.{key}": value for key, value in dataclasses.asdict(config).items()}
    return {"algorithm": algorithm, "environment": _env_name(env_id), "seed": seed, **settings}


def _env_name(env_id: EnvSpec) -> str:
    if isinstance(env_id, str):
        return env_id
    if isinstance(env_id, functools.partial):
        return f"{_env_name(env_id.func)}{env_id.args}{env_id.keywords}"
    return f"{env_id.__module__}.{env_id.__qualname__}"
