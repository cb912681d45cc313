"""Advantage actor-critic, the synchronous form of A3C: one step on a few steps of many environments.
Mnih et al. (2016), arXiv:1602.01783.
"""

from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import actor_critic_loss, explained_variance, normalize, policy_gradient
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, EnvSpec, advantage_batch, make_envs
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    flatten_parameters,
    gradient_step,
    linear_schedule,
    set_learning_rate,
    single_thread,
    updates,
)

__all__ = ["A2CConfig", "a2c_loss", "train"]


@dataclass(frozen=True)
class A2CConfig:
    """Settings of A2C. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 500_000  # environment steps at most; only whole updates are made
    num_envs: int = 16  # N
    horizon: int = 5  # T, steps per environment between updates: the n of n-step returns
    learning_rate: float = 7e-4
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    rms_decay: float = 0.99  # of RMSProp's mean of squared gradients
    gamma: float = 0.99  # γ
    gae_lambda: float = 1.0  # λ; 1 gives n-step returns, as in the paper
    normalize_advantages: bool = False  # over the batch; not in the paper
    value_coef: float = 0.5  # c₁
    entropy_coef: float = 0.0  # c₂
    max_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self)


def a2c_loss(agent: ActorCritic, batch: Batch, config: A2CConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """−mean(log π_θ(a|s) Â) + c₁ L^VF − c₂ S, a scalar to minimise, and metrics.

    Book: eq-a2c-loss. Mnih et al. (2016), section 4, negated; c₁ as in Schulman et al. (2017), eq. 9.
    """
    dist = agent.policy(batch.obs)
    advantages = normalize(batch.advantages) if config.normalize_advantages else batch.advantages
    policy_loss = -policy_gradient(dist.log_prob(batch.actions), advantages).mean()
    values, entropy = agent.value(batch.obs), dist.entropy()
    return actor_critic_loss(
        policy_loss, values, batch.value_targets, entropy, config.value_coef, config.entropy_coef
    )


def train(
    env_id: EnvSpec,
    config: A2CConfig = A2CConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 100,
    progress: bool = False,
) -> tuple[ActorCritic, History]:
    """Train an agent with A2C; arguments, results and errors as for all of ``policyopt.algorithms``."""
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, config.num_envs)) as envs, single_thread():
        agent = ActorCritic.for_envs(envs, config.hidden, weights_seed)
        weights = flatten_parameters(agent.parameters())
        optimizer = torch.optim.RMSprop([weights], config.learning_rate, alpha=config.rms_decay, eps=1e-5)
        collector, history = Collector(envs, play_seed), History()
        parts = {"agent": agent, "optimizer": optimizer, "collector": collector, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("a2c", env_id, config, seed), parts)
        steps_per_update = config.num_envs * config.horizon
        num_updates = config.total_steps // steps_per_update

        for update in updates(num_updates, history, saved, progress):
            learning_rate = linear_schedule(
                config.learning_rate, config.learning_rate_end, update / num_updates
            )
            set_learning_rate(optimizer, learning_rate)

            rollout = collector.collect(agent, config.horizon)  # [T, N, ...]
            batch = advantage_batch(rollout, agent, config.gamma, config.gae_lambda)  # [B, ...]
            loss, metrics = a2c_loss(agent, batch, config)
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
            history.log(
                step=(update + 1) * steps_per_update,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                explained_variance=explained_variance(batch.values, batch.value_targets),
                **metrics,
            )
    return agent, history
