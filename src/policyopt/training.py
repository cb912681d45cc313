"""What every training loop needs: checks, schedules, one gradient step, progress, and files that are whole
or absent.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import math
import numbers
import os
import pickle
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from policyopt.history import History
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, EnvSpec

__all__ = [
    "SETTINGS",
    "Checkpoint",
    "Number",
    "check_fields",
    "check_seed",
    "check_settings",
    "check_writable",
    "describe_run",
    "fit_values",
    "flatten_parameters",
    "gradient_step",
    "linear_schedule",
    "load_file",
    "make_adam",
    "mean_metrics",
    "progress_bar",
    "save_file",
    "set_learning_rate",
    "single_thread",
    "space_from_dict",
    "space_to_dict",
    "spawn_seeds",
    "updates",
    "updates_within",
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
            ``"optional"`` to allow None. For a choice among names ``(str, *names)``.

    Raises:
        ValueError: names the first field that is wrong, its value, and what is allowed.
    """
    for name, (kind, *rest) in allowed.items():
        value = getattr(config, name)
        if kind is bool:
            ok, wanted = isinstance(value, bool), "True or False"
        elif kind is str:
            ok, wanted = value in rest, f"one of {', '.join(map(repr, rest))}"
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


INF = math.inf
POSITIVE, NOT_NEGATIVE, SHARE = (float, 0, INF, "open"), (float, 0, INF), (float, 0, 1)
COUNT = (int, 1, INF)
END = (float, 0, INF, "optional")

# What a setting may be, by its name: a name means the same in every algorithm.
SETTINGS: dict[str, tuple] = {
    "cg_damping": NOT_NEGATIVE,
    "cg_steps": COUNT,
    "clip": POSITIVE,
    "clip_end": (*POSITIVE, "optional"),
    "discount_steps": (bool,),
    "divide_by_std": (bool,),
    "entropy_coef": NOT_NEGATIVE,
    "epochs": COUNT,
    "epsilon": SHARE,
    "epsilon_end": (*SHARE, "optional"),
    "epsilon_fraction": (*SHARE, "open"),
    "gae_lambda": SHARE,
    "gamma": SHARE,
    "group_size": (int, 2, INF),
    "horizon": COUNT,
    "initial_value": (float, -INF, INF),
    "kl_coef": NOT_NEGATIVE,
    "kl_coef_factor": (float, 1, INF),
    "kl_target": POSITIVE,
    "kl_tolerance": (float, 1, INF),
    "learning_rate": POSITIVE,
    "learning_rate_end": END,
    "line_search_shrink": (*SHARE, "open"),
    "line_search_tries": COUNT,
    "log_every": COUNT,
    "max_grad_norm": POSITIVE,
    "max_kl": POSITIVE,
    "mean_decay": SHARE,
    "minibatch_size": COUNT,
    "n_steps": COUNT,
    "normalize_advantages": (bool,),
    "num_envs": COUNT,
    "num_episodes": COUNT,
    "num_groups": COUNT,
    "num_workers": COUNT,
    "reference_every": (*COUNT, "optional"),
    "reward_to_go": (bool,),
    "rms_decay": SHARE,
    "rms_epsilon": POSITIVE,
    "target_kl": (*POSITIVE, "optional"),
    "total_steps": COUNT,
    "value_coef": NOT_NEGATIVE,
    "value_epochs": COUNT,
    "value_learning_rate": POSITIVE,
}


