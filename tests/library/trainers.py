"""Trainers for the tests of studies: as quick as can be, and with all that may go wrong."""

import os
import signal
import time
from multiprocessing import forkserver
from pathlib import Path

import numpy as np
import torch

from policyopt.history import History


class Agent:
    """Always the same action."""

    def __init__(self, action):
        self.action = action

    def predict(self, obs, deterministic=True):
        return np.full(len(obs), self.action), None


def train(env_id, config, seed):
    """Random rows; some from global random numbers, as of a library that does not seed its own."""
    time.sleep(config.get("seconds", 0))
    if "log" in config:
        with Path(config["log"]).open("a") as log:
            log.write(f"{seed}\n")
    rng, history = np.random.default_rng(seed), History()
    for row in range(5):
        late = {"late": np.random.random()} if row > 2 else {}  # noqa: NPY002
        history.log(step=10 * (row + 1), noise=rng.normal() * config["scale"], drawn=torch.rand(()), **late)
    return Agent(seed % 2), history


def describe(env_id, config, seed):
    """What a cell's process is like."""
    history = History()
    history.log(step=1, pid=os.getpid(), threads=torch.get_num_threads())
    return Agent(0), history


def fail(env_id, config, seed):
    """Fails with seed 1 until a file exists."""
    if seed == 1 and not Path(config["mended"]).exists():
        raise FloatingPointError("the loss is nan")
    return train(env_id, config, seed)


def note(env_id, config, seed):
    """A row that is not all numbers."""
    history = History()
    history.log(step=1, note=None)
    return Agent(0), history


def die(env_id, config, seed):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(env_id, config, seed):
    Path(config["pids"], str(os.getpid())).touch()
    time.sleep(1_000)


def run_study(server, study, folder, jobs=2):
    """For a process of its own. It forks from the server of the process that started it: another one would
    take seconds to start.
    """
    from policyopt.experiments import study as engine

    vars(forkserver._forkserver).update(server, ensure_running=lambda: None)

    engine.run_study(study, folder, jobs=jobs, quiet=True)
