"""Studies: grids of runs, each a process with one seed and a file of its own.

A study is declared in a few lines::

    study = Study("clipping", {"PPO": ("ppo", PPOConfig()), "A2C": ("a2c", A2CConfig())}, ["CartPole-v1"])
    run_study(study)

Killing it at any moment loses no more than the cells in flight; running it again does what is missing and
gives the same numbers to the bit (``a3c`` with several workers excepted).
"""

import dataclasses
import importlib
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

import policyopt
from policyopt.evaluation import evaluate
from policyopt.experiments.engine import Task, check_engine, run_apart
from policyopt.experiments.provenance import Usage, commit, describe_machine
from policyopt.experiments.storage import Result, Store, canonical_json, hash_of, pack_result
from policyopt.processes import context
from policyopt.settings import check_seed

__all__ = [
    "Cell",
    "Study",
    "failures",
    "run_cell",
    "run_study",
    "status",
]

RESULTS = Path("results")

EVALUATION_SEED = 1_000_000  # added to a cell's seed for the environments of its evaluation


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a study: an algorithm with its settings, an environment, a seed."""

    study: str
    label: str
    algorithm: str
    config: Any
    environment: str
    seed: int
    eval_episodes: int = 100
    columns: tuple[str, ...] | None = None
    max_rows: int | None = None

    @property
    def name(self) -> str:
        """Of its file, without ending."""
        parts = (self.label, self.environment, str(self.seed))
        return "__".join(re.sub(r"[^\w.+-]+", "-", part) for part in parts)

    @property
    def run(self) -> dict[str, Any]:
        """All that its numbers depend on, as plain values."""
        config = dataclasses.asdict(self.config) if dataclasses.is_dataclass(self.config) else self.config
        settings = {f"config.{name}": value for name, value in config.items()}
        run = {"algorithm": self.algorithm, "environment": self.environment, "seed": self.seed}
        run |= {"eval_episodes": self.eval_episodes, "columns": self.columns, "max_rows": self.max_rows}
        run |= settings
        return json.loads(canonical_json(run))  # tuples become lists, as they do in its file


@dataclasses.dataclass(frozen=True)
class Study:
    """A grid of runs: every label × every environment × every seed.

    Args:
        name: of the study and of its folder.
        runs: for each label ``(algorithm, config)``. The algorithm is a module of ``policyopt.algorithms`` or
            ``"package.module:function"`` with a function ``(env_id, config, seed) -> (agent, history)``. The
            config is a dataclass, for a function of your own also a dict, or a callable that gives one for an
            environment, e.g. ``partial(tuned_config, "ppo")``, and None where there is to be no run.
        environments: Gymnasium ids; for a function of your own whatever it takes, e.g. a language task.
        seeds: whole numbers.
        eval_episodes: fresh episodes, greedy, that each trained agent plays; an agent that has a method
            ``held_out_rewards(count)`` is judged by what it gives.
        columns: of the history, to be kept where a history has them; all when None.
        max_rows: of a history, evenly spread, the last one included, to be kept; all when None.
        timed: run one cell at a time, whatever the number of jobs, because seconds are what it is about.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """

    name: str
    runs: Mapping[str, tuple[str, Any]]
    environments: Sequence[str]
    seeds: Sequence[int] = range(10)
    eval_episodes: int = 100
    columns: Sequence[str] | None = None
    max_rows: int | None = None
    timed: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w+-]+", self.name):
            raise ValueError(f"Study.name is {self.name!r}; it must consist of letters, digits, _, + and -")
        if isinstance(self.environments, str) or isinstance(self.columns, str):
            raise ValueError("Study.environments and Study.columns must be lists of names, not one string")
        for field in ("runs", "environments", "seeds"):
            if len(getattr(self, field)) == 0:
                raise ValueError(f"Study.{field} is empty; there must be at least one")
        for field in ("eval_episodes", "max_rows"):
            value = getattr(self, field)
            if not ((isinstance(value, int) and value >= 1) or (value is None and field == "max_rows")):
                raise ValueError(f"Study.{field} is {value!r}; it must be a whole number ≥ 1")
        names = Counter(cell.name for cell in self.cells())
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(
                f"study {self.name}: two cells have the file name {twice[0]}; labels must differ"
            )

    def cells(self) -> list[Cell]:
        """All runs, seed by seed: where a study was broken off, all labels have about equally many."""
        cells = [
            self._cell(label, environment, check_seed(seed))
            for seed in self.seeds
            for environment in self.environments
            for label in self.runs
        ]
        return [cell for cell in cells if cell is not None]

    def _cell(self, label: str, environment: str, seed: int) -> Cell | None:
        algorithm, config = self.runs[label]
        if callable(config) and (config := config(environment)) is None:
            return None
        allowed = "a dataclass or a dict" if ":" in algorithm else "a dataclass"
        if not dataclasses.is_dataclass(config) and not (":" in algorithm and isinstance(config, dict)):
            raise ValueError(f"Study.runs[{label!r}] has the config {config!r}; it must be {allowed}")
        columns = None if self.columns is None else tuple(self.columns)
        kept = (self.eval_episodes, columns, self.max_rows)
        cell = Cell(self.name, label, algorithm, config, environment, seed, *kept)
        try:
            cell.run  # noqa: B018
        except TypeError as error:
            raise ValueError(
                f"Study.runs[{label!r}] has a config that is not plain values: {error}"
            ) from None
        return cell


def find_train(algorithm: str) -> Callable:
    """The function that trains: of a module of ``policyopt.algorithms``, or ``"package.module:function"``.

    Raises:
        ValueError: there is none.
    """
    module, _, function = algorithm.partition(":")
    module, function = (module, function) if function else (f"policyopt.algorithms.{module}", "train")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"no algorithm {algorithm!r} ({error}); it must be a module of policyopt.algorithms "
            "or have the form 'package.module:function'"
        ) from error


# --- running ---


def run_cell(cell: Cell, commit: str | None = None) -> bytes:
    """Train and evaluate; the content of the cell's file."""
    random.seed(cell.seed)  # policyopt's algorithms do without global random numbers; others may not
    np.random.seed(cell.seed)  # noqa: NPY002
    torch.manual_seed(cell.seed)
    if cell.algorithm == "a3c":
        _start_worker_server()
    with Usage() as usage:
        start = time.perf_counter()
        agent, history = find_train(cell.algorithm)(cell.environment, cell.config, cell.seed)
        trained = usage.describe()
        returns = judge(agent, cell)
        used = usage.describe()
    about = {
        "run": cell.run,
        "hash": hash_of(cell.run),
        "provenance": {
            **describe_machine(),
            "commit": commit,
            **used,
            "train_seconds": trained["wall_seconds"],
            "train_cpu_seconds": trained["cpu_seconds"],
        },
    }
    columns = [name for name in history.columns if cell.columns is None or name in cell.columns]
    rows = _spread(len(history), cell.max_rows)
    seconds = np.array(history.logged_at)[rows] - start
    return pack_result(Result({name: history[name][rows] for name in columns}, returns, seconds, about))


