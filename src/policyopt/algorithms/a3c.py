"""Asynchronous advantage actor-critic. Mnih et al. (2016), arXiv:1602.01783, algorithm S3.

The workers are processes. Parameters and RMSProp's statistics lie in shared memory, where each worker reads
and changes them without waiting for the others (Hogwild: Recht et al., 2011).
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from os import PathLike

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import actor_critic_loss, policy_gradient
from policyopt.networks import ActorCritic
from policyopt.processes import Budget, run_workers
from policyopt.rollout import Batch, Collector, EnvSpec, advantage_batch, make_envs
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    flatten_parameters,
    gradient_step,
    linear_schedule,
    mean_metrics,
    progress_bar,
    set_learning_rate,
    single_thread,
)

__all__ = ["A3CConfig", "SharedRMSprop", "a3c_loss", "play", "train"]

REPORT_STEPS = 1_000  # a worker reports when it has made so many steps; each report is a row of the history


@dataclass(frozen=True)
class A3CConfig:
    """Settings of A3C. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 500_000  # environment steps of all workers together; exactly so many are made
    num_workers: int = 2
    n_steps: int = 32  # t_max, steps between two updates of a worker
    learning_rate: float = 3e-3  # η
    learning_rate_end: float | None = 0.0  # reached in a straight line; None keeps it constant
    gamma: float = 0.99  # γ
    value_coef: float = 0.5  # c₁
    entropy_coef: float = 0.0  # c₂, the paper's β
    max_grad_norm: float = 10.0
    rms_decay: float = 0.99  # α
    rms_epsilon: float = 1e-5  # ε, under the root
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self)


def a3c_loss(agent: ActorCritic, batch: Batch, config: A3CConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The actor-critic loss of a few steps, a scalar to minimise, and metrics.

    Book: eq-actor-critic-loss. Algorithm S3 adds the gradients of the steps up; here it is their mean.
    """
    dist = agent.policy(batch.obs)
    objective = policy_gradient(dist.log_prob(batch.actions), batch.advantages)  # [B]
    values, entropy = agent.value(batch.obs), dist.entropy()
    return actor_critic_loss(
        -objective.mean(), values, batch.value_targets, entropy, config.value_coef, config.entropy_coef
    )


class SharedRMSprop:
    """RMSProp on parameters in shared memory, with gradients of a worker's copy; made for ``gradient_step``.

    Book: eq-shared-rmsprop. Mnih et al. (2016), eqs. S2 and S3: g ← α g + (1 − α) Δθ² and
    θ ← θ − η Δθ / √(g + ε). Other workers change θ and g at the same time; nothing is locked.

    Args:
        weights: θ, ``[P]``; it and g are moved into shared memory.
        decay: α.
        epsilon: ε.

    Attributes:
        param_groups: in each worker, its copy θ′ with the gradient Δθ, and the learning rate η.
    """

    def __init__(self, weights: Tensor, decay: float, epsilon: float):
        self.weights, self.squares = weights.share_memory_(), torch.zeros_like(weights).share_memory_()
        self.decay, self.epsilon = decay, epsilon
        self.param_groups: list[dict] = []

    def step(self) -> None:
        """Change the shared g and θ, in place."""
        gradient, learning_rate = self.param_groups[0]["params"][0].grad, self.param_groups[0]["lr"]
        self.squares.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        self.weights.addcdiv_(gradient, (self.squares + self.epsilon).sqrt(), value=-learning_rate)

    def state_dict(self) -> dict:
        """g; θ is the agent's to save."""
        return {"squares": self.squares}

    def load_state_dict(self, state: dict) -> None:
        """Take g of a saved state."""
        self.squares.copy_(state["squares"])


def play(
    agent: ActorCritic, env_id: EnvSpec, config: A3CConfig, seed: int, optimizer: SharedRMSprop, steps: Budget
) -> Iterator[tuple[int, list[float], dict[str, float]]]:
    """What a worker does: algorithm S3, until all steps are taken.

    About every ``REPORT_STEPS`` of its steps, and at the end, it gives their exact number, the returns of
    the episodes that ended, and the mean of each metric over its updates.
    """
    copy = flatten_parameters(agent.parameters())  # θ′
    optimizer.param_groups = [{"params": [copy]}]
    with closing(make_envs(env_id, 1)) as envs:
        collector, rows, taken = Collector(envs, seed, resumable=False), [], 0
        while True:
            claimed = steps.claim(config.n_steps)
            if rows and (taken >= REPORT_STEPS or not claimed):
                yield taken, collector.finished_returns, mean_metrics(rows)
                collector.finished_returns, rows, taken = [], [], 0
            if not claimed:
                return

            copy.data.copy_(optimizer.weights)  # θ′ ← θ
            rollout = collector.collect(agent, len(claimed))  # [T, 1, ...]
            batch = advantage_batch(rollout, agent, config.gamma, gae_lambda=1.0)  # [B, ...], n-step returns
            steps.give_back(len(claimed) - len(batch))  # an inserted reset is no step
            if len(batch) > 0:
                done = claimed[0] / config.total_steps
                set_learning_rate(
                    optimizer, linear_schedule(config.learning_rate, config.learning_rate_end, done)
                )
                loss, metrics = a3c_loss(agent, batch, config)
                metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
                rows.append(metrics)
                taken += len(batch)


def train(
    env_id: EnvSpec,
    config: A3CConfig = A3CConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[ActorCritic, History]:
    """Train an agent with A3C; arguments, results and errors as for all of ``policyopt.algorithms``.

    With one worker the same seed gives the same numbers. With several it does not: whose gradient comes
    first is up to the operating system. A resumed run, too, is not the unbroken one: it goes on from the
    saved parameters and number of steps with new episodes. ``checkpoint_every`` counts rows of the history,
    which are some ``REPORT_STEPS`` apart. If a worker dies, ``policyopt.processes.WorkerError`` is raised.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, 1)) as envs, single_thread():
        agent = ActorCritic.for_envs(envs, config.hidden, weights_seed)
    weights = flatten_parameters(agent.parameters()).data
    optimizer, history = SharedRMSprop(weights, config.rms_decay, config.rms_epsilon), History()
    parts = {"agent": agent, "optimizer": optimizer, "history": history}
    saved = Checkpoint(checkpoint, checkpoint_every, describe_run("a3c", env_id, config, seed), parts)
    start = saved.restore()
    taken = history.last.get("step", 0)

    env_id = env_id if callable(env_id) else partial(gym.make, gym.registry.get(env_id, env_id))
    seeds = spawn_seeds((play_seed + taken) % 2**31, config.num_workers)
    arguments = [(agent, env_id, config, seed) for seed in seeds]
    shared = (optimizer, Budget(config.total_steps, taken))
    recent = deque(maxlen=20)
    with (
        closing(run_workers(play, arguments, shared)) as reports,
        progress_bar(progress, config.total_steps, taken, "step", history) as advance_to,
    ):
        for row, (new_steps, returns, metrics) in enumerate(reports, start + 1):
            taken += new_steps
            recent.extend(returns)
            done = taken / config.total_steps
            history.log(
                step=taken,
                episode_return=np.mean(recent) if recent else math.nan,
                learning_rate=linear_schedule(config.learning_rate, config.learning_rate_end, done),
                **metrics,
            )
            saved.after(row, last=done == 1)
            advance_to(taken)
    flatten_parameters(agent.parameters())  # out of shared memory
    return agent, history
