"""Group relative policy optimisation: PPO without a critic, an episode is judged against others from the
same start. Shao et al. (2024), arXiv:2402.03300, section 4.1.

Of the paper are: the group-relative outcome advantage, given to every step alike (section 4.1.2), the clipped
ratio, the mean over the steps of an episode and then over episodes, the penalty k₃ towards a reference policy
(eqs. 3 and 4), several gradient steps on one batch, and a reference that is renewed from time to time
(algorithm 1). Without the division by σ_R the advantage is that of Liu et al. (2025), arXiv:2503.20783.

Ours, to bring it from language to control: a question is a start state, an output the episode played from it,
its reward the undiscounted return, truncated or not. Groups share the start state as ``EpisodeCollector``
describes. The reference is the untrained policy unless it is renewed, so the penalty is off unless asked for.
For comparison, ``credit="to_go"`` judges each step by the discounted rewards after it, against those of the
group at the same time.
"""

import copy
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from typing import Literal

import torch
from torch import Generator, Tensor

from policyopt.files import Checkpoint, describe_run
from policyopt.history import History
from policyopt.losses import clip_fraction, clipped_surrogate, kl_k3
from policyopt.networks import Actor
from policyopt.returns import group_relative_advantages, sum_backwards
from policyopt.rollout import EnvSpec, EpisodeCollector, Rollout, Steps
from policyopt.settings import check_settings, spawn_seeds
from policyopt.training import (
    gradient_step,
    linear_schedule,
    make_adam,
    mean_metrics,
    set_learning_rate,
    single_thread,
    updates_within,
)

__all__ = ["GRPOConfig", "GroupBatch", "group_batch", "grpo_loss", "improve", "train"]


@dataclass(frozen=True)
class GRPOConfig:
    """Settings of GRPO. Values out of range raise ``ValueError`` and name the field."""

    total_steps: int = 300_000  # environment steps at most; only whole episodes are used
    num_groups: int = 8  # start states an update
    group_size: int = 8  # G, episodes from each
    epochs: int = 4  # passes over each batch
    minibatch_size: int = 1024  # M, steps of the environment
    learning_rate: float = 3e-3
    learning_rate_end: float | None = None  # reached in a straight line; None keeps it constant
    clip: float = 0.2  # ε
    credit: Literal["outcome", "to_go"] = "outcome"  # the episode's return, or the rewards after the step
    gamma: float = 1.0  # γ, of the rewards after the step; the outcome is not discounted
    divide_by_std: bool = True  # divide advantages by the group's standard deviation
    kl_coef: float = 0.0  # β, of the penalty towards π_ref
    reference_every: int | None = None  # π_ref becomes π_θ after so many updates; None: it stays the first
    max_grad_norm: float = 0.5
    hidden: tuple[int, ...] = (64, 64)  # widths of the hidden layers

    def __post_init__(self) -> None:
        check_settings(self, credit=(str, "outcome", "to_go"))


@dataclass(frozen=True)
class GroupBatch(Steps):
    """The steps of groups of episodes."""

    reference_log_probs: Tensor  # [B]  log π_ref(a|s)
    weights: Tensor  # [B]              ∝ 1/|o_i|, so that episodes count alike; their mean is 1


@torch.no_grad()
def group_batch(episodes: Rollout, reference: Actor, config: GRPOConfig) -> GroupBatch:
    """What the loss needs of groups of episodes ``[T, num_groups · G, ...]``."""
    valid = episodes.valid
    rewards = episodes.rewards * valid  # [T, N]
    if config.credit == "outcome":
        judged = rewards.sum(dim=0, keepdim=True)  # [1, N], alike for every step
    else:
        judged = sum_backwards(rewards, torch.full_like(rewards, config.gamma))  # [T, N]
    groups = judged.unflatten(1, (config.num_groups, config.group_size))  # [..., groups, G]
    advantages = group_relative_advantages(groups, config.divide_by_std).flatten(1).expand(valid.shape)
    lengths = valid.sum(dim=0)
    weights = (lengths.float().mean() / lengths).expand(valid.shape)
    reference_log_probs = reference.policy(episodes.obs).log_prob(episodes.actions)
    columns = (episodes.obs, episodes.actions, episodes.log_probs, advantages, reference_log_probs, weights)
    return GroupBatch(*episodes.valid_rows(*columns))