def judge(agent: Any, cell: Cell) -> np.ndarray:
    """Returns of fresh episodes; of a language model, the rewards of its outputs for problems held out."""
    if hasattr(agent, "held_out_rewards"):
        return agent.held_out_rewards(cell.eval_episodes)
    return evaluate(agent, cell.environment, cell.eval_episodes, cell.seed + EVALUATION_SEED)


def _spread(rows: int, at_most: int | None) -> np.ndarray:
    """Which of so many rows are kept: all, or some at equal distances, counted back from the last."""
    every = 1 if at_most is None else max(-(-rows // at_most), 1)
    return np.arange(rows - 1, -1, -every)[::-1]


def _start_worker_server() -> None:
    """What workers are forked from takes seconds to start; not to be counted among those of the training."""
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["policyopt"])
        worker = context.Process(target=int)
        worker.start()
        worker.join()


def run_study(
    study: Study,
    results: str | PathLike = RESULTS,
    *,
    jobs: int = -1,
    engine: str = "local",
    address: str | None = None,
    retry_failed: bool = False,
    quiet: bool = False,
) -> dict[str, int]:
    """Run the cells that have no result yet, each in a process of its own, and store what they give.

    Cells that have failed are left alone unless ``retry_failed``. Cells that another process is running are
    left to it: a study may be run from several terminals at once.

    Args:
        study: what to run.
        results: the folder in which the study has its own.
        jobs: cells at once; −1 for one on each core. A timed study has one, and the machine should be quiet.
        engine: ``"local"`` or ``"ray"``.
        address: of a Ray cluster; when None a local Ray is started.
        retry_failed: run those again, too.
        quiet: a line for each cell instead of a progress bar.

    Returns:
        As ``status``.

    Raises:
        ValueError: the study, the engine or a stored cell cannot be used; nothing has been run.
        OSError: results cannot be written; those that were are whole.
    """
    check_engine(engine, jobs, address)
    jobs = 1 if study.timed else jobs
    cells = study.cells()
    for algorithm in {cell.algorithm for cell in cells}:
        find_train(algorithm)
    store = Store(Path(results) / study.name)
    for cell in cells:
        store.read(cell, policyopt.__version__)
    store.open_for_writing()
    work = Work(store, cells, retry_failed)
    report = (_Lines if quiet else _Bar)(len(cells), sum(map(store.is_done, cells)))
    with closing(store), closing(report):
        tried = -1
        while len(work.tried) > tried and work.todo():  # again, for cells another process has left undone
            tried = len(work.tried)
            with closing(run_apart(work.tasks(), jobs, engine, address)) as outcomes:
                for name, outcome in outcomes:
                    report.add(*work.keep(name, outcome))
            if work.error is not None:
                raise work.error
    return status(study, results)


class Work:
    """What is still to do of a study: claims cells one by one, and keeps what they gave."""

    def __init__(self, store: Store, cells: list[Cell], retry_failed: bool):
        self.store, self.cells, self.retry_failed = store, {cell.name: cell for cell in cells}, retry_failed
        self.tried: set[str] = set()
        self.error: OSError | None = None
        self.commit = commit()

    def todo(self) -> list[Cell]:
        """Cells that are neither done nor tried, nor failed unless those are to be run again."""
        return [cell for cell in self.cells.values() if cell.name not in self.tried and self._is_open(cell)]

    def _is_open(self, cell: Cell) -> bool:
        if self.store.is_done(cell):
            return False
        return self.retry_failed or self.store.error(cell) is None

    def tasks(self) -> Iterator[Task]:
        """Claim a cell when a worker asks for one: in another thread, where errors would be lost."""
        try:
            for cell in self.todo():
                if self.store.claim(cell):
                    if self._is_open(cell):  # still: another process may have had it in the meantime
                        self.tried.add(cell.name)
                        yield cell.name, run_cell, (cell, self.commit)
                    else:
                        self.store.release(cell)
        except OSError as error:
            self.error = error

    def keep(self, name: str, outcome: tuple[str, Any]) -> tuple[Cell, str | None]:
        """Write what a cell gave, or why it failed, and let go of it."""
        cell, (kind, content) = self.cells[name], outcome
        if kind == "done":
            self.store.write(cell, content)
        else:
            self.store.write_error(cell, content, {**describe_machine(), "commit": self.commit})
        self.store.release(cell)
        return cell, None if kind == "done" else f"{content['type']}: {content['message']}"


class _Bar:
    """A progress bar over the cells, with the time left."""

    def __init__(self, total: int, done: int):
        from tqdm.auto import tqdm

        self.bar = tqdm(total=total, initial=done, unit="cell", dynamic_ncols=True)

    def add(self, cell: Cell, error: str | None) -> None:
        if error is not None:
            self.bar.write(f"failed: {cell.name}: {error}", file=sys.stderr)
        self.bar.set_postfix_str(cell.name, refresh=False)
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class _Lines:
    """A line for each cell, for logs."""

    def __init__(self, total: int, done: int):
        self.total, self.before, self.done, self.start = total, done, done, time.monotonic()

    def add(self, cell: Cell, error: str | None) -> None:
        self.done += 1
        seconds = time.monotonic() - self.start
        left = seconds / (self.done - self.before) * (self.total - self.done)
        outcome = "done" if error is None else f"failed ({error})"
        print(f"{self.done}/{self.total} {cell.name}: {outcome}; about {left / 60:.0f} min left", flush=True)

    def close(self) -> None:
        pass


# --- looking ---


def status(study: Study, results: str | PathLike = RESULTS) -> dict[str, int]:
    """How many cells there are: in all, done, failed, running in some process of this machine, missing."""
    store, cells = Store(Path(results) / study.name), study.cells()
    undone = [cell for cell in cells if not store.is_done(cell)]
    running = store.claimed(undone)
    idle = [cell for cell in undone if cell.name not in running]
    failed = sum(store.error(cell) is not None for cell in idle)
    counts = {"cells": len(cells), "done": len(cells) - len(undone), "failed": failed}
    return {**counts, "running": len(running), "missing": len(idle) - failed}


def failures(study: Study, results: str | PathLike = RESULTS) -> dict[str, dict[str, str]]:
    """For each failed cell, by name, the type, the message and the end of the traceback."""
    store = Store(Path(results) / study.name)
    errors = {cell.name: store.error(cell) for cell in study.cells()}
    return {name: error for name, error in errors.items() if error is not None}
