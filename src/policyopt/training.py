"""What every training loop needs: checks, schedules, one gradient step, progress, and files that are whole
or absent.
"""

import contextlib
import dataclasses
import io
import math
import numbers
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from policyopt.history import History
from policyopt.rollout import EnvSpec

__all__ = [
    "Checkpoint",
    "check_fields",
    "check_hidden",
    "check_seed",
    "check_writable",
    "describe_run",
    "flatten_parameters",
    "gradient_step",
    "linear_schedule",
    "load_file",
    "mean_metrics",
    "save_file",
    "set_learning_rate",
    "single_thread",
    "space_from_dict",
    "space_to_dict",
    "spawn_seeds",
    "updates",
    "write_whole",
]

FORMAT = "policyopt"
FORMAT_VERSION = 1


# --- settings ---


def check_fields(config: Any, **allowed: tuple) -> None:
    """Check the fields of a configuration, each against its range.

    Args:
        config: a dataclass instance.
        allowed: for each field name ``(type, low, high)`` with ``type`` int, float or bool and inclusive
            bounds; add the string ``"open"`` for a lower bound that is itself not allowed, or
            ``"optional"`` to allow None.

    Raises:
        ValueError: names the first field that is wrong, its value, and what is allowed.
    """
    for name, (kind, *rest) in allowed.items():
        value = getattr(config, name)
        if kind is bool:
            ok, wanted = isinstance(value, bool), "True or False"
        else:
            low, high, *flags = rest
            abstract = numbers.Integral if kind is int else numbers.Real
            ok = isinstance(value, abstract) and not isinstance(value, bool) and math.isfinite(value)
            ok = ok and (low < value if "open" in flags else low <= value) and value <= high
            ok = ok or ("optional" in flags and value is None)
            noun = "a whole number" if kind is int else "a number"
            bracket = "(" if "open" in flags else "["
            wanted = f"{noun} in {bracket}{low}, {high}{')' if high == math.inf else ']'}"
            wanted += " or None" if "optional" in flags else ""
        if not ok:
            raise ValueError(f"{type(config).__name__}.{name} is {value!r}; it must be {wanted}")


def check_hidden(config: Any) -> None:
    """Check ``config.hidden``, the widths of hidden layers.

    Raises:
        ValueError: it is not a tuple of positive whole numbers.
    """
    hidden = config.hidden
    if not isinstance(hidden, tuple) or any(
        not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in hidden
    ):
        raise ValueError(
            f"{type(config).__name__}.hidden is {hidden!r}; it must be a tuple of whole numbers ≥ 1"
        )


def check_seed(seed: int) -> int:
    """The seed, if it is a whole number that NumPy, torch and Gymnasium all take.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= seed < 2**31:
        raise ValueError(f"seed is {seed!r}; it must be a whole number in [0, {2**31 - 1}]")
    return int(seed)


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seeds for the parts of one run (weights, environments, …) that have nothing to do with one another.

    Neither have those of neighbouring seeds. Using the seed itself everywhere would draw weights and
    actions from one stream, and give runs 0 and 1 all but one of their environments in common: Gymnasium
    seeds the copies of an environment with seed, seed + 1, seed + 2, …

    Args:
        seed: a whole number in [0, 2³¹).
        count: how many.

    Returns:
        Whole numbers in [0, 2³¹).

    Raises:
        ValueError: the seed is out of range.
    """
    return [int(state) >> 1 for state in np.random.SeedSequence(check_seed(seed)).generate_state(count)]


def linear_schedule(start: float, end: float | None, progress: float) -> float:
    """A value that moves from ``start`` to ``end`` in a straight line as ``progress`` goes from 0 to 1;
    constant when ``end`` is None.
    """
    return start if end is None else start + (end - start) * progress


# --- optimisation ---


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, max_grad_norm: float) -> Tensor:
    """Minimise ``loss`` by one step, the gradient's norm clipped to ``max_grad_norm``.

    Returns:
        The norm before clipping, a scalar.

    Raises:
        FloatingPointError: the gradient is not finite; the parameters are left as they were.
    """
    optimizer.zero_grad(set_to_none=False)  # gradients of flattened parameters are views to be kept
    loss.backward()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, max_grad_norm, foreach=True)
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient's norm is {norm.item()} (loss {loss.item():.6g}): training has diverged; "
            "a smaller learning_rate or max_grad_norm usually helps"
        )
    optimizer.step()
    return norm


def flatten_parameters(module: nn.Module) -> nn.Parameter:
    """Move all parameters of a module into one vector; they and their gradients become views of it.

    An optimiser given the vector does in one operation what it would else do for each small tensor in turn;
    the arithmetic is the same. Call it once, before the optimiser is made, and never reset the gradients to
    None.

    Returns:
        The vector, ``[P]``.
    """
    parameters = list(module.parameters())
    flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    parts = zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True)
    for parameter, values, gradient in parts:
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
    return flat


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give every parameter group the same learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def mean_metrics(rows: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each metric over the rows that have it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: torch.stack([row[name] for row in rows if name in row]).mean().item() for name in names}


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: networks this small lose more to hand-overs than they
    gain.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def updates(total: int, history: History, checkpoint: "Checkpoint", progress: bool = False) -> Iterator[int]:
    """The numbers 0 … total − 1 of a run's updates, with checkpoints and a progress bar when asked for.

    With a checkpoint the numbers start where its file left off, and the file is written after every
    ``checkpoint.every`` updates and after the last. The bar shows the newest ``episode_return`` of
    ``history``.
    """
    start = checkpoint.restore()
    with contextlib.ExitStack() as stack:
        bar = None
        if progress:
            from tqdm.auto import tqdm

            bar = stack.enter_context(tqdm(total=total, initial=start, unit="update", dynamic_ncols=True))
        for update in range(start, total):
            yield update
            if (update + 1) % checkpoint.every == 0 or update + 1 == total:
                checkpoint.save(update + 1)
            if bar is not None:
                bar.set_postfix_str(
                    f"return {history.last.get('episode_return', math.nan):.1f}", refresh=False
                )
                bar.update()


# --- files ---


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


def write_whole(path: str | os.PathLike, data: bytes) -> Path:
    """Write a file, which afterwards is either complete or as it was before.

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
            file.write(data)
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
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "format_version": FORMAT_VERSION, **content}, buffer)
    return write_whole(path, buffer.getvalue())


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


class Checkpoint:
    """A file from which a run goes on as if it had never stopped.

    Args:
        path: the file. If it exists, the run it holds is resumed. With None nothing is read or written.
        every: how many updates lie between two writes.
        run: what the run is (algorithm, environment, configuration, seed), plain values. A file of another
            run is refused.
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
            if content["run"].get(key) != wanted:
                raise ValueError(
                    f"{self.path} belongs to another run: its {key} is {content['run'].get(key)!r}, "
                    f"this run's is {wanted!r}; choose another file or delete it"
                )
        for name, part in self.parts.items():
            part.load_state_dict(content["parts"][name])
        return content["updates"]

    def save(self, updates: int) -> None:
        """Write the file."""
        if self.path is None:
            return
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        save_file(self.path, {"kind": "checkpoint", "run": self.run, "updates": updates, "parts": parts})


def describe_run(algorithm: str, env_id: EnvSpec, config: Any, seed: int) -> dict[str, Any]:
    """What tells one run from another, as plain values."""
    name = env_id if isinstance(env_id, str) else f"{env_id.__module__}.{env_id.__qualname__}"
    settings = {f"config.{key}": value for key, value in dataclasses.asdict(config).items()}
    return {"algorithm": algorithm, "environment": name, "seed": seed, **settings}


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