def grpo_loss(agent: Actor, batch: GroupBatch, config: GRPOConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """−(L^CLIP − β k₃[π_θ ‖ π_ref]), each episode weighing alike, a scalar to minimise, and metrics.

    Book: eq-grpo. Shao et al. (2024), eqs. 3 and 4, negated.
    """
    dist = agent.policy(batch.obs)
    log_probs = dist.log_prob(batch.actions)
    ratio = (log_probs - batch.log_probs).exp()  # [M]
    objective = clipped_surrogate(ratio, batch.advantages, config.clip)
    kl = kl_k3(batch.reference_log_probs - log_probs)
    if config.kl_coef > 0:
        objective = objective - config.kl_coef * kl
    loss = -(batch.weights * objective).mean()
    metrics = {
        "policy_loss": loss.detach(),
        "entropy": dist.entropy().mean().detach(),
        "reference_kl": kl.mean().detach(),
        "clip_fraction": clip_fraction(ratio.detach(), config.clip),
    }
    return loss, metrics


def improve(
    agent: Actor,
    optimizer: torch.optim.Optimizer,
    batch: GroupBatch,
    config: GRPOConfig,
    generator: Generator,
) -> dict[str, float]:
    """Several epochs of minibatch steps on one batch; the mean of each metric over the steps."""
    rows = []
    for _ in range(config.epochs):
        for minibatch in batch.minibatches(config.minibatch_size, generator):
            loss, metrics = grpo_loss(agent, minibatch, config)
            metrics["grad_norm"] = gradient_step(optimizer, loss, config.max_grad_norm)
            rows.append(metrics)
    return mean_metrics(rows)


def train(
    env_id: EnvSpec,
    config: GRPOConfig = GRPOConfig(),
    seed: int = 0,
    *,
    checkpoint: str | PathLike | None = None,
    checkpoint_every: int = 10,
    progress: bool = False,
) -> tuple[Actor, History]:
    """Train an agent with GRPO; arguments, results and errors as for all of ``policyopt.algorithms``.

    An environment whose resets with one seed differ raises ``ValueError``.
    """
    weights_seed, play_seed = spawn_seeds(seed, 2)
    num_episodes = config.num_groups * config.group_size
    collector = EpisodeCollector(env_id, num_episodes, play_seed, config.group_size)
    with closing(collector), single_thread():
        agent = Actor.for_envs(collector.envs, config.hidden, weights_seed)
        reference = copy.deepcopy(agent)
        optimizer, history = make_adam(agent.parameters(), config.learning_rate), History()
        parts = {"agent": agent, "reference": reference, "optimizer": optimizer}
        parts |= {"collector": collector, "history": history}
        saved = Checkpoint(checkpoint, checkpoint_every, describe_run("grpo", env_id, config, seed), parts)

        numbers = updates_within(config.total_steps, history, saved, progress)
        for update, episodes in zip(numbers, collector.until(config.total_steps, agent), strict=False):
            done = history.last.get("step", 0) / config.total_steps
            learning_rate = linear_schedule(config.learning_rate, config.learning_rate_end, done)
            set_learning_rate(optimizer, learning_rate)

            if config.reference_every is not None and update % config.reference_every == 0:
                reference.load_state_dict(agent.state_dict())
            batch = group_batch(episodes, reference, config)  # [B, ...]
            metrics = improve(agent, optimizer, batch, config, collector.generator)
            history.log(
                step=collector.steps_taken,
                episode_return=collector.recent_return(),
                learning_rate=learning_rate,
                **metrics,
            )
    return agent, history
