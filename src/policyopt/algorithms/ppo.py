"""Proximal policy optimisation with the clipped surrogate. Schulman et al. (2017), arXiv:1707.06347,
algorithm 1.
"""

from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Generator, Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import (
    actor_critic_loss,
    clip_fraction,
    clipped_surrogate,
    explained_variance,
    kl_k3,
    normalize,
)
from policyopt.networks import ActorCritic
from policyopt.rollout import Batch, Collector, EnvSpec, advantage_batch, make_envs
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    gradient_step,
    linear_schedule,
    make_adam,
    mean_metrics,
    set_learning_rate,
    single_thread,
    updates,
)

__all__ = ["PPOConfig", "improve", "ppo_loss", "train"]


@dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 200_000  # environment steps at most; only whole updates are made
    num_envs: int = 8  # N
    horizon: int = 128  # T, steps per environment between updates
    epochs: int = 10  # K, passes over each batch
    minibatch_size: int = 256  # M
    learning_rate: float = 3e-4
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    gamma: float = 0.99  # γ
    gae_lambda: float = 0.95  # λ
    clip: float = 0.2  # ε
    clip_end: float | None = None  # reached in a straight line; None keeps it constant
    normalize_advantages: bool = True  # in each minibatch
    value_coef: float = 0.5  # c₁
    entropy_coef: float = 0.0  # c₂
    max_grad_norm: float = 0.5
    target_kl: float | None = None  # stop an update's epochs once the estimated KL exceeds it
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self)


def ppo_loss(
    agent: ActorCritic, batch: Batch, config: PPOConfig, clip: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """−L^CLIP + c₁ L^VF − c₂ S, a scalar to minimise, and metrics.

    Book: eq-ppo-loss. Schulman et al. (2017), eq. 9, negated.
    """
    dist = agent.policy(batch.obs)
    log_ratio = dist.log_prob(batch.actions) - batch.log_probs  # [M]
    ratio = log_ratio.exp()
    advantages = normalize(batch.advantages) if config.normalize_advantages else batch.advantages
    policy_loss = -clipped_surrogate(ratio, advantages, clip).mean()
    loss, metrics = actor_critic_loss(
        policy_loss,
        agent.value(batch.obs),
        batch.value_targets,
        dist.entropy(),
        config.value_coef,
        config.entropy_coef,
    )
    metrics["approximate_kl"] = kl_k3(log_ratio.detach()).mean()
    metrics["clip_fraction"] = clip_fraction(ratio.detach(), clip)
    return loss, metrics


def improve(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    config: PPOConfig,
    clip: float,
    generator: Generator,
) -> dict[str, float]:
    """Several epochs of minibatch steps on one batch; the mean of each metric over the steps."""
    rows = []
    for _ in range(config.epochs):
        for minibatch in batch.minibatches(config.minibatch_size, generator):
            loss, metrics = ppo_loss(agent, minibatch, config, clip)
            rows.append(metrics)
            if config.target_kl is not None and metrics["approximate_kl"] > config.target_kl:
                return {**mean_metrics(rows), "gradient_steps": len(rows) - 1}
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
    return {**mean_metrics(rows), "gradient_steps": len(rows)}


def train(
    env_id: EnvSpec,
    config: PPOConfig = PPOConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[ActorCritic, History]:
    """Train an agent with PPO; arguments, results and errors as for all of ``policyopt.algorithms``."""
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, config.num_envs)) as envs, single_thread():
        agent = ActorCritic.for_envs(envs, config.hidden, weights_seed)
        optimizer = make_adam(agent.parameters(), config.learning_rate)
        collector, history = Collector(envs, play_seed), History()
        parts = {"agent": agent, "optimizer": optimizer, "collector": collector, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("ppo", env_id, config, seed), parts)
        steps_per_update = config.num_envs * config.horizon
        num_updates = config.total_steps // steps_per_update

        for update in updates(num_updates, history, saved, progress):
            done = update / num_updates
            learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
            clip = linear_schedule(config.clip, config.clip_end, done)
            set_learning_rate(optimizer, learning_rate)

            rollout = collector.collect(agent, config.horizon)  # [T, N, ...]
            batch = advantage_batch(rollout, agent, config.gamma, config.gae_lambda)  # [B, ...]
            metrics = improve(agent, optimizer, batch, config, clip, collector.generator)
            history.log(
                step=(update + 1) * steps_per_update,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                clip=clip,
                explained_variance=explained_variance(batch.values, batch.value_targets),
                **metrics,
            )
    return agent, history