def check_settings(config: Any, **allowed: tuple) -> None:
    """Check every field of a configuration against what ``SETTINGS`` allows it to be.

    Where an update takes ``num_envs`` times ``horizon`` steps, ``total_steps`` must allow at least one.

    Args:
        config: a dataclass instance.
        allowed: ranges of fields that mean something else here, as in ``check_fields``.

    Raises:
        ValueError: names the first field that is wrong, its value, and what is allowed.
    """
    names = [field.name for field in dataclasses.fields(config)]
    check_fields(config, **{n: allowed.get(n) or SETTINGS[n] for n in names if n != "hidden"})
    if "hidden" in names:
        hidden = config.hidden
        if not isinstance(hidden, tuple) or any(
            not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in hidden
        ):
            raise ValueError(
                f"{type(config).__name__}.hidden is {hidden!r}; it must be a tuple of whole numbers ≥ 1"
            )
    if {"num_envs", "horizon"} <= set(names):
        check_fields(config, total_steps=(int, config.num_envs * config.horizon, INF))


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
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        if parameter.grad is not None:  # kept and zeroed: gradients of flattened parameters are views
            parameter.grad.zero_()
    loss.backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"the gradient's norm is {norm.item()} (loss {loss.item():.6g}): training has diverged; "
            "a smaller learning_rate or max_grad_norm usually helps"
        )
    # As torch.nn.utils.clip_grad_norm_ has it, without its overhead, a tenth of a step with small networks.
    if norm > max_grad_norm:
        for gradient in gradients:
            gradient.mul_(max_grad_norm / (norm + 1e-6))
    optimizer.step()
    return norm


def fit_values(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    epochs: int,
    minibatch_size: int,
    generator: torch.Generator,
) -> float:
    """Fit V_φ(s) to the targets of a batch by least squares, in several epochs of minibatch steps.

    Book: eq-value-loss.

    Returns:
        The mean loss over the steps.
    """
    rows = []
    for _ in range(epochs):
        for part in batch.minibatches(minibatch_size, generator):
            loss = (agent.value(part.obs) - part.value_targets).square().mean()
            gradient_step(optimizer, loss, math.inf)
            rows.append({"value_loss": loss.detach()})
    return mean_metrics(rows)["value_loss"]


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> nn.Parameter:
    """Move parameters into one vector; they and their gradients become views of it.

    An optimiser given the vector does in one operation what it would else do for each small tensor in turn;
    the arithmetic is the same. Call it once, before the optimiser is made, and never reset the gradients to
    None.

    Returns:
        The vector, ``[P]``.
    """
    parameters = list(parameters)
    flat = nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [parameter.numel() for parameter in parameters]
    parts = zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True)
    for parameter, values, gradient in parts:
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
    return flat


def make_adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam over parameters that are moved into one vector (``flatten_parameters``); ε = 1e-5, as in OpenAI's
    baselines.
    """
    return torch.optim.Adam([flatten_parameters(parameters)], learning_rate, eps=1e-5, fused=True)


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
    with progress_bar(progress, total, start, "update", history) as advance_to:
        for update in range(start, total):
            yield update
            checkpoint.after(update + 1, last=update + 1 == total)
            advance_to(update + 1)


def updates_within(
    total_steps: int, history: History, checkpoint: "Checkpoint", progress: bool = False
) -> Iterator[int]:
    """The numbers 0, 1, … of a run's updates while the newest ``step`` of ``history`` is below
    ``total_steps``: for updates that differ in how many steps they take. Otherwise like ``updates``.
    """
    start = checkpoint.restore()
    with progress_bar(progress, total_steps, history.last.get("step", 0), "step", history) as advance_to:
        for update in itertools.count(start):
            if history.last.get("step", 0) >= total_steps:
                return
            yield update
            checkpoint.after(update + 1, last=history.last["step"] >= total_steps)
            advance_to(history.last["step"])


@contextlib.contextmanager
def progress_bar(
    show: bool, total: int, start: int, unit: str, history: History
) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal or in the notebook, or nothing; gives the function that moves it to a number.

    It shows the newest ``episode_return`` of ``history``.
    """
    if not show:
        yield lambda done: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True) as bar:

        def advance_to(done: int) -> None:
            bar.set_postfix_str(f"return {history.last.get('episode_return', math.nan):.1f}", refresh=False)
            bar.update(done - bar.n)

        yield advance_to


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
