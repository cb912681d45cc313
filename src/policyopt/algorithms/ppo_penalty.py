"""Proximal policy optimisation with an adaptive KL penalty instead of the clip. Schulman et al. (2017),
arXiv:1707.06347, section 4.
"""

from contextlib import closing
from dataclasses import dataclass
from os import PathLike

import torch
from torch import Generator, Tensor

from policyopt.files import Checkpoint, Number, describe_run
from policyopt.history import History
from policyopt.losses import actor_critic_loss, explained_variance, normalize
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

__all__ = ["PPOPenaltyConfig", "PenaltyBatch", "adapt_kl_coef", "improve", "ppo_penalty_loss", "train"]


@dataclass(frozen=True)
class PPOPenaltyConfig:
    """Settings of PPO-penalty. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 200_000  # environment steps at most; only whole updates are made
    num_envs: int = 8  # N
    horizon: int = 128  # T, steps per environment between updates
    epochs: int = 10  # K, passes over each batch
    minibatch_size: int = 256  # M
    learning_rate: float = 3e-4
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    gamma: float = 0.99  # γ
    gae_lambda: float = 0.95  # λ
    kl_target: float = 0.01  # d_targ, the mean KL an update should make
    kl_coef: float = 1.0  # β at the start; it adapts quickly
    kl_tolerance: float = 1.5  # β changes when the KL is off its target by more than this factor
    kl_coef_factor: float = 2.0  # by which β is then multiplied or divided
    normalize_advantages: bool = True  # in each minibatch
    value_coef: float = 0.5  # c₁
    entropy_coef: float = 0.0  # c₂
    max_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers, policy and value alike

    def __post_init__(self) -> None:
        check_settings(self)


@dataclass(frozen=True)
class PenaltyBatch(Batch):
    """A batch that also remembers the whole distribution each action was drawn from."""

    old_policy: Tensor  # [B, ...]  π_old(·|s), as rows() of the distribution gives it

    @classmethod
    @torch.no_grad()
    def of(cls, batch: Batch, agent: ActorCritic) -> "PenaltyBatch":
        """The batch with the agent's present policy as π_old."""
        return cls(**vars(batch), old_policy=agent.policy(batch.obs).rows())


def ppo_penalty_loss(
    agent: ActorCritic, batch: PenaltyBatch, config: PPOPenaltyConfig, kl_coef: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """−(mean(ρ Â) − β mean KL(π_old ‖ π_θ)) + c₁ L^VF − c₂ S, a scalar to minimise, and metrics.

    Book: eq-ppo-penalty. Schulman et al. (2017), eq. 8, negated. The KL is exact: no samples are involved.
    """
    dist = agent.policy(batch.obs)
    ratio = (dist.log_prob(batch.actions) - batch.log_probs).exp()  # [M]
    advantages = normalize(batch.advantages) if config.normalize_advantages else batch.advantages
    kl = type(dist).from_rows(batch.old_policy).kl(dist).mean()
    policy_loss = -(ratio * advantages).mean() + kl_coef * kl
    values, entropy = agent.value(batch.obs), dist.entropy()
    return actor_critic_loss(
        policy_loss, values, batch.value_targets, entropy, config.value_coef, config.entropy_coef
    )


def adapt_kl_coef(kl_coef: float, kl: float, config: PPOPenaltyConfig) -> float:
    """β for the next update: smaller after a KL far below its target, larger after one far above.

    Book: eq-adaptive-kl. Schulman et al. (2017), section 4, whose factors 1.5 and 2 are the defaults.
    """
    if kl < config.kl_target / config.kl_tolerance:
        return kl_coef / config.kl_coef_factor
    if kl > config.kl_target * config.kl_tolerance:
        return kl_coef * config.kl_coef_factor
    return kl_coef


def improve(
    agent: ActorCritic,
    optimizer: torch.optim.Optimizer,
    batch: PenaltyBatch,
    config: PPOPenaltyConfig,
    kl_coef: float,
    generator: Generator,
) -> dict[str, float]:
    """Several epochs of minibatch steps on one batch; the mean of each metric over the steps, and the mean
    of KL(π_old ‖ π_θ) after them.
    """
    rows = []
    for _ in range(config.epochs):
        for minibatch in batch.minibatches(config.minibatch_size, generator):
            loss, metrics = ppo_penalty_loss(agent, minibatch, config, kl_coef)
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
            rows.append(metrics)
    with torch.no_grad():
        dist = agent.policy(batch.obs)
        kl = type(dist).from_rows(batch.old_policy).kl(dist).mean().item()
    return {**mean_metrics(rows), "kl": kl}


def train(
    env_id: EnvSpec,
    config: PPOPenaltyConfig = PPOPenaltyConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[ActorCritic, History]:
    """Train an agent with PPO-penalty; arguments, results and errors as for all of
    ``policyopt.algorithms``.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    with closing(make_envs(env_id, config.num_envs)) as envs, single_thread():
        agent = ActorCritic.for_envs(envs, config.hidden, weights_seed)
        optimizer = make_adam(agent.parameters(), config.learning_rate)
        collector, history, kl_coef = Collector(envs, play_seed), History(), Number(config.kl_coef)
        parts = {"agent": agent, "optimizer": optimizer, "collector": collector, "history": history}
        run = describe_run("ppo_penalty", env_id, config, seed)
        saved = Checkpoint(checkpoint, checkpoint_every, run, {**parts, "kl_coef": kl_coef})
        steps_per_update = config.num_envs * config.horizon
        num_updates = config.total_steps // steps_per_update

        for update in updates(num_updates, history, saved, progress):
            done = update / num_updates
            learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
            set_learning_rate(optimizer, learning_rate)

            rollout = collector.collect(agent, config.horizon)  # [T, N, ...]
            batch = advantage_batch(rollout, agent, config.gamma, config.gae_lambda)  # [B, ...]
            batch = PenaltyBatch.of(batch, agent)
            metrics = improve(agent, optimizer, batch, config, kl_coef.value, collector.generator)
            history.log(
                step=(update + 1) * steps_per_update,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                kl_coef=kl_coef.value,
                explained_variance=explained_variance(batch.values, batch.value_targets),
                **metrics,
            )
            kl_coef.value = adapt_kl_coef(kl_coef.value, metrics["kl"], config)
    return agent, history
